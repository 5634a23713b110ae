"""Everything that the roles of one host come to, in the order in which a deploy brings it.

Functions of settings, layout and distribution alone, so that a deploy, the plan, drift and the lock of the mirror never
differ in what they ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from roles.shape import AnyRole, FleetView, Labels, RoleState, Tier
from roles.shared import BackendsSettings
from rtinfra import quadlet
from rtinfra.deb import LocalPackage
from rtinfra.operations.resources import DAEMON_RELOAD, Directory, File, Resource, RuntimeValue, Unit
from rtinfra.render import render

#: Name of the operations that all programs of the stack share: round trips are the cost.
STACK = "telemetry"


@dataclass(frozen=True)
class Batch:
    """What is handed to one operation each: accounts, files. One for each role of the host itself, one for the stack.

    In `state` containers have become the files and units that they are.
    """

    name: str
    labels: Labels
    state: RoleState = field(repr=False)
    is_supplying: bool = False


def batch_name(role: AnyRole) -> str:
    """Return the batch that a role belongs to."""
    return role.name if role.tier is Tier.HOST else STACK


def batch_names(roles: Sequence[AnyRole]) -> tuple[str, ...]:
    """Return all batches in the order of the catalogue."""
    return tuple(dict.fromkeys(batch_name(role) for role in roles))


@dataclass(frozen=True)
class Composition:
    """All roles of one host: `states` as the roles say them, `batches` as they are brought."""

    view: FleetView
    states: Mapping[str, RoleState]
    """By name of the role."""
    batches: tuple[Batch, ...]
    images: Mapping[str, str]
    """Pinned references of the containers' images, by name of the catalogue."""

    @property
    def placed(self) -> Iterator[Batch]:
        """Batches that are placed in the course of the deploy; the others are brought by a step of their role."""
        return (batch for batch in self.batches if not batch.is_supplying)

    @property
    def packages(self) -> list[str]:
        """Debian packages of all roles; `name/suite` names its suite."""
        names = [name for batch in self.batches for name in batch.state.packages]
        return [*names, *(package.name for package in self._own_packages)] if self.view.is_supplied else names

    @property
    def local_packages(self) -> list[LocalPackage]:
        """Packages of all roles that come as files of the control machine."""
        return [] if self.view.is_supplied else self._own_packages

    @property
    def _own_packages(self) -> list[LocalPackage]:
        """Packages of all roles that are not Debian's: local files, or on the mirror."""
        return [package for batch in self.batches for package in batch.state.local_packages]

    @property
    def units(self) -> list[Unit]:
        """systemd units of all roles but those that serve the mirror, which are looked at before its clients."""
        return [unit for batch in self.placed for unit in batch.state.units]

    @property
    def paths(self) -> list[Resource]:
        """Every path of all roles that is known before the run begins."""
        return [path for batch in self.batches for path in batch.state.paths]

    @property
    def guard(self) -> list[tuple[Batch, Sequence[Resource]]]:
        """What comes before any package."""
        return [(batch, batch.state.guard) for batch in self.placed if batch.state.guard]

    @property
    def runtime(self) -> list[RuntimeValue]:
        """What the roles make of the running kernel."""
        return [value for batch in self.batches for value in batch.state.runtime]


def compose(view: FleetView, roles: Sequence[AnyRole] | None = None) -> Composition:
    """Return everything that the roles of a host come to; only `roles`, when they are given.

    Raises:
        ValueError: a role cannot work with what the rest of the fleet is; its words say what to change.
        ImageMissing: an image or package is not on this computer.
    """
    own = [role for role in (view.roles if roles is None else roles) if view.own(role.key) is not None]
    states = {role.name: role.state_in(view) for role in own if not role.speaks_of_others}
    containers = [container for state in states.values() for container in state.containers]
    images = {container.image: view.store.image(container.image) for container in containers}
    batches = [
        _batch(view, name, own, states, images) for name in batch_names([role for role in own if role.name in states])
    ]
    so_far = Composition(view, states, tuple(batches), images)
    # As they are on a host that is supplied by the mirror: packages of ours come by name.
    others = replace(view, others=_as_placed(so_far))
    last = {role.name: role.state_in(others) for role in own if role.speaks_of_others}
    batches += [
        _batch(view, name, own, last, images) for name in batch_names([role for role in own if role.name in last])
    ]
    return Composition(view, {**states, **last}, tuple(batches), images)


def _as_placed(composed: Composition) -> tuple[RoleState, ...]:
    states = [batch.state for batch in composed.batches]
    if not composed.view.is_supplied:
        return tuple(states)
    return tuple(
        replace(
            state,
            packages=(*state.packages, *(package.name for package in state.local_packages)),
            local_packages=(),
        )
        for state in states
    )


def _batch(
    view: FleetView, name: str, own: Sequence[AnyRole], states: Mapping[str, RoleState], images: Mapping[str, str]
) -> Batch:
    roles = [role for role in own if batch_name(role) == name and role.name in states]
    parts = [states[role.name] for role in roles]
    labels = roles[0].labels
    supplying = any(role.supplies for role in roles)
    return Batch(
        name,
        labels,
        parts[0] if len(parts) == 1 and not parts[0].containers else _joined(view, parts, images),
        supplying,
    )


def _joined(view: FleetView, parts: Sequence[RoleState], images: Mapping[str, str]) -> RoleState:
    """Return several states as one, their containers as what they are on the host."""
    containers = [container for part in parts for container in part.containers]
    files: list[Resource] = [*(_common(view.backends) if containers else ())]
    files += [path for part in parts for path in part.files]
    for container in containers:
        files += quadlet.paths(container, images[container.image])
    accounts = [*([quadlet.accounts_file(containers)] if containers else [])]
    return RoleState(
        # Two roles may ask for the same directory.
        files=tuple({path.path: path for path in files}.values()),
        accounts=(*accounts, *(path for part in parts for path in part.accounts)),
        # Backends before what sends to them.
        units=(*(container.unit for container in containers), *(unit for part in parts for unit in part.units)),
        packages=(*(name for part in parts for name in part.packages), *(view.backends.packages if containers else ())),
        local_packages=tuple(package for part in parts for package in part.local_packages),
        environments=tuple(environment for part in parts for environment in part.environments),
        guard=tuple(path for part in parts for path in part.guard),
        runtime=tuple(value for part in parts for value in part.runtime),
        ready={unit: url for part in parts for unit, url in part.ready.items()},
        steps={phase: step for part in parts for phase, step in part.steps.items()},
        slices=(*((quadlet.SLICE,) if containers else ()), *(name for part in parts for name in part.slices)),
        own_services=tuple(name for part in parts for name in part.own_services),
        private_directories=tuple(path for part in parts for path in part.private_directories),
    )


def _common(settings: BackendsSettings) -> Sequence[Resource]:
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
