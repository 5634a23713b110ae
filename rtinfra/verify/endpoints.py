"""What the telemetry programs of a host are asked over HTTP, all in the one look at the host.

Nothing here needs a password. What does is asked by the control itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from roles.agents.model import AgentsSettings
from roles.gateways.model import GatewaysSettings
from roles.host import HostConfig
from roles.site import Site
from rtinfra.config import FleetHost
from rtinfra.facts.http import Request, loopback
from rtinfra.programs import Program

FLAGS: Final = "/api/v1/status/flags"
CONFIG: Final = "/api/v1/status/config"
TARGETS: Final = "/api/v1/targets?state=active"
RULES: Final = "/api/v1/rules"
ALERTMANAGER_STATUS: Final = "/api/v2/status"
ALERTS: Final = "/api/v2/alerts"
SERVICES: Final = "/api/services"
#: Span of the control loop's cycles, about one a second.
CYCLE_SPAN: Final = "rt.cycle"
CONFIG_PAGE: Final = "/config"
RUNTIME_CONFIG: Final = "/runtime_config"
LOKI_LIMITS: Final = "/config/tenant/v1/limits"
TEMPO_CONFIG: Final = "/status/config"
TEMPO_OVERRIDES: Final = "/status/runtime_config"
COMPONENTS: Final = "/api/v0/web/components"
METRICS: Final = "/metrics"
TENANT_HEADER: Final = "X-Scope-OrgID"


#: How many hosts, and how many control loops, Prometheus has measurements of.
HOSTS_SEEN: Final = "count(node_uname_info)"
LOOPS_SEEN: Final = "count(mxrc_rt_cycle_count_total)"


def query(expression: str) -> str:
    """Return the path that asks Prometheus for the value of an expression."""
    return f"/api/v1/query?query={quote(expression)}"


def limits(site: Site, settings: Any, tenant: str) -> str:
    """Return where Loki tells the limits of a tenant; the query only tells the answers apart."""
    return f"{base(site, settings)}{LOKI_LIMITS}?tenant={tenant}"


def base(site: Site, settings: Any, port: str = "port") -> str:
    """Return the URL of a program of this host, without a slash at its end; `port` names the setting."""
    return f"http://{site.address}:{getattr(settings, port)}"


def collector_metrics(site: Site, settings: AgentsSettings) -> str:
    """Return where the collector of the host tells about itself."""
    return f"{base(site, settings.collector, 'metrics_port')}{METRICS}"


def gateways(site: Site, settings: GatewaysSettings) -> tuple[str, ...]:
    """Return the addresses of this host's gateways."""
    return tuple(str(address) for address in settings.addresses) or (site.address,)


def operations(service: str) -> str:
    """Return the path at which Jaeger lists the operations of a service."""
    return f"{SERVICES}/{quote(service, safe='')}/operations"


def traced_applications(site: Site) -> tuple[str, ...]:
    """Return the services whose cycles are traced and whose host has a collector: those that Jaeger has to know."""
    collecting = {member.host for member in site.members("agents")}
    found = {
        member.settings.tracing.service_name
        for member in site.members("rt_hosts")
        if member.host in collecting
        and member.settings.application.kind == "reference"
        and member.settings.tracing.instrumentation.rt_cycle
        and member.settings.tracing.sampling_rate > 0
    }
    return tuple(sorted(found))


def _jaeger(site: Site, settings: Any) -> Iterator[str]:
    ui = base(site, settings, "ui_port")
    yield from (ui + operations(service) for service in traced_applications(site))


def _agents(site: Site, settings: Any) -> Iterator[str]:
    yield collector_metrics(site, settings)
    if settings.logs == "filebeat":
        yield loopback(settings.filebeat.stats_port, "/stats")


def _gateways(site: Site, settings: Any) -> Iterator[str]:
    for address in gateways(site, settings):
        yield f"http://{address}:{settings.metrics_port}{METRICS}"


def _alertmanager(site: Site, settings: Any) -> Iterator[str]:
    yield base(site, settings) + ALERTMANAGER_STATUS
    yield base(site, settings, "log_port") + METRICS


def _at(*paths: str, port: str = "port") -> Callable[[Site, Any], Iterable[str]]:
    return lambda site, settings: [base(site, settings, port) + path for path in paths]


_URLS: Final[Mapping[str, Callable[[Site, Any], Iterable[str]]]] = {
    "agents": _agents,
    "gateways": _gateways,
    "jaeger": _jaeger,
    "prometheus": _at(FLAGS, CONFIG, TARGETS, RULES, query(HOSTS_SEEN), query(LOOPS_SEEN)),
    "alertmanager": _alertmanager,
    "loki": _at(CONFIG_PAGE),
    "tempo": _at(TEMPO_CONFIG, TEMPO_OVERRIDES),
    "mimir": _at(CONFIG_PAGE, RUNTIME_CONFIG),
    "alloy": _at(METRICS, COMPONENTS, port="ui_port"),
}


def requests(host: FleetHost[HostConfig], site: Site, programs: Sequence[Program]) -> tuple[Request, ...]:
    """Return what to ask: whether each program is ready, and what its role's controls look at."""
    urls = [program.ready for program in programs if program.ready]
    for role, paths in _URLS.items():
        if role in host.groups:
            urls += paths(site, getattr(host.config, role))
    found = [Request(url) for url in dict.fromkeys(urls)]
    if "loki" in host.groups:
        found += [
            Request(limits(site, host.config.loki, tenant), headers={TENANT_HEADER: tenant})
            for tenant in site.telemetry.tenants
        ]
    return tuple(found)
