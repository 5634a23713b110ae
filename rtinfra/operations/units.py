"""systemd units: all of them in one look, and only what differs is touched."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation

from rtinfra.facts.files import PENDING_DIR
from rtinfra.facts.units import Units, UnitsState, UnitState
from rtinfra.operations.files import restart_marker
from rtinfra.operations.managed import Unit

# The same for every unit and every run.
_SCRIPT = (Path(__file__).parent / "start.sh").read_text(encoding="utf-8")
_UNKNOWN = UnitState(load="not-found", active="inactive", sub="dead", file="", needs_reload=False)


@operation()
def ensure(units: Sequence[Unit]) -> Generator[StringCommand, None, None]:
    """Enable, mask, start and restart `units` as needed.

    A unit is restarted when a file it depends on changed, in this run or in one that was cut off. When a
    start fails, the end of the unit's journal is shown, the unit goes back to the files it ran with before, and the
    operation fails.
    """
    found: UnitsState = host.get_fact(Units, names=[unit.name for unit in units])
    if any(found.units.get(unit.name, _UNKNOWN).needs_reload for unit in units):
        yield StringCommand("systemctl daemon-reload")
    quiet = True
    for unit in units:
        for step, command in _steps(unit, found):
            quiet = False
            logger.info("%s%s: %s", host.print_prefix, unit.name, step)
            yield StringCommand(command)
    if quiet:
        host.noop(f"all {len(units)} units are as they should be")


def _steps(unit: Unit, found: UnitsState) -> Iterator[tuple[str, str]]:
    """Yield what must be done to a unit, in words and as a command."""
    state = found.units.get(unit.name, _UNKNOWN)
    name, marker = shlex.quote(unit.name), restart_marker(unit.name)
    forget = f"rm -f {PENDING_DIR}/{shlex.quote(marker)}"
    if unit.startup == "masked":
        if state.file != "masked":
            yield "mask and stop", f"systemctl mask --now --quiet {name}"
        return
    if state.file == "masked" or state.load == "masked":
        yield "unmask", f"systemctl unmask --quiet {name}"
    if unit.startup == "enabled" and state.file not in ("enabled", "static"):
        yield "enable", f"systemctl enable --quiet {name}"
    if unit.startup == "disabled" and state.file not in ("disabled", "static", ""):
        yield "disable", f"systemctl disable --quiet {name}"
    if unit.running is False:
        if state.active not in ("inactive", "failed"):
            yield "stop", f"systemctl stop {name} && {forget}"
        return
    if marker in found.pending and (unit.running or state.active == "active"):
        yield "restart, its files changed", _start("restart", name)
    elif unit.running and state.active != "active":
        yield f"start, was {state.active}", _start("start", name)


def _start(verb: str, name: str) -> str:
    """Start or restart a unit; start.sh says what happens when that fails."""
    return f"set -- {verb} {name}\n{_SCRIPT}"
