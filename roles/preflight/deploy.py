"""What the `preflight` role puts on a host: an environment of its own, settings, a hardened service and its timer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from roles.preflight.model import PreflightSettings
from roles.site import AGENTS_SLICE, TEXTFILE_DIRECTORY, Part, Site, secret_names
from rtinfra.operations.managed import DAEMON_RELOAD, Action, Directory, File, Managed, PythonEnvironment, Unit
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


def part(settings: PreflightSettings, site: Site) -> Part:
    """Return files, units, packages and the environment.

    Raises:
        ValueError: nobody would read the metrics on this host, or a directory is where the service cannot write.
    """
    if not any(member.host == site.host for member in site.members("agents")):
        raise ValueError("preflight leaves its metrics to node_exporter: put the host into the group agents too")
    if not settings.state_directory.is_relative_to(STATE_ROOT) or str(settings.state_directory) == STATE_ROOT:
        raise ValueError(f"preflight.state_directory must be below {STATE_ROOT}: systemd makes it for the account")
    from_index = site.is_supplied or settings.wheels == "index"
    environment = PythonEnvironment(ENVIRONMENT, "rtinfra.preflight", from_index)
    return Part(
        accounts=(
            File(
                path="/etc/sysusers.d/60-rtinfra-preflight.conf",
                content=render("preflight/sysusers.conf.j2", account=ACCOUNT, home=settings.state_directory),
                actions=(_SYSUSERS,),
            ),
        ),
        paths=(*_configuration(settings, site), *_units(settings, site, environment)),
        units=(Unit(TIMER),),
        packages=settings.packages,
        environments=(environment,),
    )


def _configuration(settings: PreflightSettings, site: Site) -> Iterator[Managed]:
    """Settings and secrets: for the account alone. They are read at every run, so a change restarts nothing."""
    urls = site.urls("alertmanager", "log_port")
    application = next((member.settings for member in site.members("rt_hosts") if member.host == site.host), None)
    on_host = settings.on_host(
        TEXTFILE_DIRECTORY,
        site.housekeeping,
        f"http://127.0.0.1:{application.rt_process.health_port}/health/ready" if application else None,
        f"{urls[0]}/runbooks" if urls else None,
    )
    yield Directory(path="/etc/rtinfra")
    yield Directory(path=CONFIGURATION, mode="0750", group=ACCOUNT)
    yield Directory(path=f"{CONFIGURATION}/secrets", mode="0700", owner=ACCOUNT, group=ACCOUNT)
    yield _private("settings.json", render_json(on_host.to_json()))
    for name in sorted(_secrets_of(on_host)):
        yield _private(f"secrets/{name}", site.secrets.read(name), secret=True)


def _secrets_of(settings: BaseModel) -> set[str]:
    return {name for _, name in secret_names(settings)}


def _private(name: str, content: bytes, secret: bool = False) -> File:
    return File(
        path=f"{CONFIGURATION}/{name}", content=content, mode="0600", owner=ACCOUNT, group=ACCOUNT, secret=secret
    )


def _units(settings: PreflightSettings, site: Site, environment: PythonEnvironment) -> Iterator[Managed]:
    values = {
        "settings": settings,
        "account": ACCOUNT,
        "slice": AGENTS_SLICE,
        "textfiles": TEXTFILE_DIRECTORY,
        "housekeeping": site.housekeeping,
        "host": site.host,
        "python": environment.python,
        "state": settings.state_directory.relative_to(STATE_ROOT),
    }
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
