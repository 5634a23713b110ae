"""The `agents` role: what watches a host, as plain services in one slice; no container engine."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from roles.agents.model import AGENTS, FILEBEAT_UNIT, METRICS_PAGE, STATS_PAGE, AgentsSettings
from roles.elasticsearch.model import ELASTICSEARCH
from roles.facets import Bound, Listener, Scrape
from roles.gateways.model import GATEWAYS, addresses_of
from roles.prometheus.model import PROMETHEUS
from roles.rt_app.model import RT_APP, RtAppSettings
from roles.shape import FleetView, Role, RoleState, Tier
from roles.shared import AGENTS_SLICE, TEXTFILE_DIRECTORY
from rtinfra.config import Finding
from rtinfra.cpu import parse_cpu_list
from rtinfra.facts.http import Request, loopback
from rtinfra.operations.resources import DAEMON_RELOAD, Action, File, Resource, Unit
from rtinfra.quadlet import WAIT_READY
from rtinfra.render import render

COLLECTOR_UNIT = "rtinfra-otelcol.service"
NODE_EXPORTER_UNIT = "prometheus-node-exporter.service"
#: Name of all gateways in the collector's private hosts file.
GATEWAYS_NAME = "otel-gateways"

_UNITS = "/etc/systemd/system"
_SYSUSERS = Action("sysusers-otelcol", "systemd-sysusers")
_SET_ASIDE = "/usr/local/lib/rtinfra/set-aside-broken"
# GOMAXPROCS where nothing is isolated: an agent needs no more, however many cores a host has.
_THREADS = 2


def state(settings: AgentsSettings, view: FleetView) -> RoleState:
    """Return files, units and packages.

    Raises:
        ValueError: the gateways of the fleet cannot be reached by one name and port.
    """
    # The application of this host, if it runs one: only then there are log files to ship.
    application = view.own(RT_APP)
    filebeat = settings.logs == "filebeat" and application is not None
    ready = {
        COLLECTOR_UNIT: loopback(settings.collector.health_port, "/"),
        NODE_EXPORTER_UNIT: view.url(settings.node_exporter.port, "/metrics"),
        FILEBEAT_UNIT: loopback(settings.filebeat.stats_port, "/"),
    }
    return RoleState(
        files=(
            *_slice(settings, view),
            *_node_exporter(settings, view),
            *_collector(settings, view, application if settings.logs == "collector" else None),
            *(_filebeat(settings, view, application) if settings.logs == "filebeat" and application else ()),
        ),
        units=(Unit(COLLECTOR_UNIT), Unit(NODE_EXPORTER_UNIT), *((Unit(FILEBEAT_UNIT),) if filebeat else ())),
        ready=ready,
        slices=(AGENTS_SLICE,),
        packages=settings.packages,
        local_packages=(view.store.package("otelcol"), *((view.store.package("filebeat"),) if filebeat else ())),
    )


def gateways(view: FleetView) -> tuple[list[IPv4Address | IPv6Address], int]:
    """Return the addresses of all gateways of the fleet, and the port all of them listen on.

    Raises:
        ValueError: an address is a name, or ports differ. gRPC spreads over the addresses of one name, and the
            name is ours, in a hosts file, so that no name server is needed.
    """
    members = view.members(GATEWAYS)
    addresses = [ip_address(address) for member in members for address in addresses_of(member.settings, member.address)]
    ports = {member.settings.grpc_port for member in members}
    if len(ports) != 1:
        raise ValueError(f"agents reach all gateways at one port, and gateways.grpc_port is {sorted(ports)}")
    return addresses, ports.pop()


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _threads(view: FleetView) -> int:
    return len(parse_cpu_list(view.housekeeping, None)) if view.housekeeping else _THREADS


def _slice(settings: AgentsSettings, view: FleetView) -> list[Resource]:
    return [
        File(
            path=f"{_UNITS}/{AGENTS_SLICE}",
            content=render("agents/agents.slice.j2", settings=settings.slice, housekeeping=view.housekeeping),
            actions=(DAEMON_RELOAD,),
        )
    ]


def _drop_in(unit: str, view: FleetView) -> File:
    """Return the drop-in that moves a package's unit into the slice."""
    return File(
        path=f"{_UNITS}/{unit}.d/60-rtinfra.conf",
        content=render(
            "agents/drop-in.conf.j2", slice=AGENTS_SLICE, housekeeping=view.housekeeping, threads=_threads(view)
        ),
        actions=(DAEMON_RELOAD,),
        restarts=(unit,),
    )


def _node_exporter(settings: AgentsSettings, view: FleetView) -> list[Resource]:
    return [
        _drop_in(NODE_EXPORTER_UNIT, view),
        File(
            path="/etc/default/prometheus-node-exporter",
            content=render(
                "agents/node-exporter.j2",
                listen=view.netloc(settings.node_exporter.port),
                textfiles=TEXTFILE_DIRECTORY,
                isolated=view.housekeeping is not None,
            ),
            restarts=(NODE_EXPORTER_UNIT,),
        ),
    ]


def _collector(settings: AgentsSettings, view: FleetView, application: RtAppSettings | None) -> list[Resource]:
    """Return the collector's files; `application` is whose log files it reads, None for nobody's."""
    addresses, port = gateways(view)
    restarts = (COLLECTOR_UNIT,)
    return [
        File(
            path="/etc/sysusers.d/60-rtinfra-otelcol.conf",
            content=render("agents/sysusers.conf.j2"),
            actions=(_SYSUSERS,),
        ),
        File(path=_SET_ASIDE, content=render("agents/set-aside-broken.sh"), mode="0755"),
        File(path=WAIT_READY, content=render("containers/wait-ready.sh"), mode="0755"),
        File(
            path="/etc/otelcol/hosts",
            content=render("agents/hosts.j2", addresses=addresses, name=GATEWAYS_NAME),
            restarts=restarts,
        ),
        File(
            path="/etc/otelcol/config.yaml",
            content=render(
                "agents/config.yaml.j2",
                settings=settings.collector,
                view=view,
                application=application,
                endpoint=f"dns:///{GATEWAYS_NAME}:{port}",
            ),
            validate="otelcol validate --config=file:{path}",
            restarts=restarts,
        ),
        File(
            path=f"{_UNITS}/{COLLECTOR_UNIT}",
            content=render(
                f"agents/{COLLECTOR_UNIT}.j2",
                settings=settings.collector,
                slice=AGENTS_SLICE,
                housekeeping=view.housekeeping,
                threads=_threads(view),
                group=application.user if application else None,
                set_aside=_SET_ASIDE,
                wait=WAIT_READY,
            ),
            actions=(DAEMON_RELOAD,),
            restarts=restarts,
        ),
    ]


def _filebeat(settings: AgentsSettings, view: FleetView, application: RtAppSettings) -> list[Resource]:
    assert settings.filebeat.password_secret is not None  # the model sees to it
    return [
        _drop_in(FILEBEAT_UNIT, view),
        File(
            path="/etc/filebeat/filebeat.yml",
            content=render(
                "agents/filebeat.yml.j2",
                settings=settings.filebeat,
                view=view,
                application=application,
                hosts=[member.url(member.settings.port) for member in view.members(ELASTICSEARCH)],
                password=view.secrets.read(settings.filebeat.password_secret).decode(),
            ),
            mode="0600",
            secret=True,
            validate="filebeat test config --strict.perms=false -c {path}",
            restarts=(FILEBEAT_UNIT,),
        ),
    ]


def _problems(settings: AgentsSettings, view: FleetView) -> Iterator[Finding]:
    for member in view.members(GATEWAYS):
        for address in addresses_of(member.settings, member.address):
            if not _is_ip(address):
                yield Finding(
                    f"hosts.{view.host}.groups",
                    AGENTS.group,
                    f"has a file with the addresses of all gateways, and {member.host} has a name: {address}",
                    f"set telemetry.address of {member.host} to its IP address",
                )
    if not view.members(GATEWAYS):
        yield Finding(
            f"hosts.{view.host}.groups",
            AGENTS.group,
            "needs a gateway to send to, and no host of the inventory is one",
            f"put a host into the group {GATEWAYS.group}",
        )


def _reads_back(settings: AgentsSettings, view: FleetView) -> Iterator[Request]:
    yield Request(view.url(settings.collector.metrics_port, METRICS_PAGE))
    if settings.logs == "filebeat":
        yield Request(loopback(settings.filebeat.stats_port, STATS_PAGE))


ROLE = Role(
    section=AGENTS,
    state=state,
    tier=Tier.SENDS,
    listens=(
        Listener(port=lambda settings: settings.node_exporter.port, peers=(PROMETHEUS,)),
        Listener(port=lambda settings: settings.collector.metrics_port, peers=(PROMETHEUS,)),
        Listener(port=lambda settings: settings.collector.grpc_port, bound=Bound.LOOPBACK),
        Listener(port=lambda settings: settings.collector.http_port, bound=Bound.LOOPBACK),
        Listener(port=lambda settings: settings.collector.health_port, bound=Bound.LOOPBACK),
        Listener(
            port=lambda settings: settings.filebeat.stats_port,
            bound=Bound.LOOPBACK,
            is_used=lambda settings: settings.logs == "filebeat",
        ),
    ),
    scrapes=(
        Scrape(job="node", port=lambda settings: settings.node_exporter.port, of_tenant=True),
        Scrape(job="agents", port=lambda settings: settings.collector.metrics_port),
    ),
    reads_back=_reads_back,
    problems=_problems,
)
