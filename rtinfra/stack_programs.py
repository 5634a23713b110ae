"""Which programs of the stack run on a host, derived from its settings alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from roles.catalogue import STARTING_ORDER
from roles.composition import compose
from roles.host import HostConfig
from roles.shape import AnyRole, RoleState, Tier
from roles.stand_ins import PLACEHOLDER, stand_in_view
from rtinfra.config import Fleet, FleetHost
from rtinfra.operations.resources import Directory, File
from rtinfra.quadlet import DATA_ROOT, Container


@dataclass(frozen=True)
class Program:
    """One program of the stack on one host. `ready` is asked on the host itself."""

    host: str
    role: str
    name: str
    unit: str
    container: Container | None = None
    ready: str | None = None
    ready_status: tuple[int, ...] = (200,)
    packages: tuple[str, ...] = ()
    config: tuple[File, ...] = field(default=(), repr=False)
    tier: Tier = Tier.STORES
    """When it starts."""
    kept: tuple[str, ...] = ()
    """Directories below its data directories that a deploy makes."""

    @property
    def directories(self) -> tuple[str, ...]:
        """Where it keeps its data."""
        return tuple(f"{DATA_ROOT}/{name}" for name in self.container.data) if self.container else ()


def programs_of(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> tuple[Program, ...]:
    """Return the programs of the stack on a host in the order they start.

    Raises:
        ValueError: settings that a role cannot work with.
    """
    composed = compose(stand_in_view(fleet, host), STARTING_ORDER)
    return tuple(
        program
        for role in STARTING_ORDER
        if role.name in composed.states
        for program in _programs(host.name, role, composed.states[role.name])
    )


def _programs(host: str, role: AnyRole, state: RoleState) -> Iterator[Program]:
    directories = [path.path for path in state.files if isinstance(path, Directory)]
    for container in state.containers:
        data = tuple(f"{DATA_ROOT}/{name}/" for name in container.data)
        yield Program(
            host=host,
            role=role.name,
            name=container.name,
            unit=container.unit.name,
            container=container,
            ready=container.ready,
            ready_status=container.ready_status,
            config=_plain(container.config),
            tier=role.tier,
            kept=tuple(path for path in directories if path.startswith(data)),
        )
    files = _plain(path for path in state.files if isinstance(path, File))
    for unit in state.units:
        if unit.running and unit.name.endswith(".service"):
            yield Program(
                host=host,
                role=role.name,
                name=unit.name.removesuffix(".service"),
                unit=unit.name,
                # It is no container: it cannot say by itself that it is ready.
                ready=state.ready.get(unit.name),
                packages=(*state.packages, *(package.name for package in state.local_packages)),
                config=tuple(file for file in files if unit.name in file.restarts),
                tier=role.tier,
            )


def _plain(files: Iterable[File]) -> tuple[File, ...]:
    """Leave out what depends on a secret or on the store: its content is not the real one here."""
    return tuple(file for file in files if not file.secret and PLACEHOLDER.encode() not in file.content)
