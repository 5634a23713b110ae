"""The host that deploy.py is being executed for: its settings, what was observed of it, its CPU layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.exceptions import DeployError

from roles import wanted
from roles.base import deploy as base
from roles.drift import deploy as drift
from roles.fleet import is_supplied, mirror_of, site_of
from roles.host import RT_GROUP, HostConfig, RtHostConfig
from roles.mirror_client import deploy as mirror_client
from roles.mirror_client.model import MirrorClientSettings
from roles.mirror_server import deploy as mirror_server
from roles.mirror_server.model import MirrorServerSettings
from roles.prerequisites import check_host
from roles.rt_app import deploy as rt_app
from roles.rt_kernel import deploy as rt_kernel
from roles.rt_tuning import deploy as rt_tuning
from roles.site import MirrorPlace
from roles.telemetry import Telemetry, telemetry_of
from rtinfra.config import FleetHost, Problem
from rtinfra.cpu import CpuLayout
from rtinfra.deb import LocalPackage
from rtinfra.facts.host import Host, HostState
from rtinfra.facts.mirror import MirrorState, Release
from rtinfra.images import ImageMissing, LocalStore, MirroredStore
from rtinfra.inventory import fleet_host_of, fleet_of
from rtinfra.operations.managed import Live, Managed, Unit
from rtinfra.operations.mirror import MirrorUnreachable, asked
from rtinfra.secrets import operator_secrets
from rtinfra.wheelhouse import FETCH, PYTHONS, Wheelhouse


@dataclass(frozen=True)
class Mirror:
    """The mirror that a host serves or uses, or both; `server` and `client` are the settings of what it does."""

    place: MirrorPlace
    server: MirrorServerSettings | None
    client: MirrorClientSettings | None
    _release: Release | None

    @property
    def is_needed(self) -> bool:
        """Whether it matters what it serves: the host serves it, or gets from it whatever is installed."""
        return self.server is not None or self.is_used

    @property
    def is_used(self) -> bool:
        """Whether the host gets everything from it: packages, wheels, images."""
        return self.client is not None and self.client.enabled

    @property
    def release(self) -> Release:
        """The release that is live; only when the mirror is needed."""
        if self._release is None:
            raise TypeError(f"{self.place.host} was not asked what it serves")
        return self._release


@dataclass(frozen=True)
class Paths:
    """Every path of a host that is known before the run begins, by the operation that is handed it.

    Of a client of the mirror these are the files that no answer of the mirror's host goes into. The others follow what
    it answers while the run is carried out: its certificates may be made in that run, another release may go live.
    """

    base: Sequence[Managed]
    accounts: Sequence[Managed]
    telemetry: Sequence[Managed]
    rt_tuning: Sequence[Managed] = ()
    application_user: Sequence[Managed] = ()
    application: Sequence[Managed] = ()
    boot_guard: Sequence[Managed] = ()
    boot_loader: Sequence[Managed] = ()
    mirror_source: Sequence[Managed] = ()
    mirror_server: Sequence[Managed] = ()
    mirror_client: Sequence[Managed] = ()

    @property
    def all(self) -> list[Managed]:
        """All of them."""
        return [path for part in fields(self) for path in getattr(self, part.name)]


@dataclass(frozen=True)
class Target:
    """One host, checked: `_layout` is set exactly on real-time hosts."""

    fleet_host: FleetHost[HostConfig]
    distribution: str
    telemetry: Telemetry
    _layout: CpuLayout | None
    mirror: Mirror | None = None
    #: How many real-time hosts the inventory has.
    rt_hosts: int = 1

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
    def is_supplied(self) -> bool:
        """Whether everything comes from the mirror, and nothing from this computer."""
        return self.mirror is not None and self.mirror.is_used

    @property
    def packages(self) -> list[str]:
        """Debian packages of all its roles."""
        names = wanted.packages(self.fleet_host, self.distribution, self.telemetry)
        return [*names, *(package.name for package in self._own_packages)] if self.is_supplied else names

    @property
    def local_packages(self) -> list[LocalPackage]:
        """Packages of all its roles that come as files of the control machine."""
        return [] if self.is_supplied else self._own_packages

    @property
    def _own_packages(self) -> list[LocalPackage]:
        """Packages of all its roles that are no Debian's: local files, or on the mirror."""
        return wanted.local_packages(self.fleet_host, self.telemetry)

    @property
    def image_archives(self) -> Mapping[str, Path | None]:
        """Container images of all its roles by pinned reference: OCI archives of this computer, or None: pulled."""
        if self.is_supplied:
            return dict.fromkeys(self.telemetry.images.values())
        return wanted.image_archives(self.telemetry, LocalStore())

    @property
    def units(self) -> list[Unit]:
        """systemd units of all its roles but those that serve the mirror, which are looked at before its clients."""
        found = base.units(self.config.base)
        if self.is_rt:
            found += [*rt_tuning.units(self.rt.rt_tuning), *rt_kernel.units(), *rt_app.units()]
        # Last: the check that it starts finds everything else done.
        return [*found, *self.telemetry.units, *drift.units(self.config.drift)]

    @cached_property
    def paths(self) -> Paths:
        """Every path of all its roles but `drift`, which speaks of these."""
        found = Paths(
            base=base.files(self.config.base),
            accounts=self.telemetry.accounts,
            telemetry=self.telemetry.paths,
        )
        mirror = self.mirror
        if mirror is not None and mirror.server is not None:
            found = replace(
                found,
                mirror_source=mirror_server.source(mirror.place, mirror.release.index),
                mirror_server=mirror_server.files(mirror.server, mirror.place),
            )
        if mirror is not None and mirror.is_used:
            found = replace(found, mirror_client=mirror_client.settled_files(mirror.place))
        if not self.is_rt:
            return found
        rt, layout, group = self.rt, self.layout, self.config.base.realtime_group
        return replace(
            found,
            rt_tuning=rt_tuning.files(
                rt.rt_tuning,
                layout,
                group,
                priority=rt.rt_app.rt_process.priority,
                may_reboot=rt.rt_kernel.reboot == "when-needed",
            ),
            application_user=rt_app.user_files(rt.rt_app, group),
            application=rt_app.files(rt.rt_app, layout),
            boot_guard=rt_kernel.guard_files(rt.rt_kernel, layout, self.distribution, self._watchdog),
            boot_loader=rt_kernel.files(rt.rt_kernel, layout),
        )

    @property
    def _watchdog(self) -> rt_kernel.Watchdog | None:
        settings = self.rt.rt_tuning.watchdog
        if not settings.enabled:
            return None
        return rt_kernel.Watchdog(settings.module, settings.identity, rt_tuning.WATCHDOG_DEVICE)

    @cached_property
    def live(self) -> list[Live]:
        """What its roles make of the running kernel."""
        return rt_tuning.live(self.rt.rt_tuning, self.layout) if self.is_rt else []

    @cached_property
    def drift_paths(self) -> list[Managed]:
        """The paths of the role `drift`, among them what it expects of all others."""
        kernel = None
        if self.is_rt:
            pattern = rt_kernel.source(self.rt.rt_kernel, self.distribution).image_pattern
            kernel = drift.Kernel(pattern, self.rt.rt_kernel.command_line(self.layout))
        expected = drift.Expectation(
            host=self.fleet_host.name,
            settings_sha256=self.config.sha256,
            paths=self.paths.all,
            units=[*(mirror_server.units() if self.paths.mirror_server else ()), *self.units],
            packages=self.packages,
            local_packages=self.local_packages,
            live=self.live,
            kernel=kernel,
        )
        return drift.files(self.config.drift, self.layout.housekeeping_list if self.is_rt else None, expected)


def current_target() -> Target:
    """Observe the host that pyinfra is preparing and hold it against its settings.

    Raises:
        DeployError: with everything that is wrong; pyinfra then ends the run before any change.
    """
    fleet_host: FleetHost[HostConfig] = fleet_host_of(host)
    state: HostState = host.get_fact(Host)
    mirror, live = _mirror(fleet_host)
    layout, problems = check_host(fleet_host, state, mirror.place if mirror else None, live)
    for problem in problems:
        if problem.severity == "warning":
            logger.warning("%s%s", host.print_prefix, problem)
    problems = [*problems, *_without_wheels(fleet_host, state.distribution)]
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        listed = "\n".join(f"  {problem}" for problem in errors)
        raise DeployError(f"{host.name} is refused, nothing was changed on any host:\n{listed}")
    # What is on the mirror decides which images its clients run, not what lies on this computer.
    store = MirroredStore(mirror.release.images) if mirror is not None and mirror.is_used else LocalStore()
    site = site_of(fleet_of(host), fleet_host, store, operator_secrets())
    if layout is not None:
        site = replace(site, housekeeping=layout.housekeeping_list)
    try:
        telemetry = telemetry_of(fleet_host, site)
        dict(telemetry.images)  # asks for the image of every container
    except ImageMissing as error:
        raise DeployError(f"{host.name} is refused, nothing was changed on any host: {error}") from error
    rt_hosts = sum(RT_GROUP in one.groups for one in fleet_of(host).hosts.values())
    return Target(fleet_host, state.distribution, telemetry, layout, mirror, rt_hosts)


def _mirror(fleet_host: FleetHost[HostConfig]) -> tuple[Mirror | None, MirrorState | None]:
    """Return the mirror of a host, and what the mirror's host answers when it is needed."""
    place = mirror_of(fleet_of(host), fleet_host)
    if place is None:
        return None, None
    config = fleet_host.config
    mirror = Mirror(place, config.mirror_server, config.mirror_client, None)
    if not mirror.is_needed:
        return mirror, None
    try:
        live = asked(place.host, place.directory)
    except MirrorUnreachable as error:
        raise DeployError(f"{host.name} gets its packages from the mirror; nothing was changed: {error}") from error
    return replace(mirror, _release=live.release), live


def _without_wheels(fleet_host: FleetHost[HostConfig], distribution: str) -> list[Problem]:
    """Say so when the wheels for this distribution's Python are not on the control machine."""
    settings, python = fleet_host.config.preflight, PYTHONS.get(distribution)
    if "preflight" not in fleet_host.groups or settings is None or settings.wheels == "index" or python is None:
        return []
    if is_supplied(fleet_host) or Wheelhouse().has(python):
        return []
    reason = f"and the wheels for Python {python} of {distribution} are not on this computer"
    return [fleet_host.problem("preflight.wheels", settings.wheels, reason, FETCH)]
