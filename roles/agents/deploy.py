"""What the `agents` role puts on a host: plain services in one slice, no container engine."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from roles.agents.model import AgentsSettings
from roles.site import AGENTS_SLICE, TEXTFILE_DIRECTORY, Part, Site
from rtinfra.cpu import parse_cpu_list
from rtinfra.operations.managed import DAEMON_RELOAD, Action, File, Managed, Unit
from rtinfra.quadlet import WAIT_READY
from rtinfra.render import render

COLLECTOR_UNIT = "rtinfra-otelcol.service"
NODE_EXPORTER_UNIT = "prometheus-node-exporter.service"
FILEBEAT_UNIT = "filebeat.service"
#: Name of all gateways in the collector's private hosts file.
GATEWAYS_NAME = "otel-gateways"

_UNITS = "/etc/systemd/system"
_SYSUSERS = Action("sysusers-otelcol", "systemd-sysusers")
_SET_ASIDE = "/usr/local/lib/rtinfra/set-aside-broken"
# GOMAXPROCS where nothing is isolated: an agent needs no more, however many cores a host has.
_THREADS = 2


def part(settings: AgentsSettings, site: Site) -> Part:
    """Return files, units and packages.

    Raises:
        ValueError: the gateways of the fleet cannot be reached by one name and port.
    """
    # The application of this host, if it runs one: only then there are log files to ship.
    application = next((member.settings for member in site.members("rt_hosts") if member.host == site.host), None)
    filebeat = settings.logs == "filebeat" and application is not None
    return Part(
        paths=(
            *_slice(settings, site),
            *_node_exporter(settings, site),
            *_collector(settings, site, application if settings.logs == "collector" else None),
            *(_filebeat(settings, site, application) if filebeat else ()),
        ),
        units=(Unit(COLLECTOR_UNIT), Unit(NODE_EXPORTER_UNIT), *((Unit(FILEBEAT_UNIT),) if filebeat else ())),
        packages=settings.packages,
        local_packages=(site.store.package("otelcol"), *((site.store.package("filebeat"),) if filebeat else ())),
    )


def gateways(site: Site) -> tuple[list[IPv4Address], int]:
    """Return the addresses of all gateways of the fleet, and the port all of them listen on.

    Raises:
        ValueError: an address is a name, or ports differ. gRPC spreads over the addresses of one name, and the
            name is ours, in a hosts file, so that no name server is needed.
    """
    members = site.members("gateways")
    addresses = [
        IPv4Address(address) for member in members for address in (member.settings.addresses or (member.address,))
    ]
    ports = {member.settings.grpc_port for member in members}
    if len(ports) != 1:
        raise ValueError(f"agents reach all gateways at one port, and gateways.grpc_port is {sorted(ports)}")
    return addresses, ports.pop()


def _threads(site: Site) -> int:
    return len(parse_cpu_list(site.housekeeping, None)) if site.housekeeping else _THREADS


def _slice(settings: AgentsSettings, site: Site) -> list[Managed]:
    return [
        File(
            path=f"{_UNITS}/{AGENTS_SLICE}",
            content=render("agents/agents.slice.j2", settings=settings.slice, housekeeping=site.housekeeping),
            actions=(DAEMON_RELOAD,),
        )
    ]


def _drop_in(unit: str, site: Site) -> File:
    """Return the drop-in that moves a package's unit into the slice."""
    return File(
        path=f"{_UNITS}/{unit}.d/60-rtinfra.conf",
        content=render(
            "agents/drop-in.conf.j2", slice=AGENTS_SLICE, housekeeping=site.housekeeping, threads=_threads(site)
        ),
        actions=(DAEMON_RELOAD,),
        restarts=(unit,),
    )


def _node_exporter(settings: AgentsSettings, site: Site) -> list[Managed]:
    return [
        _drop_in(NODE_EXPORTER_UNIT, site),
        File(
            path="/etc/default/prometheus-node-exporter",
            content=render(
                "agents/node-exporter.j2",
                listen=f"{site.address}:{settings.node_exporter.port}",
                textfiles=TEXTFILE_DIRECTORY,
                isolated=site.housekeeping is not None,
            ),
            restarts=(NODE_EXPORTER_UNIT,),
        ),
    ]


def _collector(settings: AgentsSettings, site: Site, application: Any) -> list[Managed]:
    """Return the collector's files; `application` is whose log files it reads, None for nobody's."""
    addresses, port = gateways(site)
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
                site=site,
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
                housekeeping=site.housekeeping,
                threads=_threads(site),
                group=application.user if application else None,
                set_aside=_SET_ASIDE,
                wait=WAIT_READY,
            ),
            actions=(DAEMON_RELOAD,),
            restarts=restarts,
        ),
    ]


def _filebeat(settings: AgentsSettings, site: Site, application: Any) -> list[Managed]:
    assert settings.filebeat.password_secret is not None  # the model sees to it
    return [
        _drop_in(FILEBEAT_UNIT, site),
        File(
            path="/etc/filebeat/filebeat.yml",
            content=render(
                "agents/filebeat.yml.j2",
                settings=settings.filebeat,
                site=site,
                application=application,
                hosts=site.urls("elasticsearch"),
                password=site.secrets.read(settings.filebeat.password_secret).decode(),
            ),
            mode="0600",
            secret=True,
            validate="filebeat test config --strict.perms=false -c {path}",
            restarts=(FILEBEAT_UNIT,),
        ),
    ]
