"""The `preflight` role: an environment of its own, settings, a hardened service and its timer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from roles.agents.model import AGENTS
from roles.alertmanager.model import ALERTMANAGER
from roles.preflight.model import PREFLIGHT, PreflightSettings
from roles.rt_app.model import RT_APP
from roles.secrets import secret_names
from roles.shape import FleetView, Role, RoleState, Tier
from roles.shared import AGENTS_SLICE, TEXTFILE_DIRECTORY
from rtinfra.facts.http import loopback
from rtinfra.operations.resources import DAEMON_RELOAD, Action, Directory, File, PythonEnvironment, Resource, Unit
from rtinfra.preflight.settings import CONFIGURATION
from rtinfra.render import render, render_json

ACCOUNT: Final = "rtinfra-preflight"
ENVIRONMENT: Final = "/opt/rtinfra-preflight"
SERVICE: Final = "rtinfra-preflight.service"
TIMER: Final = "rtinfra-preflight.timer"
COMMAND: Final = "/usr/local/bin/rtinfra-preflight"
#: What systemd's StateDirectory= is relative to.
STATE_ROOT: Final = "/var/lib"
_UNITS = "/etc/systemd/system"
_SYSUSERS = Action("sysusers-preflight", "systemd-sysusers")


def state(settings: PreflightSettings, view: FleetView) -> RoleState:
    """Return files, units, packages and the environment.

    Raises:
        ValueError: nobody would read the metrics on this host, or a directory is where the service cannot write.
    """
    if view.own(AGENTS) is None:
        raise ValueError("preflight leaves its metrics to node_exporter: put the host into the group agents too")
    if not settings.state_directory.is_relative_to(STATE_ROOT) or str(settings.state_directory) == STATE_ROOT:
        raise ValueError(f"preflight.state_directory must be below {STATE_ROOT}: systemd makes it for the account")
    from_index = view.is_supplied or settings.wheels == "index"
    environment = PythonEnvironment(ENVIRONMENT, "rtinfra.preflight", from_index)
    return RoleState(
        accounts=(
            File(
                path="/etc/sysusers.d/60-rtinfra-preflight.conf",
                content=render("preflight/sysusers.conf.j2", account=ACCOUNT, home=settings.state_directory),
                actions=(_SYSUSERS,),
            ),
        ),
        files=(*_configuration(settings, view), *_units(settings, view, environment)),
        units=(Unit(TIMER),),
        packages=settings.packages,
        own_services=(SERVICE,),
        private_directories=(CONFIGURATION, str(settings.state_directory)),
        environments=(environment,),
    )


def _configuration(settings: PreflightSettings, view: FleetView) -> Iterator[Resource]:
    """Settings and secrets: for the account alone. They are read at every run, so a change restarts nothing.

    Their folders are root's: root writes there, and in a folder of its own the account could lay a link in root's way.
    """
    pages = [member.url(member.settings.log_port, "/runbooks") for member in view.members(ALERTMANAGER)]
    application = view.own(RT_APP)
    on_host = settings.on_host(
        settings.environment_in(view.telemetry.environment),
        TEXTFILE_DIRECTORY,
        view.housekeeping,
        loopback(application.rt_process.health_port, "/health/ready") if application else None,
        next(iter(pages), None),
    )
    yield Directory(path="/etc/rtinfra")
    yield Directory(path=CONFIGURATION, mode="0750", group=ACCOUNT)
    yield Directory(path=f"{CONFIGURATION}/secrets", mode="0750", group=ACCOUNT)
    yield _private("settings.json", render_json(on_host.to_json()))
    for name in sorted(_secrets_of(on_host)):
        yield _private(f"secrets/{name}", view.secrets.read(name), secret=True)


def _secrets_of(settings: BaseModel) -> set[str]:
    return {name for _, name in secret_names(settings)}


def _private(name: str, content: bytes, secret: bool = False) -> File:
    return File(
        path=f"{CONFIGURATION}/{name}", content=content, mode="0600", owner=ACCOUNT, group=ACCOUNT, secret=secret
    )


def _units(settings: PreflightSettings, view: FleetView, environment: PythonEnvironment) -> Iterator[Resource]:
    values = {
        "settings": settings,
        "account": ACCOUNT,
        "slice": AGENTS_SLICE,
        "textfiles": TEXTFILE_DIRECTORY,
        "housekeeping": view.housekeeping,
        "host": view.host,
        "python": environment.python,
        "state": settings.state_directory.relative_to(STATE_ROOT),
    }
    values["confinement"] = render("preflight/confinement.j2", **values).decode().splitlines()
    # The account writes here, and whoever else did goes on doing so.
    yield Directory(path=TEXTFILE_DIRECTORY, mode="0775", group=ACCOUNT)
    for name, restarts in ((SERVICE, ()), (TIMER, (TIMER,))):
        yield File(
            path=f"{_UNITS}/{name}",
            content=render(f"preflight/{name}.j2", **values),
            actions=(DAEMON_RELOAD,),
            restarts=restarts,
        )
    yield File(path=COMMAND, content=render("preflight/rtinfra-preflight.sh.j2", **values), mode="0755")


ROLE = Role(section=PREFLIGHT, state=state, tier=Tier.SENDS)
