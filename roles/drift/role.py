"""The `drift` role: a checker and what it is to find, written from the states of all other roles of the host."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from roles.drift.model import DRIFT, EXPECTED, METRICS, RESULT, SERVICE, STATE, TIMER, DriftSettings
from roles.rt_kernel.model import RT_KERNEL
from roles.shape import FleetView, Role, RoleState
from roles.shared import TEXTFILE_DIRECTORY
from rtinfra.deb import LocalPackage
from rtinfra.facts.files import DRIFT_CHECKER, PENDING_DIR
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, Action, Directory, File, Resource, RuntimeValue, Unit
from rtinfra.render import render

_PROGRAM = Path(__file__).parent / "checker" / "drift.py"
# As in the checker: it refuses what it does not know.
_FORMAT = 1
# The timer checks two minutes after it was started. One that is not there yet is started with all other units. A check
# that finds drift leaves this action pending: so the deploy that puts everything back is followed by a new check.
_CHECK_SOON = Action("drift-check-soon", f"systemctl try-restart {TIMER}")


@dataclass(frozen=True)
class Kernel:
    """The kernel that should run: shell pattern of its release, and our words of its command line."""

    release: str
    words: Sequence[str]


@dataclass(frozen=True)
class Expectation:
    """Everything that a deploy makes of a host, as the values that were handed to the operations."""

    host: str
    settings_sha256: str
    paths: Sequence[Resource] = field(repr=False)
    units: Sequence[Unit]
    packages: Sequence[str]
    local_packages: Sequence[LocalPackage]
    runtime: Sequence[RuntimeValue]
    kernel: Kernel | None


def state(settings: DriftSettings, view: FleetView) -> RoleState:
    """Return the checker with what it expects, its packages and its timer; the service is started by its timer."""
    unit = Unit(TIMER) if settings.enabled else Unit(TIMER, startup="disabled", running=False)
    packages = settings.packages if settings.enabled else ()
    # On other hosts it shares nothing with a control loop.
    own_services = (SERVICE,) if settings.enabled and view.layout is not None else ()
    own = RoleState(units=(unit,), packages=packages, own_services=own_services)
    return replace(own, files=tuple(_files(settings, view.housekeeping, _expectation(view, own))))


def _expectation(view: FleetView, own: RoleState) -> Expectation:
    """Return what all roles of the host come to; `own` is this role's state, without its files."""
    every = (*view.others, own)
    rt_kernel, kernel = view.own(RT_KERNEL), None
    if rt_kernel is not None:
        pattern = rt_kernel.source(view.distribution).image_pattern
        kernel = Kernel(pattern, rt_kernel.command_line(view.cpus))
    return Expectation(
        host=view.host,
        settings_sha256=view.settings_sha256,
        paths=[path for state in every for path in state.paths],
        units=[unit for state in every for unit in state.units],
        packages=[name for state in every for name in state.packages],
        local_packages=[package for state in every for package in state.local_packages],
        runtime=[value for state in every for value in state.runtime],
        kernel=kernel,
    )


def _files(settings: DriftSettings, housekeeping: str | None, expected: Expectation) -> list[Resource]:
    if not settings.enabled:
        wanted_by = f"/etc/systemd/system/timers.target.wants/{TIMER}"
        gone = (wanted_by, f"/etc/systemd/system/{TIMER}", f"/etc/systemd/system/{SERVICE}", EXPECTED, RESULT, METRICS)
        return [Absent(path=path, actions=(DAEMON_RELOAD,)) for path in (*gone, DRIFT_CHECKER)]
    values = {
        "at": settings.at,
        "housekeeping": housekeeping,
        "marker": f"{PENDING_DIR}/{_CHECK_SOON.name}",
        "program": DRIFT_CHECKER,
        "state": STATE,
        "textfiles": TEXTFILE_DIRECTORY,
    }
    own: list[Resource] = [
        File(path=DRIFT_CHECKER, content=_PROGRAM.read_bytes(), mode="0755"),
        Directory(path=STATE, mode="0700"),
        *(
            File(
                path=f"/etc/systemd/system/{unit}",
                content=render(f"drift/{unit}.j2", **values),
                actions=(DAEMON_RELOAD,),
                # The other one is read anew whenever it is started.
                restarts=(TIMER,) if unit == TIMER else (),
            )
            for unit in (SERVICE, TIMER)
        ),
    ]
    return [
        *own,
        File(
            path=EXPECTED,
            content=json.dumps(document(expected, own), indent=1, sort_keys=True).encode() + b"\n",
            mode="0600",
            # It holds hashes of secret files.
            secret=True,
            actions=(_CHECK_SOON,),
        ),
    ]


def document(expected: Expectation, own: Sequence[Resource]) -> dict[str, Any]:
    """Return what the checker reads; `own` are this role's paths, without that of the document itself."""
    packages: dict[str, str | None] = {name.partition("/")[0]: None for name in expected.packages}
    packages |= {package.name: package.version for package in expected.local_packages}
    return {
        "format": _FORMAT,
        "host": expected.host,
        "settings_sha256": expected.settings_sha256,
        # Two roles may ask for the same directory.
        "files": [_path(path) for path in {path.path: path for path in (*expected.paths, *own)}.values()],
        "units": [{"name": unit.name, "startup": unit.startup, "running": unit.running} for unit in expected.units],
        "packages": packages,
        "live": [
            {
                "kind": value.kind,
                "name": value.name,
                "paths": value.paths,
                "form": value.form,
                "value": value.value,
                "action": value.action.name if value.action else "",
            }
            for value in expected.runtime
        ],
        "kernel": {"release": expected.kernel.release, "words": list(expected.kernel.words)}
        if expected.kernel
        else None,
    }


def _path(path: Resource) -> Mapping[str, str]:
    match path:
        case File():
            own = {"kind": "file", "sha256": path.sha256}
        case Directory():
            own = {"kind": "directory"}
        case _:
            return {"path": path.path, "kind": "absent"}
    return {**own, "path": path.path, "mode": path.mode, "owner": path.owner, "group": path.group}


ROLE = Role(section=DRIFT, state=state, speaks_of_others=True)
