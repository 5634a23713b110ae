"""What a mirror is required to hold for an inventory, found out without touching a host or asking for a secret."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from roles.composition import Composition, compose
from roles.fleet import fleet_problems
from roles.fleet import load_settings as load_fleet
from roles.host import HostConfig
from roles.rt_kernel.model import NoKernelSource
from roles.shared import MIRROR, MirrorSettings
from roles.stand_ins import stand_in_view
from rtinfra.config import ConfigError, Fleet, FleetHost
from rtinfra.deb import LocalPackage
from rtinfra.deb import read as read_deb
from rtinfra.images import LocalStore
from rtinfra.local.errors import LocalError
from rtinfra.mirror import installer, tool
from rtinfra.mirror.errors import MirrorError
from rtinfra.paths import PROJECT
from rtinfra.wheelhouse import PYTHONS, REQUIREMENTS

BASE_SET = "base set"
TOOL = "this tool"
EVERY_HOST = "every host"


@dataclass(frozen=True)
class PackageSet:
    """Packages that are installed together on one kind of machine, so they are resolved together.

    Two sets may exclude each other (two time servers, two boot loaders): a mirror holds what both need.
    """

    names: tuple[str, ...]
    """As `apt-get install` takes them: names, `name/suite`, patterns."""
    local: tuple[LocalPackage, ...]
    why: tuple[str, ...]
    """Whom it is for: hosts' names, `base set`, ..."""
    replacements: tuple[LocalPackage, ...] = ()
    """Not asked for, but taken instead of the archive's packages of the same names."""


@dataclass(frozen=True)
class WheelSet:
    """Python packages that are installed together, pinned by a file of the project."""

    requirements: Path
    """Relative to the project."""
    name: str
    """Of that file in the lock."""
    pythons: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True)
class Required:
    """Everything that an inventory asks for."""

    settings: MirrorSettings
    packages: tuple[PackageSet, ...]
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Images by name of the catalogue, with the hosts that run them."""
    wheels: tuple[WheelSet, ...] = ()


def load_required(project: Path, inventory: Path, store: LocalStore) -> Required:
    """Read an inventory and say what its hosts will install.

    Hosts need not be reachable, and neither keys nor secrets have to be on this computer.

    Raises:
        ConfigError: the settings are wrong; with all problems.
        MirrorError: the hosts do not fit into one mirror, or a file that a host needs is not here.
    """
    fleet = load_fleet(project, inventory)
    if problems := fleet_problems(fleet):
        raise ConfigError(problems)
    return required_by(fleet, store)


def load_settings(project: Path, inventory: Path) -> MirrorSettings:
    """Read what an inventory says of its mirror.

    Raises:
        ConfigError: the settings are wrong; with all problems.
        MirrorError: the hosts do not fit into one mirror.
    """
    return _settings(load_fleet(project, inventory))


def required_by(fleet: Fleet[HostConfig], store: LocalStore) -> Required:
    """Say what the hosts of a fleet will install.

    Raises:
        MirrorError: the hosts do not fit into one mirror, or a file that a host needs is not here.
    """
    settings = _settings(fleet)
    composed = {name: _composed(fleet, host, settings, store) for name, host in fleet.hosts.items()}
    images: dict[str, list[str]] = {}
    for name, found in composed.items():
        for image in found.images:
            images.setdefault(image, []).append(name)
    by_host = {name: _host_packages(name, settings, found) for name, found in composed.items()}
    with_environment = [
        name for name, found in composed.items() if any(state.environments for state in found.states.values())
    ]
    replacements = _replacements(settings)
    return Required(
        settings=settings,
        packages=tuple(
            replace(package_set, replacements=replacements) for package_set in (*_common(settings), *_distinct(by_host))
        ),
        images={image: _shortened(hosts, len(fleet.hosts)) for image, hosts in sorted(images.items())},
        wheels=(
            tool_wheels(settings),
            *([host_wheels(settings, _shortened(with_environment, len(fleet.hosts)))] if with_environment else ()),
        ),
    )


def tool_wheels(settings: MirrorSettings) -> WheelSet:
    """Return the Python packages that this tool needs on the closed network."""
    return WheelSet(tool.REQUIREMENTS, tool.REQUIREMENTS_NAME, settings.python, (TOOL,))


def host_wheels(settings: MirrorSettings, why: tuple[str, ...]) -> WheelSet:
    """Return the Python packages of the environments that hosts have of ours.

    Raises:
        MirrorError: it is not known which Python the hosts have.
    """
    python = PYTHONS.get(settings.distribution)
    if python is None:
        raise MirrorError(
            f"it is not known which Python {settings.distribution} has, and hosts need packages for it",
            f"use one of {', '.join(PYTHONS)} for mirror.distribution, or take hosts out of the group preflight",
        )
    return WheelSet(REQUIREMENTS.relative_to(PROJECT), REQUIREMENTS.name, (python,), why)


@contextmanager
def _told(host: str) -> Iterator[None]:
    """Say which host something is for that is wrong, or missing on this computer."""
    try:
        yield
    except LocalError as error:
        raise MirrorError(f"{host} needs what is not here: {error.message}", error.next_step, error.detail) from error
    except NoKernelSource as error:
        raise MirrorError(
            f"{host}: {error}",
            "name its packages there, or correct mirror.distribution",
        ) from error
    except ValueError as error:
        raise MirrorError(f"{host}: {error}", "correct its settings; `rtinfra check` shows more") from error


def _settings(fleet: Fleet[HostConfig]) -> MirrorSettings:
    """The settings of the mirror: those of the hosts, which must agree."""
    first, *others = fleet.hosts.values()
    for other in others:
        if other.config[MIRROR] != first.config[MIRROR]:
            places = [":".join(map(str, host.locate("mirror"))) for host in (first, other)]
            raise MirrorError(
                f"{first.name} and {other.name} have different settings of the mirror ({' and '.join(places)})",
                "one mirror serves one distribution and architecture: give all hosts of the inventory the same"
                " `mirror:` settings, best in group_data/all.yaml, or lock two inventories into two folders",
            )
    return first.config[MIRROR]


def _composed(
    fleet: Fleet[HostConfig], host: FleetHost[HostConfig], settings: MirrorSettings, store: LocalStore
) -> Composition:
    with _told(host.name):
        return compose(stand_in_view(fleet, host, settings.distribution, store))


def _host_packages(host: str, settings: MirrorSettings, composed: Composition) -> PackageSet:
    names = [name for batch in composed.batches for name in batch.state.packages]
    local = [package for batch in composed.batches for package in batch.state.local_packages]
    return PackageSet(tuple(dict.fromkeys((*settings.base_patterns, *names))), tuple(dict.fromkeys(local)), (host,))


def _replacements(settings: MirrorSettings) -> tuple[LocalPackage, ...]:
    try:
        return tuple(read_deb(PROJECT / name) for name in settings.replacements)
    except ValueError as error:
        raise MirrorError(
            f"mirror.replacements: {error}", "put the file there again, or correct the name in group_data/all.yaml"
        ) from error


def _common(settings: MirrorSettings) -> Iterator[PackageSet]:
    patterns = settings.base_patterns
    yield PackageSet((*patterns, *settings.base_packages), (), (BASE_SET,))
    for loader in settings.boot_loaders:
        yield PackageSet((*patterns, loader), (), (f"boot loader {loader}",))
    yield PackageSet((*patterns, *installer.PACKAGES), (), (TOOL,))


def _distinct(by_host: dict[str, PackageSet]) -> Iterator[PackageSet]:
    """Hosts that install the same are resolved once."""
    hosts: dict[tuple[tuple[str, ...], tuple[LocalPackage, ...]], list[str]] = {}
    for name, package_set in by_host.items():
        hosts.setdefault((package_set.names, package_set.local), []).append(name)
    for (names, local), members in hosts.items():
        yield PackageSet(names, local, _shortened(members, len(by_host)))


def _shortened(hosts: Sequence[str], of: int) -> tuple[str, ...]:
    """A name for all of several hosts, so that the lock of a large fleet stays readable."""
    return (EVERY_HOST,) if len(hosts) == of > 1 else tuple(sorted(hosts))
