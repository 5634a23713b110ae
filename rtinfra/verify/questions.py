"""What verification asks of one host, derived from its settings. The looks (`rtinfra.verify.look`) ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from roles.base.model import BASE
from roles.composition import Composition, compose
from roles.host import HostConfig
from roles.mirror_place import Mirror, MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER
from roles.rt_app.model import RT_APP, RtAppSettings
from roles.rt_kernel.model import RT_KERNEL
from roles.rt_tuning.model import RT_TUNING
from roles.shape import FleetView
from roles.stand_ins import stand_in_view
from rtinfra.config import Fleet, FleetHost
from rtinfra.facts import output_sections
from rtinfra.facts.http import Request
from rtinfra.stack_programs import Program, programs_of

CHRONY: Final = "chrony.service"
LOGROTATE: Final = "logrotate.timer"
#: The distribution's own program for the clock, which is masked.
TIMESYNCD: Final = "systemd-timesyncd.service"


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
    marker: str = output_sections.MARKER


def questions_of(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Questions:
    """Return what to ask of a host of an inventory."""
    return questions(compose(stand_in_view(fleet, host)), programs_of(fleet, host))


def questions(composed: Composition, programs: Sequence[Program] = ()) -> Questions:
    """Derive what to ask from what the roles of a host come to; `programs` are its programs of the stack."""
    view, states = composed.view, [batch.state for batch in composed.batches]
    base, app = view.required(BASE), view.own(RT_APP)
    members = [*base.realtime_members, *([app.user] if app else ())]
    units = [name for state in states for name in (*(unit.name for unit in state.units), *state.slices)]
    own_services = tuple(name for state in states for name in state.own_services)
    tuning, kernel = view.own(RT_TUNING), view.own(RT_KERNEL)
    return Questions(
        units=tuple(dict.fromkeys([*units, TIMESYNCD, *own_services])),
        own_services=own_services,
        sysctl=tuple(tuning.sysctl) if tuning else (),
        parameters=kernel.parameters if kernel else (),
        login_user=members[0] if members else None,
        group=base.realtime_group,
        application=_application(app) if app else None,
        programs=tuple(programs),
        requests=_requests(view, programs),
        mirror=_about_mirror(view, view.mirror) if view.mirror else None,
        private_directories=tuple(path for state in states for path in state.private_directories),
    )


def _application(settings: RtAppSettings) -> ApplicationPlaces:
    processes = (settings.rt_process, settings.non_rt_process)
    return ApplicationPlaces(
        config_dir=str(settings.config_dir),
        checkpoint_dir=f"{settings.state_dir}/checkpoints",
        log_dir=str(settings.log_dir),
        health_ports=tuple(process.health_port for process in processes),
        metrics_ports=tuple(process.metrics_port for process in processes),
    )


def _requests(view: FleetView, programs: Sequence[Program]) -> tuple[Request, ...]:
    """Return whether each program is ready, and what its role's controls look at. Nothing here needs a password."""
    ready = [Request(program.ready) for program in programs if program.ready]
    asked = [request for role in view.roles for request in role.read_back_in(view)]
    return tuple({request.url: request for request in (*ready, *asked)}.values())


def _about_mirror(view: FleetView, mirror: Mirror) -> MirrorQuestions:
    server = view.own(MIRROR_SERVER)
    return MirrorQuestions(mirror.place, mirror.is_used, None if server is None else server.registry_port)
