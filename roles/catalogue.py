"""The one list of roles. A new role is its folder, and one line here.

In the order in which a deploy works on them: what supplies packages, then the host itself, whose reboot comes last,
then the programs of the stack, then what speaks of all others.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import create_model

from roles.agents.role import ROLE as AGENTS
from roles.alertmanager.role import ROLE as ALERTMANAGER
from roles.alloy.role import ROLE as ALLOY
from roles.base.role import ROLE as BASE
from roles.drift.role import ROLE as DRIFT
from roles.elasticsearch.role import ROLE as ELASTICSEARCH
from roles.facets import Signal
from roles.garage.role import ROLE as GARAGE
from roles.gateways.model import ELASTIC_APM, FILE
from roles.gateways.role import ROLE as GATEWAYS
from roles.grafana.role import ROLE as GRAFANA
from roles.host import HostConfig
from roles.jaeger.role import ROLE as JAEGER
from roles.kibana.role import ROLE as KIBANA
from roles.loki.role import ROLE as LOKI
from roles.mimir.role import ROLE as MIMIR
from roles.mirror_client.role import ROLE as MIRROR_CLIENT
from roles.mirror_server.role import ROLE as MIRROR_SERVER
from roles.packet_filter.role import ROLE as PACKET_FILTER
from roles.preflight.role import ROLE as PREFLIGHT
from roles.prometheus.role import ROLE as PROMETHEUS
from roles.rt_app.role import ROLE as RT_APP
from roles.rt_kernel.role import ROLE as RT_KERNEL
from roles.rt_tuning.role import ROLE as RT_TUNING
from roles.shape import AnyRole, Tier
from roles.shared import BACKENDS, CPU, MIRROR, PREREQUISITES, TELEMETRY, TelemetrySettings
from roles.tempo.role import ROLE as TEMPO
from rtinfra.config.sections import EVERY_HOST, Section
from rtinfra.config.types import Settings

ROLES: Final[tuple[AnyRole, ...]] = (
    MIRROR_SERVER,
    MIRROR_CLIENT,
    PACKET_FILTER,
    BASE,
    RT_TUNING,
    RT_APP,
    RT_KERNEL,
    AGENTS,
    GATEWAYS,
    JAEGER,
    PROMETHEUS,
    ALERTMANAGER,
    LOKI,
    TEMPO,
    MIMIR,
    ALLOY,
    GRAFANA,
    ELASTICSEARCH,
    KIBANA,
    GARAGE,
    PREFLIGHT,
    DRIFT,
)
#: Every section that a host may have, with those that belong to no role alone.
SECTIONS: Final[tuple[Section[Settings], ...]] = (
    TELEMETRY,
    BACKENDS,
    MIRROR,
    PREREQUISITES,
    CPU,
    *(role.key for role in ROLES),
)
#: Group of emulated machines, whose settings are for tests.
LAB_GROUP: Final = "lab"
#: Every group that has a meaning in deploy.py; others only carry settings.
KNOWN_GROUPS: Final = (*dict.fromkeys((EVERY_HOST, *(section.group for section in SECTIONS))), LAB_GROUP)
#: Roles in the order in which their programs start: what stores before what shows, both before what sends to them.
STARTING_ORDER: Final = tuple(
    sorted((role for role in ROLES if role.tier is not Tier.HOST), key=lambda role: role.tier)
)


def _choices(signal: Signal, *others: str) -> Any:
    """Return the type of a setting that names the store of a signal."""
    return Literal[tuple(role.name for role in ROLES if role.stored is signal) + others]


def _host_model() -> type[HostConfig]:
    telemetry = create_model(
        "TelemetrySettings",
        __base__=TelemetrySettings,
        __module__=__name__,
        traces=(_choices(Signal.TRACES, ELASTIC_APM), ...),
        metrics=(_choices(Signal.METRICS), ...),
        logs=(_choices(Signal.LOGS, FILE), ...),
    )
    sections: dict[str, Any] = {}
    for section in SECTIONS:
        model = telemetry if section is TELEMETRY else section.model
        is_required = section.group == EVERY_HOST
        sections[section.name] = (model, ...) if is_required else (model | None, None)
    found = create_model("HostConfig", __base__=HostConfig, __module__=__name__, **sections)
    found.sections, found.roles = SECTIONS, ROLES
    return found


#: The model of a host's settings, with a field for each section.
HOST_MODEL: Final = _host_model()
