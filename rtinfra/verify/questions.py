"""What verification asks of one host, derived from its settings. The looks (`rtinfra.verify.look`) ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from roles.drift.deploy import SERVICE as DRIFT_SERVICE
from roles.drift.deploy import TIMER as DRIFT_TIMER
from roles.host import HostConfig
from roles.mirror_server.deploy import REGISTRY_UNIT, WEB_UNIT
from roles.preflight import deploy as preflight
from roles.rt_app.deploy import NON_RT_UNIT, RT_UNIT
from roles.rt_kernel.deploy import JUDGE, SETTLE
from roles.rt_tuning.deploy import HOUSEKEEPING_GROUPS, IRQ_WATCH, RT_SLICE, TUNE
from roles.site import AGENTS_SLICE, MirrorPlace
from rtinfra.facts import sections
from rtinfra.facts.http import Request
from rtinfra.preflight.settings import CONFIGURATION
from rtinfra.programs import Program
from rtinfra.quadlet import SLICE

CHRONY: Final = "chrony.service"
LOGROTATE: Final = "logrotate.timer"
#: Programs that set the clock as chrony does; two of them make it jump.
OTHER_CLOCK_UNITS: Final = ("systemd-timesyncd.service", "ntpsec.service", "ntp.service", "openntpd.service")


@dataclass(frozen=True)
class ApplicationPlaces:
    """Where the application's files and ports are."""

    config_dir: str
    checkpoint_dir: str
    log_dir: str
    health_ports: tuple[int, ...]
    metrics_ports: tuple[int, ...]


@dataclass(frozen=True)
class MirrorQuestions:
    """What a host has to do with the mirror: uses it, serves it, or both; and the port of its registry."""

    place: MirrorPlace
    is_client: bool
    registry_port: int | None
    """Set on the host that serves it."""


@dataclass(frozen=True)
class Questions:
    """What to ask of one host. `marker` begins a section of the answer."""

    units: tuple[str, ...]
    own_services: tuple[str, ...]
    sysctl: tuple[str, ...]
    parameters: tuple[str, ...]
    login_user: str | None
    group: str
    application: ApplicationPlaces | None
    programs: tuple[Program, ...]
    requests: tuple[Request, ...]
    mirror: MirrorQuestions | None
    private_directories: tuple[str, ...]
    marker: str = sections.MARKER


def questions(
    config: HostConfig,
    programs: Sequence[Program] = (),
    requests: Sequence[Request] = (),
    place: MirrorPlace | None = None,
) -> Questions:
    """Derive what to ask from a host's settings; real-time sections may be absent.

    `programs` are the host's telemetry programs, `requests` what to ask them over HTTP, `place` is the offline mirror
    that it uses or serves.
    """
    members = list(config.base.realtime_members)
    units = [CHRONY, LOGROTATE, DRIFT_TIMER, "systemd-journald.service", *OTHER_CLOCK_UNITS]
    own_services: list[str] = []
    application = None
    if config.rt_tuning is not None:
        own_services += [TUNE, IRQ_WATCH, *([DRIFT_SERVICE] if config.drift.enabled else [])]
        units += [*HOUSEKEEPING_GROUPS, RT_SLICE, JUDGE, SETTLE, *config.rt_tuning.masked_units]
    if config.rt_app is not None:
        app = config.rt_app
        own_services += [RT_UNIT, NON_RT_UNIT]
        members.append(app.user)
        processes = (app.rt_process, app.non_rt_process)
        application = ApplicationPlaces(
            config_dir=str(app.config_dir),
            checkpoint_dir=f"{app.state_dir}/checkpoints",
            log_dir=str(app.log_dir),
            health_ports=tuple(process.health_port for process in processes),
            metrics_ports=tuple(process.metrics_port for process in processes),
        )
    if config.mirror_server is not None:
        units += [WEB_UNIT, REGISTRY_UNIT]
    private_directories: tuple[str, ...] = ()
    if config.preflight is not None:
        own_services.append(preflight.SERVICE)
        units.append(preflight.TIMER)
        private_directories = (CONFIGURATION, str(config.preflight.state_directory))
    if programs:
        units += [AGENTS_SLICE, SLICE, *(program.unit for program in programs)]
    return Questions(
        units=tuple(dict.fromkeys([*units, *own_services])),
        own_services=tuple(own_services),
        sysctl=tuple(config.rt_tuning.sysctl) if config.rt_tuning else (),
        parameters=config.rt_kernel.parameters if config.rt_kernel else (),
        login_user=members[0] if members else None,
        group=config.base.realtime_group,
        application=application,
        programs=tuple(programs),
        requests=tuple(requests),
        mirror=None if place is None else _about_mirror(config, place),
        private_directories=private_directories,
    )


def _about_mirror(config: HostConfig, place: MirrorPlace) -> MirrorQuestions:
    client, server = config.mirror_client, config.mirror_server
    return MirrorQuestions(
        place,
        is_client=client is not None and client.enabled,
        registry_port=None if server is None else server.registry_port,
    )
