"""A plan for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from rtinfra.operations.change import Change, FileChange, Reboot, UnitChange, Unknown
from rtinfra.plan.model import HostPlan, Plan

_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def lines(plan: Plan, diffs: bool = True) -> Iterator[Text]:
    """Yield a plan line by line; without `diffs` what changes in files is named only."""
    for name, host in plan.hosts.items():
        yield from _host(name, host, diffs)
    if plan.has_changes:
        yield Text("Marks: ~ changes, > follows from that, ? cannot be known before", style="dim")


def _host(name: str, host: HostPlan, diffs: bool) -> Iterator[Text]:
    reboot = host.reboot
    needed = "yes" if reboot else "no"
    if not host.operations:
        yield Text(f"{name}: no changes; reboot needed: {needed}", style="bold")
        return
    yield Text(
        f"{name}: {counted(host.changes, 'change')}, {counted(host.consequences, 'consequence')}; "
        f"reboot needed: {needed}",
        style="bold",
    )
    for operation in host.operations:
        note = " (only follows from the above)" if operation.is_consequence else ""
        yield Text(f"  {operation.name}{note}")
        for change in operation.changes:
            yield from _change(change, diffs)


def _change(change: Change, diffs: bool) -> Iterator[Text]:
    mark, style = (">", "dim") if change.consequence else ("~", "yellow") if change.is_counted else ("?", "magenta")
    yield Text(f"    {mark} {sentence(change)}", style=style)
    if isinstance(change, Reboot):
        yield from (Text(f"        {reason}") for reason in change.reasons)
        yield from (Text(f"        + {word}", style="green") for word in change.added)
        yield from (Text(f"        - {word}", style="red") for word in change.removed)
    if diffs and isinstance(change, FileChange):
        for line in change.diff.splitlines():
            yield Text(f"        {line}", style=_DIFF_STYLES.get(line[:1], ""))


def sentence(change: Change) -> str:
    """Return a change in one line."""
    match change:
        case FileChange(content=content) if content == "secret" or content.startswith("no text"):
            return f"file {change.name}: {change.text}; content ({content})"
        case UnitChange():
            return f"unit {change.name}: {change.text}; {change.because}"
        case Reboot():
            return f"reboot {change.text}"
        case Unknown():
            return f"{change.name}: {change.text}"
    return f"{change.kind} {change.name}: {change.text}"


def counted(number: int, what: str) -> str:
    """Return `1 change`, `2 changes`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
