"""Two reports side by side: what got better, what got worse, what is new, what is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from rtinfra.verify.report import ControlResult, Report, Status

EXIT_NOT_WORSE: Final = 0
EXIT_WORSE: Final = 1
# Better is higher. What was not judged is no worse than what holds, but is not proven either: see `no longer judged`.
_RANK: Final[Mapping[Status, int]] = {
    Status.FAIL: 0,
    Status.WAIVED: 1,
    Status.NOT_APPLICABLE: 2,
    Status.MEASURED: 2,
    Status.PASS: 2,
}


@dataclass(frozen=True)
class Change:
    """One control on one host, in both reports. `before` or `after` is None where it is in one of them only."""

    host: str
    control: str
    title: str
    before: Status | None
    after: Status | None
    actual: str

    def __str__(self) -> str:
        states = f"{self.before or 'not there'} -> {self.after or 'not there'}"
        text = f"{self.control} on {self.host}: {states}: {self.title}"
        return f"{text}. Found: {self.actual}" if self.after == Status.FAIL and self.actual else text


@dataclass(frozen=True)
class Comparison:
    """Everything that differs between two reports.

    `judged` are controls that hold or are judged in one of them and are not judged in the other. `silent` are hosts
    that could be looked at before and cannot now, `settings` those whose effective settings are others.
    """

    old: Report
    new: Report
    better: tuple[Change, ...]
    worse: tuple[Change, ...]
    judged: tuple[Change, ...]
    added: tuple[Change, ...]
    gone: tuple[Change, ...]
    silent: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: the same or better. 1: worse: something fails that did not, or a host is silent."""
        fails = any(change.after == Status.FAIL for change in self.added)
        return EXIT_WORSE if self.worse or self.silent or fails else EXIT_NOT_WORSE

    @property
    def summary(self) -> str:
        """Return the counts as one sentence."""
        verdict = "Worse than before" if self.exit_code else "Not worse than before"
        return (
            f"{verdict}: {len(self.better)} better, {len(self.worse)} worse, {len(self.added)} new, "
            f"{len(self.gone)} gone, {len(self.judged)} judged differently."
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        groups = ("better", "worse", "judged", "added", "gone")
        return {
            "old": {"started": self.old.started, "directory": str(self.old.directory)},
            "new": {"started": self.new.started, "directory": str(self.new.directory)},
            "exit_code": self.exit_code,
            **{name: [asdict(change) for change in getattr(self, name)] for name in groups},
            "silent_hosts": list(self.silent),
            "changed_settings": list(self.settings),
        }


def compare(old: Report, new: Report) -> Comparison:
    """Compare two reports control by control and host by host."""
    before, after = _by_key(old.results), _by_key(new.results)
    changes = [_change(before.get(key), after.get(key)) for key in dict.fromkeys((*after, *before))]
    both = [
        change for change in changes if change.before and change.after is not None and change.before != change.after
    ]
    moved = {change: _RANK[change.after] - _RANK[change.before] for change in both if change.after and change.before}
    silent = {problem.host for problem in new.problems} - {problem.host for problem in old.problems}
    return Comparison(
        old=old,
        new=new,
        better=tuple(change for change, rank in moved.items() if rank > 0),
        worse=tuple(change for change, rank in moved.items() if rank < 0),
        judged=tuple(change for change, rank in moved.items() if rank == 0),
        added=tuple(change for change in changes if change.before is None),
        gone=tuple(change for change in changes if change.after is None),
        silent=tuple(sorted(silent)),
        settings=tuple(
            name
            for name, facts in new.hosts.items()
            if name in old.hosts and old.hosts[name].config_sha256 != facts.config_sha256
        ),
    )


def rendered(found: Comparison) -> RenderableType:
    """Return a comparison for a terminal."""
    parts: list[RenderableType] = [Text(f"{found.old.started}  ->  {found.new.started}", style="bold")]
    for title, changes, style in (
        ("Worse", found.worse, "red"),
        ("Better", found.better, "green"),
        ("New", found.added, "cyan"),
        ("Gone", found.gone, "yellow"),
        ("Judged differently", found.judged, "cyan"),
    ):
        if changes:
            parts.append(Text(f"\n{title}", style=f"bold {style}"))
            parts += [Text(f"  {change}") for change in changes]
    parts += [Text(f"{host} could be looked at before and cannot now.", style="bold red") for host in found.silent]
    parts += [Text(f"The effective settings of {host} are others than before.") for host in found.settings]
    parts.append(Text(f"\n{found.summary}", style="bold red" if found.exit_code else "bold green"))
    return Group(*parts)


def _by_key(results: Iterable[ControlResult]) -> dict[tuple[str, str], ControlResult]:
    return {(result.host, result.control): result for result in results}


def _change(before: ControlResult | None, after: ControlResult | None) -> Change:
    known = after or before
    assert known is not None
    return Change(
        host=known.host,
        control=known.control,
        title=known.title,
        before=before.status if before else None,
        after=after.status if after else None,
        actual=known.actual or known.note,
    )
