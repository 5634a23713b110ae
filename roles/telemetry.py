"""All telemetry roles of a host together: images first, then every file in one operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyinfra.api.deploy import deploy

from roles.agents import deploy as agents
from roles.alertmanager import deploy as alertmanager
from roles.alloy import deploy as alloy
from roles.elasticsearch import deploy as elasticsearch
from roles.garage import deploy as garage
from roles.gateways import deploy as gateways
from roles.grafana import deploy as grafana
from roles.host import BackendsSettings, HostConfig
from roles.jaeger import deploy as jaeger
from roles.kibana import deploy as kibana
from roles.loki import deploy as loki
from roles.mimir import deploy as mimir
from roles.preflight import deploy as preflight
from roles.prometheus import deploy as prometheus
from roles.site import Part, Site
from roles.tempo import deploy as tempo
from rtinfra import quadlet
from rtinfra.config import FleetHost
from rtinfra.deb import LocalPackage
from rtinfra.operations import environments as environment_operations
from rtinfra.operations import files as file_operations
from rtinfra.operations.managed import DAEMON_RELOAD, Directory, File, Managed, PythonEnvironment, Unit
from rtinfra.quadlet import Container
from rtinfra.render import render
from rtinfra.wheelhouse import Wheelhouse

#: What each role puts on a host, by the name of its group.
PARTS: Mapping[str, Callable[[Any, Site], Part]] = {
    "agents": agents.part,
    "gateways": gateways.part,
    "jaeger": jaeger.part,
    "prometheus": prometheus.part,
    "alertmanager": alertmanager.part,
    "grafana": grafana.part,
    "loki": loki.part,
    "tempo": tempo.part,
    "mimir": mimir.part,
    "alloy": alloy.part,
    "elasticsearch": elasticsearch.part,
    "kibana": kibana.part,
    "garage": garage.part,
    "preflight": preflight.part,
}


@dataclass(frozen=True)
class Telemetry:
    """The telemetry roles of one host, settled: what is to be on it."""

    backends: BackendsSettings
    site: Site
    parts: tuple[Part, ...]

    @property
    def containers(self) -> tuple[Container, ...]:
        """Containers of all roles."""
        return tuple(container for part in self.parts for container in part.containers)

    @property
    def packages(self) -> list[str]:
        """Debian packages of all roles, and what containers need."""
        names = [name for part in self.parts for name in part.packages]
        return [*names, *(self.backends.packages if self.containers else ())]

    @property
    def local_packages(self) -> list[LocalPackage]:
        """Packages that come as files of this computer."""
        return [package for part in self.parts for package in part.local_packages]

    @cached_property
    def images(self) -> dict[str, str]:
        """Pinned references of the containers' images, by name of the catalogue."""
        return {container.image: self.site.store.image(container.image) for container in self.containers}

    @property
    def accounts(self) -> list[Managed]:
        """The accounts of all containers and roles; must exist before files that belong to them."""
        own = [path for part in self.parts for path in part.accounts]
        return [*([quadlet.accounts_file(self.containers)] if self.containers else []), *own]

    @property
    def environments(self) -> list[PythonEnvironment]:
        """Python environments of all roles."""
        return [environment for part in self.parts for environment in part.environments]

    @property
    def paths(self) -> list[Managed]:
        """Every path of every role."""
        found = [path for part in self.parts for path in part.paths]
        if self.containers:
            found = [*_common(self.backends), *found]
        for container in self.containers:
            found += quadlet.paths(container, self.images[container.image])
        # Two roles may ask for the same directory.
        return list({path.path: path for path in found}.values())

    @property
    def units(self) -> list[Unit]:
        """Every unit of every role; backends before what sends to them."""
        found = [container.unit for container in self.containers]
        return [*found, *(unit for part in self.parts for unit in part.units)]


def telemetry_of(host: FleetHost[HostConfig], site: Site) -> Telemetry:
    """Settle the telemetry roles of a host."""
    parts = tuple(part(getattr(host.config, role), site) for role, part in PARTS.items() if role in host.groups)
    return Telemetry(host.config.backends, site, parts)


def _common(settings: BackendsSettings) -> Sequence[Managed]:
    return (
        Directory(path=quadlet.CONFIG_ROOT),
        Directory(path=quadlet.DATA_ROOT),
        File(path=quadlet.WAIT_READY, content=render("containers/wait-ready.sh"), mode="0755"),
        File(
            path=f"/etc/systemd/system/{quadlet.SLICE}",
            content=render("containers/backends.slice.j2", settings=settings),
            actions=(DAEMON_RELOAD,),
        ),
    )


@deploy("telemetry")
def configure(telemetry: Telemetry) -> None:
    """Make the accounts and environments, then place the files of all roles at once."""
    for environment in telemetry.environments:
        environment_operations.installed(
            name=f"environment {environment.directory}", environment=environment, wheelhouse=Wheelhouse()
        )
    if telemetry.accounts:
        file_operations.sync(name="accounts", paths=telemetry.accounts)
    if telemetry.paths:
        file_operations.sync(name="files", paths=telemetry.paths)
