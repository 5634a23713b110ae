"""What it costs to verify hosts: round trips and time of each, and of the whole run.

    python -m benchmarks.verify [--inventory FILE] [--json] [--runs N]

On the lab machine that is up, or on the hosts of an inventory that are deployed. Ends with 1 when one host on a real
processor takes longer than promised; on an emulated or virtual one times are shown and not judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.outcome import BenchmarkError, finish
from rtinfra.paths import PROJECT
from rtinfra.verify import Report
from rtinfra.verify.report import EXIT_UNUSABLE

INVENTORY = Path("inventory/lab.py")
#: So many controls on one host are to be done in so many seconds, on a real processor.
CONTROLS, MOST_SECONDS = 150, 3.0
_RUNS = 3
_LAST_LINES = 10


@dataclass(frozen=True)
class HostCost:
    """What one host cost. Seconds are medians: of the look at it, and of its controls."""

    name: str
    virtualisation: str
    controls: int
    round_trips: int
    look_seconds: float
    control_seconds: float


@dataclass(frozen=True)
class Result:
    """One benchmark: `seconds` are those of every whole run, Python's start and all reports included."""

    hosts: tuple[HostCost, ...]
    seconds: tuple[float, ...]

    @property
    def is_judged(self) -> bool:
        """Whether it was one host, on a real processor: what the promise is about."""
        return len(self.hosts) == 1 and self.hosts[0].virtualisation == "none"

    @property
    def seconds_for_the_promise(self) -> float:
        """Median seconds, scaled to the promised number of controls for what the controls themselves take."""
        more = sum(host.control_seconds / host.controls * max(0, CONTROLS - host.controls) for host in self.hosts)
        return median(self.seconds) + more

    @property
    def problems(self) -> list[str]:
        """What is not as promised; empty when the benchmark is passed or not judged."""
        needed = self.seconds_for_the_promise
        if self.is_judged and needed > MOST_SECONDS:
            return [f"{CONTROLS} controls on one host take {needed:.1f} s, at most {MOST_SECONDS:.0f} s are promised"]
        return []

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            **asdict(self),
            "judged": self.is_judged,
            "limits": {"controls": CONTROLS, "seconds": MOST_SECONDS},
            "problems": self.problems,
        }


def verify(inventory: Path) -> tuple[Report, float]:
    """Run `rtinfra verify` as an operator does; return its report and the seconds it took.

    Raises:
        BenchmarkError: a host could not be looked at.
    """
    with TemporaryDirectory(prefix="rtinfra-bench-") as output:
        program = str(Path(sys.executable).with_name("rtinfra"))
        command = [program, "verify", "--json", "--output", output]
        command += ["--inventory", str(inventory)]
        started = time.monotonic()
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
        seconds = time.monotonic() - started
    if ran.returncode == EXIT_UNUSABLE or not ran.stdout.strip():
        raise BenchmarkError("\n".join((ran.stderr or ran.stdout).splitlines()[-_LAST_LINES:]))
    return Report.from_json(json.loads(ran.stdout)), seconds


def summed(reports: Sequence[Report], seconds: Sequence[float]) -> Result:
    """Return what several runs over the same hosts cost."""
    last = reports[-1]
    hosts = []
    for name, facts in last.hosts.items():
        own = [[result for result in report.results if result.host == name] for report in reports]
        hosts.append(
            HostCost(
                name=name,
                virtualisation=facts.virtualisation,
                controls=len(own[-1]),
                round_trips=facts.round_trips,
                look_seconds=round(median(report.hosts[name].snapshot_seconds for report in reports), 2),
                control_seconds=round(median(sum(result.duration for result in found) for found in own), 3),
            )
        )
    return Result(tuple(hosts), tuple(round(value, 2) for value in seconds))


def show(result: Result, console: Console) -> None:
    """Print the table and what follows from it."""
    table = Table(title="What a verification costs", title_justify="left")
    for heading in ("Host", "Runs on"):
        table.add_column(heading)
    for heading in ("Controls", "Round trips", "Look s", "Controls s"):
        table.add_column(heading, justify="right")
    for host in result.hosts:
        table.add_row(
            host.name,
            "a real processor" if host.virtualisation == "none" else host.virtualisation,
            str(host.controls),
            str(host.round_trips),
            f"{host.look_seconds:.2f}",
            f"{host.control_seconds:.2f}",
        )
    console.print(table)
    shown = ", ".join(f"{value:.1f}" for value in result.seconds)
    console.print(f"Whole runs, with Python's start and all reports: {shown} s; median {median(result.seconds):.1f} s.")
    if not result.is_judged:
        console.print(f"Not judged: {MOST_SECONDS:.0f} s are promised for {CONTROLS} controls on one real host.")
    for problem in result.problems:
        console.print(f"Not passed: {problem}.", style="bold red")


def main(
    inventory: Annotated[Path, typer.Option(help="Inventory with hosts that are deployed.")] = INVENTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")] = False,
    runs: Annotated[int, typer.Option(min=1, help="Runs.")] = _RUNS,
) -> None:
    """Measure what it costs to verify hosts."""
    try:
        measured = [verify(inventory) for _ in range(runs)]
    except BenchmarkError as error:
        Console(stderr=True, highlight=False).print(str(error), style="bold red", markup=False)
        raise typer.Exit(1) from error
    result = summed([report for report, _ in measured], [seconds for _, seconds in measured])
    finish("verify", result, show, as_json)


if __name__ == "__main__":
    typer.run(main)
