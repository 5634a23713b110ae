"""Everything that the roles of one host come to, in the order in which a deploy brings it.

Functions of settings, layout and distribution alone, so that a deploy, the plan, drift and the lock of the mirror never
differ in what they ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Any

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
    so_far = Composition(view, states, tuple(_batches(view, own, states, images)), images)
    others = replace(view, others=_as_placed(so_far))
    last = {role.name: role.state_in(others) for role in own if role.speaks_of_others}
    batches = (*so_far.batches, *_batches(view, own, last, images))
    return Composition(view, {**states, **last}, batches, images)


def _as_placed(composed: Composition) -> tuple[RoleState, ...]:
    """Return the states as they are on the host: from the mirror packages of ours come by name."""
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


def _batches(
    view: FleetView, own: Sequence[AnyRole], states: Mapping[str, RoleState], images: Mapping[str, str]
) -> Iterator[Batch]:
    roles = [role for role in own if role.name in states]
    for name in batch_names(roles):
        members = [role for role in roles if batch_name(role) == name]
        parts = [states[role.name] for role in members]
        if name == STACK:
            yield Batch(name, Labels(), _stack(view, parts, images))
            continue
        (role,), (state,) = members, parts
        if state.containers:
            raise TypeError(f"{name} is a role of the host itself: containers are programs of the stack")
        yield Batch(name, role.labels, state, role.supplies)


def _stack(view: FleetView, parts: Sequence[RoleState], images: Mapping[str, str]) -> RoleState:
    """Return the programs of the stack as one state, their containers as what they are on the host.

    Raises:
        ValueError: two roles want something different at one path.
    """
    joined = reduce(_added, parts, RoleState())
    if joined.steps:
        raise TypeError("a program of the stack has a step of its own, which nobody would take")
    containers = joined.containers
    if not containers:
        return replace(joined, files=_each_once(joined.files))
    files = [*_common(view.backends), *joined.files]
    for container in containers:
        files += quadlet.paths(container, images[container.image])
    return replace(
        joined,
        containers=(),
        files=_each_once(files),
        accounts=(quadlet.accounts_file(containers), *joined.accounts),
        # Backends before what sends to them.
        units=(*(container.unit for container in containers), *joined.units),
        packages=(*joined.packages, *view.backends.packages),
        slices=(quadlet.SLICE, *joined.slices),
    )


def _added(one: RoleState, other: RoleState) -> RoleState:
    """Return both: sequences one after the other, mappings with the entries of both."""
    values: dict[str, Any] = {}
    for each in fields(RoleState):
        ours, theirs = getattr(one, each.name), getattr(other, each.name)
        values[each.name] = {**ours, **theirs} if isinstance(ours, Mapping) else (*ours, *theirs)
    return RoleState(**values)


def _each_once(files: Sequence[Resource]) -> tuple[Resource, ...]:
    """Return every path once: two roles may ask for the same directory."""
    found: dict[str, Resource] = {}
    for file in files:
        if found.setdefault(file.path, file) != file:
            raise ValueError(f"two roles of this host have something different in mind for {file.path}")
    return tuple(found.values())


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
