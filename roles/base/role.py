"""The `base` role: what every host gets."""

from __future__ import annotations

from roles.base.model import BASE, BaseSettings
from roles.shape import FleetView, Role, RoleState
from roles.shared import LAST_FILE
from rtinfra.operations.resources import Absent, Action, Directory, File, Resource, Unit
from rtinfra.render import render

_SYSUSERS = Action("sysusers", "systemd-sysusers")
# Of hosts of an earlier version: others' files overruled them.
_FORMER_FILES = ("/etc/systemd/journald.conf.d/60-rtinfra.conf", "/etc/security/limits.d/60-rtinfra.conf")
_UNITS = (
    Unit("chrony.service"),
    # Two programs that set one clock make it jump.
    Unit("systemd-timesyncd.service", startup="masked", running=False),
    Unit("systemd-journald.service", startup=None, running=True),
    Unit("logrotate.timer"),
)


def state(settings: BaseSettings, view: FleetView) -> RoleState:
    """Return files, packages and units."""
    return RoleState(files=_files(settings), units=_UNITS, packages=settings.packages)


def _files(settings: BaseSettings) -> tuple[Resource, ...]:
    return (
        # The whole file: the one that the distribution ships names servers on the internet.
        File(
            path="/etc/chrony/chrony.conf",
            content=render("base/chrony.conf.j2", time=settings.time),
            validate="chronyd -p -f {path}",
            restarts=("chrony.service",),
        ),
        # Without this directory journald keeps its log in memory and a power cut takes it.
        Directory(path="/var/log/journal", mode="2755", group="systemd-journal"),
        File(
            path=f"/etc/systemd/journald.conf.d/{LAST_FILE}.conf",
            content=render("base/journald.conf.j2", journal=settings.journal),
            restarts=("systemd-journald.service",),
        ),
        File(
            path="/etc/sysusers.d/60-rtinfra-realtime.conf",
            content=render("base/sysusers.conf.j2", settings=settings),
            actions=(_SYSUSERS,),
        ),
        # Read by pam_limits at login; services get theirs from their unit.
        File(
            path=f"/etc/security/limits.d/{LAST_FILE}.conf",
            content=render("base/limits.conf.j2", group=settings.realtime_group),
        ),
        *(Absent(path=path) for path in _FORMER_FILES),
    )


ROLE = Role(section=BASE, state=state)
