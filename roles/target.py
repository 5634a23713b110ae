"""The host that deploy.py is being executed for: its settings, what was observed of it, its CPU layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.exceptions import DeployError

from roles.base import deploy as base
from roles.fleet import site_of
from roles.host import HostConfig, RtHostConfig
from roles.prerequisites import check_host
from roles.rt_app import deploy as rt_app
from roles.rt_kernel import deploy as rt_kernel
from roles.rt_tuning import deploy as rt_tuning
from roles.telemetry import Telemetry, telemetry_of
from rtinfra.config import FleetHost, Problem
from rtinfra.cpu import CpuLayout
from rtinfra.deb import LocalPackage
from rtinfra.facts.host import Host, HostState
from rtinfra.images import LocalStore
from rtinfra.inventory import fleet_host_of, fleet_of
from rtinfra.operations.managed import Unit
from rtinfra.secrets import operator_secrets
from rtinfra.wheelhouse import FETCH, PYTHONS, Wheelhouse


@dataclass(frozen=True)
class Target:
    """One host, checked: `_layout` is set exactly on real-time hosts."""

    fleet_host: FleetHost[HostConfig]
    distribution: str
    telemetry: Telemetry
    _layout: CpuLayout | None

    @property
    def config(self) -> HostConfig:
        """Its settings."""
        return self.fleet_host.config

    @property
    def is_rt(self) -> bool:
        """Whether the real-time roles run on it."""
        return self._layout is not None

    @property
    def rt(self) -> RtHostConfig:
        """Its settings, real-time sections included; only on real-time hosts."""
        return self.config.rt

    @property
    def layout(self) -> CpuLayout:
        """Its CPU layout; only on real-time hosts."""
        if self._layout is None:
            raise TypeError(f"{self.fleet_host.name} is not a real-time host")
        return self._layout

    @property
    def packages(self) -> list[str]:
        """Debian packages of all its roles."""
        names = list(self.config.base.packages)
        if self.is_rt:
            names += self.rt.rt_tuning.packages
            names += rt_app.packages(self.rt.rt_app)
            names += rt_kernel.packages(self.rt.rt_kernel, self.distribution)
        return [*names, *self.telemetry.packages]

    @property
    def local_packages(self) -> list[LocalPackage]:
        """Packages of all its roles that come as files of the control machine."""
        found = list(self.telemetry.local_packages)
        if self.is_rt:
            found += [*rt_kernel.local_packages(self.rt.rt_kernel), *rt_app.local_packages(self.rt.rt_app)]
        return found

    @property
    def image_archives(self) -> dict[str, Path]:
        """Container images of all its roles: OCI archives of this computer by pinned reference."""
        store = LocalStore()
        return {reference: store.archive(name) for name, reference in self.telemetry.images.items()}

    @property
    def units(self) -> list[Unit]:
        """systemd units of all its roles."""
        found = base.units(self.config.base)
        if self.is_rt:
            found += [*rt_tuning.units(self.rt.rt_tuning), *rt_app.units()]
        return [*found, *self.telemetry.units]


def current_target() -> Target:
    """Observe the host that pyinfra is preparing and hold it against its settings.

    Raises:
        DeployError: with everything that is wrong; pyinfra then ends the run before any change.
    """
    fleet_host: FleetHost[HostConfig] = fleet_host_of(host)
    state: HostState = host.get_fact(Host)
    layout, problems = check_host(fleet_host, state)
    for problem in problems:
        if problem.severity == "warning":
            logger.warning("%s%s", host.print_prefix, problem)
    problems = [*problems, *_without_wheels(fleet_host, state.distribution)]
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        listed = "\n".join(f"  {problem}" for problem in errors)
        raise DeployError(f"{host.name} is refused, nothing was changed on any host:\n{listed}")
    site = site_of(fleet_of(host), fleet_host, LocalStore(), operator_secrets())
    if layout is not None:
        site = replace(site, housekeeping=layout.housekeeping_list)
    return Target(fleet_host, state.distribution, telemetry_of(fleet_host, site), layout)


def _without_wheels(fleet_host: FleetHost[HostConfig], distribution: str) -> list[Problem]:
    """Say so when the wheels for this distribution's Python are not on the control machine."""
    settings, python = fleet_host.config.preflight, PYTHONS.get(distribution)
    if "preflight" not in fleet_host.groups or settings is None or settings.wheels == "index" or python is None:
        return []
    if Wheelhouse().has(python):
        return []
    reason = f"and the wheels for Python {python} of {distribution} are not on this computer"
    return [fleet_host.problem("preflight.wheels", settings.wheels, reason, FETCH)]
