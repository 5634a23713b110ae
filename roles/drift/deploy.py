"""Operations of the `drift` role: a checker and what it is to find, written from the values of all other roles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pyinfra.api.deploy import deploy

from roles.drift.model import DriftSettings
from roles.site import TEXTFILE_DIRECTORY
from rtinfra.deb import LocalPackage
from rtinfra.facts.files import DRIFT_CHECKER, PENDING_DIR
from rtinfra.operations import files as file_operations
from rtinfra.operations.managed import DAEMON_RELOAD, Absent, Action, Directory, File, Live, Managed, Unit
from rtinfra.render import render

SERVICE: Final = "rtinfra-drift.service"
TIMER: Final = "rtinfra-drift.timer"
#: Where the host keeps what is expected, and what it found last.
STATE: Final = "/var/lib/rtinfra/drift"
RESULT: Final = f"{STATE}/result.json"
EXPECTED: Final = f"{STATE}/expected.json"
METRICS: Final = f"{TEXTFILE_DIRECTORY}/rtinfra_drift.prom"

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
    paths: Sequence[Managed] = field(repr=False)
    units: Sequence[Unit]
    packages: Sequence[str]
    local_packages: Sequence[LocalPackage]
    live: Sequence[Live]
    kernel: Kernel | None


def files(settings: DriftSettings, housekeeping: str | None, expected: Expectation) -> list[Managed]:
    """Every path this role manages."""
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
    own: list[Managed] = [
        File(path=DRIFT_CHECKER, content=_PROGRAM.read_bytes(), mode="0755"),
        Directory(path=STATE, mode="0700"),
        *(
            File(
                path=f"/etc/systemd/system/{unit}",
                content=render(f"drift/{unit}.j2", **values),
                actions=(DAEMON_RELOAD, _CHECK_SOON),
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


def document(expected: Expectation, own: Sequence[Managed]) -> dict[str, Any]:
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
            for value in expected.live
        ],
        "kernel": {"release": expected.kernel.release, "words": list(expected.kernel.words)}
        if expected.kernel
        else None,
    }


def _path(path: Managed) -> Mapping[str, str]:
    match path:
        case File():
            own = {"kind": "file", "sha256": path.sha256}
        case Directory():
            own = {"kind": "directory"}
        case _:
            return {"path": path.path, "kind": "absent"}
    return {**own, "path": path.path, "mode": path.mode, "owner": path.owner, "group": path.group}


def units(settings: DriftSettings) -> list[Unit]:
    """Every unit this role has a say in; the service is started by its timer."""
    if not settings.enabled:
        return [Unit(TIMER, startup="disabled", running=False)]
    return [Unit(TIMER)]


def packages(settings: DriftSettings) -> Sequence[str]:
    """Debian packages that the checker needs."""
    return settings.packages if settings.enabled else ()


@deploy("drift")
def configure(paths: Sequence[Managed]) -> None:
    """Place the files. After everything they speak of, so that a run cut off before leaves the older expectation."""
    file_operations.sync(name="files", paths=paths)
