"""Which telemetry programs run on a host, derived from its settings alone.

Roles need the image store and the secrets to say what their files hold. Whoever only wants to know units, ports and
directories needs neither: stand-ins answer in their place, and nothing that holds a stand-in is ever sent to a host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from roles.agents.deploy import COLLECTOR_UNIT, FILEBEAT_UNIT, NODE_EXPORTER_UNIT
from roles.alertmanager.deploy import ALERT_LOG_UNIT
from roles.fleet import site_of
from roles.host import HostConfig
from roles.site import Part, Site
from roles.telemetry import PARTS
from rtinfra.config import Fleet, FleetHost
from rtinfra.deb import LocalPackage
from rtinfra.facts.http import loopback
from rtinfra.images.catalogue import load_catalogue
from rtinfra.operations.managed import Directory, File
from rtinfra.quadlet import DATA_ROOT, Container

#: Roles in the order they start: what stores before what shows, both before what sends to them.
STARTING_ORDER: Final = (
    *("garage", "elasticsearch", "mimir", "loki", "tempo", "jaeger", "alertmanager", "prometheus"),
    *("kibana", "grafana"),
    *("alloy", "gateways"),
    *("agents", "preflight"),
)
# 64 digits satisfy whatever a role demands of a secret's form.
_STAND_IN: Final = "0" * 64


class StandInStore:
    """Names images and packages without looking for them."""

    def image(self, name: str) -> str:
        """Return a reference that no image has."""
        return f"{name}@sha256:{_STAND_IN}"

    def package(self, name: str) -> LocalPackage:
        """Return a package without a file, by the name that dpkg knows it by."""
        image = load_catalogue().images.get(name)
        package = image.go.package if image is not None and image.go is not None else None
        return LocalPackage(Path(name), package or name, _STAND_IN)


class StandInSecrets:
    """Knows no secret and says so to nobody."""

    def read(self, name: str) -> bytes:
        """Return zeros."""
        return _STAND_IN.encode()


@dataclass(frozen=True)
class Program:
    """One telemetry program on one host. `ready` is asked on the host itself."""

    host: str
    role: str
    name: str
    unit: str
    container: Container | None = None
    ready: str | None = None
    ready_status: tuple[int, ...] = (200,)
    packages: tuple[str, ...] = ()
    config: tuple[File, ...] = field(default=(), repr=False)
    kept: tuple[str, ...] = ()
    """Directories below its data directories that a deploy makes."""

    @property
    def directories(self) -> tuple[str, ...]:
        """Where it keeps its data."""
        return tuple(f"{DATA_ROOT}/{name}" for name in self.container.data) if self.container else ()

    @property
    def tier(self) -> int:
        """0: stores or shows, 1: passes on, 2: sends. Lower ones start first and stop last."""
        return {"alloy": 1, "gateways": 1, "agents": 2, "preflight": 2}.get(self.role, 0)


def site_without_secrets(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Site:
    """Return the fleet as seen from a host, with stand-ins for store and secrets."""
    return site_of(fleet, host, StandInStore(), StandInSecrets())


def programs_of(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> tuple[Program, ...]:
    """Return the telemetry programs of a host in the order they start.

    Raises:
        ValueError: settings that a role cannot work with.
    """
    site = site_without_secrets(fleet, host)
    return tuple(
        program
        for role in STARTING_ORDER
        if role in host.groups
        for program in _programs(role, PARTS[role](getattr(host.config, role), site), host.config, site)
    )


def _programs(role: str, part: Part, config: HostConfig, site: Site) -> Iterator[Program]:
    directories = [path.path for path in part.paths if isinstance(path, Directory)]
    for container in part.containers:
        data = tuple(f"{DATA_ROOT}/{name}/" for name in container.data)
        yield Program(
            host=site.host,
            role=role,
            name=container.name,
            unit=container.unit.name,
            container=container,
            ready=container.ready,
            ready_status=container.ready_status,
            config=_plain(container.config),
            kept=tuple(path for path in directories if path.startswith(data)),
        )
    files = _plain(path for path in part.paths if isinstance(path, File))
    for unit in part.units:
        if unit.running and unit.name.endswith(".service"):
            yield Program(
                host=site.host,
                role=role,
                name=unit.name.removesuffix(".service"),
                unit=unit.name,
                ready=_ready(unit.name, config, site),
                packages=(*part.packages, *(package.name for package in part.local_packages)),
                config=tuple(file for file in files if unit.name in file.restarts),
            )


def _plain(files: Iterable[File]) -> tuple[File, ...]:
    """Leave out what depends on a secret or on the store: its content is not the real one here."""
    return tuple(file for file in files if not file.secret and _STAND_IN.encode() not in file.content)


def _ready(unit: str, config: HostConfig, site: Site) -> str | None:
    """Return where a unit that is no container answers: it cannot say so by itself."""
    agents, alerts = config.agents, config.alertmanager
    if unit == COLLECTOR_UNIT and agents:
        return loopback(agents.collector.health_port, "/")
    if unit == NODE_EXPORTER_UNIT and agents:
        return f"http://{site.address}:{agents.node_exporter.port}/metrics"
    if unit == FILEBEAT_UNIT and agents:
        return loopback(agents.filebeat.stats_port, "/")
    if unit == ALERT_LOG_UNIT and alerts:
        return f"http://{site.address}:{alerts.log_port}/-/ready"
    return None
