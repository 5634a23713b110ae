"""systemd units: all of them in one look, and only what differs is touched."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from pyinfra import host, logger
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation

from rtinfra.facts.files import PENDING_DIR
from rtinfra.facts.units import Units, UnitsState, UnitState
from rtinfra.operations.change import Step, UnitChange
from rtinfra.operations.changes import Predicted, predicted, record
from rtinfra.operations.files import restart_marker
from rtinfra.operations.resources import DAEMON_RELOAD, Unit
from rtinfra.operations.scripts import script

# The same for every unit and every run.
_SCRIPT = script("start.sh")
_MASK, _UNMASK = "systemctl mask --now --quiet", "systemctl unmask --quiet"
_ENABLE, _DISABLE = "systemctl enable --quiet", "systemctl disable --quiet"
# In the order in which they are done.
_TOGETHER = (_MASK, _UNMASK, _ENABLE, _DISABLE)
_UNKNOWN = UnitState(load="not-found", active="inactive", sub="dead", file="", needs_reload=False)


@operation()
def ensure(units: Sequence[Unit]) -> Generator[StringCommand, None, None]:
    """Enable, mask, start and restart `units` as needed.

    A unit is restarted when a file it depends on changed, in this run or in one that was cut off. When a
    start fails, the end of the unit's journal is shown, the unit goes back to the files it ran with before, and the
    operation fails.
    """
    found: UnitsState = host.get_fact(Units, names=[unit.name for unit in units])
    asked, changed, steps = _plan(units, found)
    if asked or changed:
        record(Step(name="systemd", text="reads changed units", consequence=asked))
    record(*(step.change for step in steps))
    together, each = _together(steps), [step for step in steps if step.command not in _TOGETHER]
    yield from map(_told, together)
    # systemd reads all of its units after each of those, too.
    if (asked or changed) and not together:
        yield StringCommand(DAEMON_RELOAD.command)
    if asked:
        yield StringCommand(f"rm -f {PENDING_DIR}/{DAEMON_RELOAD.name}")
    yield from (_told(([step.change], step.command)) for step in each)
    if not asked and not changed and not steps:
        host.noop(f"all {len(units)} units are as they should be")


class _Step(NamedTuple):
    """What is done to one unit."""

    change: UnitChange
    command: str
    """Of this unit alone; for verbs of `_TOGETHER` without its name."""


def _together(steps: Sequence[_Step]) -> list[tuple[list[UnitChange], str]]:
    """Return one command for all units whose files alone it concerns, for each verb, with what it changes.

    Before any unit starts: systemd reads all of its units after each of them, which takes seconds on a small host.
    """
    found = []
    for verb in _TOGETHER:
        if changes := [step.change for step in steps if step.command == verb]:
            found.append((changes, f"{verb} {shlex.join(change.name for change in changes)}"))
    return found


def _told(step: tuple[list[UnitChange], str]) -> StringCommand:
    """Say what a command changes, and return it."""
    changes, command = step
    for change in changes:
        logger.info("%s%s: %s", host.print_prefix, change.name, f"{change.text}, {change.because}")
    return StringCommand(command)


def _plan(units: Sequence[Unit], found: UnitsState) -> tuple[bool, bool, list[_Step]]:
    """Return whether systemd has to read its units for files of this run, for those of others; what is done to each."""
    later = predicted()
    restarts = later.restarts()
    pending = later.still_pending(found.pending) | {restart_marker(unit) for unit in restarts}
    steps = []
    for unit in units:
        state = _after(later, found.units.get(unit.name, _UNKNOWN))
        for step, because, command in _steps(unit, state, pending):
            files = restarts.get(unit.name, ())
            change = UnitChange(
                name=unit.name,
                text=step,
                because=_changed(files) if files and step == "restart" else because,
                consequence=bool(files) and step == "restart",
            )
            steps.append(_Step(change, command))
    asked = DAEMON_RELOAD.name in pending or later.follows(DAEMON_RELOAD.name)
    changed = not later.has_reboot and any(found.units.get(unit.name, _UNKNOWN).needs_reload for unit in units)
    return asked, changed, steps


def _changed(files: Sequence[str]) -> str:
    return f"{', '.join(files)} {'changes' if len(files) == 1 else 'change'}"


def _after(later: Predicted, state: UnitState) -> UnitState:
    """Return the state of a unit after what is predicted: a reboot starts what is enabled."""
    if later.has_reboot and state.file in ("enabled", "static"):
        return replace(state, active="active", needs_reload=False)
    return state


def _steps(unit: Unit, state: UnitState, pending: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield what must be done to a unit, why, and the command as `_Step` has it."""
    name, marker = shlex.quote(unit.name), restart_marker(unit.name)
    forget = f"rm -f {PENDING_DIR}/{shlex.quote(marker)}"
    was = "is not on the host yet" if state.load == "not-found" else f"is {state.file or state.load}"
    if unit.startup == "masked":
        if state.file != "masked":
            yield "mask and stop", was, _MASK
        return
    if state.file == "masked" or state.load == "masked":
        yield "unmask", "is masked", _UNMASK
    if unit.startup == "enabled" and state.file not in ("enabled", "static"):
        yield "enable", was, _ENABLE
    if unit.startup == "disabled" and state.file not in ("disabled", "static", ""):
        yield "disable", was, _DISABLE
    if unit.running is False:
        if state.active not in ("inactive", "failed"):
            yield "stop", f"is {state.active}", f"systemctl stop {name} && {forget}"
        return
    if marker in pending and (unit.running or state.active == "active"):
        yield "restart", "its files changed", _start("restart", name)
    elif unit.running and state.active != "active":
        yield "start", was if state.load == "not-found" else f"is {state.active}", _start("start", name)


def _start(verb: str, name: str) -> str:
    """Start or restart a unit; start.sh says what happens when that fails."""
    return f"set -- {verb} {name}\n{_SCRIPT}"
