"""What a verification found: one result per control and host, with the circumstances it was found in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rtinfra.local.files import replace_file
from rtinfra.terminal import plain

EXIT_PASSED: Final = 0
EXIT_FAILED: Final = 1
EXIT_UNUSABLE: Final = 2

#: Name of the file in the report's folder.
REPORT_FILE: Final = "report.json"
NOT_A_LATENCY_PROOF: Final = "measured, not a latency proof"

Severity = Literal["critical", "high", "medium", "low"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low")


class Status(StrEnum):
    """Outcome of one control on one host."""

    PASS = "PASS"  # nosec B105 - no password
    FAIL = "FAIL"
    #: Fails, and somebody answers for that until a day; `note` says who, why and until when.
    WAIVED = "WAIVED"
    #: Has no meaning on this host; `note` says why.
    NOT_APPLICABLE = "N/A"
    #: Looked at and reported, not judged; `note` says why.
    MEASURED = "MEASURED"


_STYLES: Final = {
    Status.PASS: "green",
    Status.FAIL: "bold red",
    Status.WAIVED: "yellow",
    Status.NOT_APPLICABLE: "dim",
    Status.MEASURED: "cyan",
}


@dataclass(frozen=True)
class ControlResult:
    """One control on one host.

    Attributes:
        control: id, for example `RT-10.1`; the part before the dot is the requirement.
        area: heading it belongs under.
        expected: what should be seen; empty when the control did not get as far as looking.
        actual: what was seen.
        note: why it does not apply, was not judged, is waived, or could not be done; else empty.
        duration: seconds.
        why: what it is good for.
        fix: what to do when it does not hold.
    """

    host: str
    control: str
    area: str
    severity: Severity
    title: str
    status: Status
    expected: str = ""
    actual: str = ""
    note: str = ""
    duration: float = 0.0
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class HostFacts:
    """The circumstances on one host that a result means nothing without.

    Attributes:
        config_sha256: of its effective settings.
        snapshot_seconds: what the look at it took.
        machine_id_sha256: which installation it is; the id itself is not to be shown, machine-id(5).
        host_key: fingerprint of its SSH host key.
        boot_id: which boot the look was at.
        round_trips: scripts that were run on it one after the other, the look included.
    """

    kernel: str
    machine: str
    virtualisation: str
    config_sha256: str
    snapshot_seconds: float
    latency: str
    machine_id_sha256: str = ""
    host_key: str = ""
    boot_id: str = ""
    round_trips: int = 0


@dataclass(frozen=True)
class HostProblem:
    """Why nothing could be verified on a host."""

    host: str
    message: str


@dataclass(frozen=True)
class Report:
    """Everything one verification found.

    Attributes:
        started: local time with its offset, ISO 8601.
        directory: where the files are; None while they have not been written.
        not_run: number of disruptive controls left out because nobody asked for them.
        notes: what else the operator should know, for example a waiver that is not needed.
    """

    started: str
    inventory: str
    disruptive: bool
    results: tuple[ControlResult, ...]
    hosts: Mapping[str, HostFacts]
    problems: tuple[HostProblem, ...] = ()
    not_run: int = 0
    duration: float = 0.0
    directory: Path | None = None
    notes: tuple[str, ...] = ()

    def count(self, status: Status) -> int:
        """Return how many controls ended so."""
        return sum(result.status == status for result in self.results)

    @property
    def failed(self) -> tuple[ControlResult, ...]:
        """The controls that failed."""
        return tuple(result for result in self.results if result.status == Status.FAIL)

    @property
    def exit_code(self) -> int:
        """0: everything holds. 1: a control failed. 2: a host or everything could not be verified."""
        if self.problems or not self.results:
            return EXIT_UNUSABLE
        return EXIT_FAILED if self.failed else EXIT_PASSED

    @property
    def ok(self) -> bool:
        """Whether every control on every host holds."""
        return self.exit_code == EXIT_PASSED

    @property
    def summary(self) -> str:
        """Return the counts as one sentence."""
        if not self.results:
            return "No control was run: nothing is proven."
        counts = [
            f"{self.count(Status.PASS)} passed",
            f"{self.count(Status.FAIL)} failed",
            *([f"{self.count(Status.WAIVED)} waived"] if self.count(Status.WAIVED) else []),
            f"{self.count(Status.NOT_APPLICABLE)} not applicable",
            f"{self.count(Status.MEASURED)} measured",
        ]
        noun = "control" if len(self.results) == 1 else "controls"
        text = f"{len(self.results)} {noun} on {_hosts(self.results)}: {', '.join(counts)}."
        if self.not_run:
            text += f" {self.not_run} more kill and restart things on the host; they run with --disruptive."
        return text

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "started": self.started,
            "duration": round(self.duration, 3),
            "inventory": self.inventory,
            "disruptive": self.disruptive,
            "exit_code": self.exit_code,
            "summary": {str(status): self.count(status) for status in Status} | {"not_run": self.not_run},
            "hosts": {name: asdict(facts) for name, facts in self.hosts.items()},
            "problems": [asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
            "controls": [asdict(result) for result in self.results],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], directory: Path | None = None) -> Report:
        """Build a report from `to_json` data."""
        return cls(
            started=data["started"],
            inventory=data["inventory"],
            disruptive=data["disruptive"],
            results=tuple(
                ControlResult(**{**control, "status": Status(control["status"])}) for control in data["controls"]
            ),
            hosts={name: HostFacts(**facts) for name, facts in data["hosts"].items()},
            problems=tuple(HostProblem(**problem) for problem in data["problems"]),
            not_run=data["summary"]["not_run"],
            duration=data["duration"],
            directory=directory,
            notes=tuple(data.get("notes", ())),
        )

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        replace_file(path, (json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def read(path: Path) -> Report:
    """Read what `Report.write` wrote."""
    return parsed(path.read_bytes(), path.parent)


def parsed(data: bytes, directory: Path) -> Report:
    """Return the report that is written in `data`, the content of the file of a folder."""
    return Report.from_json(json.loads(data), directory)


def now() -> str:
    """Return the local time for `Report.started`."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def show(report: Report, console: Console) -> None:
    """Print the table, the problems and the summary."""
    console.print(rendered(report))


def rendered(report: Report) -> RenderableType:
    """Return the report for a terminal: one table, by area, with expected and actual where it matters."""
    parts: list[RenderableType] = []
    if report.results:
        parts.append(_table(report))
    for name, facts in report.hosts.items():
        parts.append(
            Text(
                plain(
                    f"{name}: {facts.machine}, virtualisation {facts.virtualisation}, kernel {facts.kernel}. "
                    f"{facts.latency}"
                )
            )
        )
    for note in report.notes:
        parts.append(Text(plain(note), style="yellow"))
    for problem in report.problems:
        parts.append(Text(plain(f"{problem.host}: {problem.message}"), style="bold red"))
    style = {EXIT_PASSED: "bold green"}.get(report.exit_code, "bold red")
    parts.append(Text(report.summary, style=style))
    if report.directory is not None:
        parts.append(Text(f"Report: {report.directory} (open report.html in a browser)"))
    return Group(*parts)


def _table(report: Report) -> Table:
    several_hosts = len({result.host for result in report.results}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    if several_hosts:
        table.add_column("Host", no_wrap=True)
    table.add_column("Control", no_wrap=True)
    table.add_column("Result", no_wrap=True)
    table.add_column("What", overflow="fold", ratio=1)
    for area, results in by_area(report.results):
        table.add_row(*([""] if several_hosts else []), "", "", f"\n[bold]{escape(area)}[/bold]")
        for result in results:
            table.add_row(
                *([escape(result.host)] if several_hosts else []),
                result.control,
                Text(str(result.status), style=_STYLES[result.status]),
                _what(result),
            )
    return table


def by_area(results: Iterable[ControlResult]) -> list[tuple[str, list[ControlResult]]]:
    """Return the results under their headings, in the order of their ids."""
    areas: dict[str, list[ControlResult]] = {}
    for result in results:
        areas.setdefault(result.area, []).append(result)
    ordered = [(area, sorted(found, key=_order)) for area, found in areas.items()]
    return sorted(ordered, key=lambda entry: min(_order(result)[1] for result in entry[1]))


def _order(result: ControlResult) -> tuple[str, list[int]]:
    """By host, then by id with its numbers compared as numbers."""
    digits = [int(part) for part in result.control.replace("-", ".").split(".") if part.isdecimal()]
    return result.host, digits


def _what(result: ControlResult) -> Text:
    # What a host has and says is others' words.
    result = replace(result, expected=plain(result.expected), actual=plain(result.actual), note=plain(result.note))
    text = Text(result.title)
    if result.status == Status.FAIL:
        text.append(f"  [{result.severity}]", style="red")
        if result.expected:
            text.append(f"\n  expected  {result.expected}", style="green")
        text.append(f"\n  found     {result.actual or result.note}", style="red")
        if result.fix:
            text.append(f"\n  to do     {result.fix}")
        if result.actual and result.note:
            text.append(f"\n  {result.note}", style="red")
    elif result.status == Status.WAIVED:
        text.append(f"\n  found     {result.actual or result.expected}", style="yellow")
        text.append(f"\n  {result.note}", style="yellow")
    elif result.status == Status.MEASURED:
        text.append(f"\n  {result.actual} ({result.note})", style="cyan")
    elif result.status == Status.NOT_APPLICABLE:
        text.append(f"  ({result.note})", style="dim")
    return text


def _hosts(results: Iterable[ControlResult]) -> str:
    names = list(dict.fromkeys(result.host for result in results))
    return names[0] if len(names) == 1 else f"{len(names)} hosts"
