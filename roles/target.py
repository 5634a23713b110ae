"""The host that deploy.py is being executed for: observed, held against its settings, and what its roles come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import DeployError

from roles.catalogue import ROLES
from roles.composition import STACK, Batch, Composition, batch_names, compose
from roles.fleet import secrets_for, view_of
from roles.host import HostConfig
from roles.prerequisites import check_layout, check_roles
from roles.shape import FleetView, Phase
from rtinfra.config import FleetHost, Problem
from rtinfra.facts.host import Host, HostState
from rtinfra.facts.packet_filter import PacketFilterState
from rtinfra.images import ImageMissing, LocalStore, MirroredStore
from rtinfra.inventory import fleet_host_of, fleet_of
from rtinfra.operations import environments as environment_operations
from rtinfra.operations import files as file_operations
from rtinfra.operations import images as image_operations
from rtinfra.operations import mirror as mirror_operations
from rtinfra.operations import packet_filter as packet_filter_operations
from rtinfra.operations.mirror import MirrorUnreachable, asked
from rtinfra.operations.packet_filter import PacketFilter
from rtinfra.operations.resources import Resource, RuntimeValue
from rtinfra.wheelhouse import FETCH, PYTHONS, Wheelhouse


@dataclass(frozen=True)
class Target:
    """One host, checked, with everything that its roles come to."""

    composed: Composition
    packet_filter: PacketFilterState = field(default_factory=PacketFilterState)
    """As it was found."""

    @property
    def view(self) -> FleetView:
        """The fleet as seen from it."""
        return self.composed.view

    @property
    def image_archives(self) -> Mapping[str, Path | None]:
        """Container images of all roles by pinned reference: OCI archives of this computer, or None: pulled."""
        images = self.composed.images
        if self.view.is_supplied:
            return dict.fromkeys(images.values())
        store = LocalStore()
        return {reference: store.archive(name) for name, reference in images.items()}

    def supply(self) -> None:
        """Serve packages to other hosts, and take them from where the host is to take them."""
        if self.packet_filter.has_program:
            # New clients of a mirror are let in before they ask for anything.
            self._filter()
        self._run(Phase.SERVE)
        # No client goes on before the mirror serves.
        if self.view.mirror is not None and self.view.mirror.is_needed:
            mirror_operations.barrier(name="mirror", server=self.view.mirror.place.host)
        self._run(Phase.SUPPLY)

    def guard(self) -> None:
        """Place what protects the host while packages are installed."""
        for batch in self._batches():
            if batch.state.guard:
                _sync(batch, batch.labels.guard, batch.state.guard)

    def protect(self) -> None:
        """Let nobody reach this host's programs but who has to, where that has not been done before."""
        if not self.packet_filter.has_program:
            self._filter()

    def place(self) -> None:
        """Place the files of all roles, batch by batch, and reboot where a role asks for it."""
        for batch in self._batches():
            if batch.is_supplying:
                continue
            if batch.name == STACK:
                # The checkers of configuration files are programs in these images.
                image_operations.loaded(name="images", images=self.image_archives)
            _place(batch)
            self._step(batch, Phase.REBOOT)

    def _run(self, phase: Phase) -> None:
        for batch in self._batches():
            self._step(batch, phase)

    def _filter(self) -> None:
        for batch in self._batches():
            for desired in batch.state.packet_filters:
                _apply(batch, desired, self.packet_filter)

    @staticmethod
    def _step(batch: Batch, phase: Phase) -> None:
        if (step := batch.state.steps.get(phase)) is not None:
            deploy(batch.name)(step)()

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches of the host.

        All hosts count the batches of the catalogue, their own or not: by the count pyinfra knows an operation that
        several hosts share.
        """
        own = {batch.name: batch for batch in self.composed.batches}
        for name in host.loop(batch_names(ROLES)):  # type: ignore[no-untyped-call]
            if name in own:
                yield own[name]


def _place(batch: Batch) -> None:
    """Make the environments, then the accounts, then place the files that may belong to them."""
    state = batch.state

    @deploy(batch.name)
    def environments() -> None:
        for environment in state.environments:
            environment_operations.installed(
                name=f"environment {environment.directory}", environment=environment, wheelhouse=Wheelhouse()
            )

    environments()
    if state.accounts:
        _sync(batch, batch.labels.accounts, state.accounts)
    if state.files or state.runtime:
        _sync(batch, batch.labels.files, state.files, state.runtime)


def _sync(batch: Batch, label: str, paths: Sequence[Resource], runtime: Sequence[RuntimeValue] = ()) -> None:
    @deploy(batch.name)
    def placed() -> None:
        file_operations.sync(name=label, paths=paths, runtime=runtime)

    placed()


def _apply(batch: Batch, desired: PacketFilter, found: PacketFilterState) -> None:
    @deploy(batch.name)
    def filtered() -> None:
        packet_filter_operations.applied(name="rules", desired=desired, found=found)

    filtered()


def current_target() -> Target:
    """Observe the host that pyinfra is preparing and hold it against its settings.

    Raises:
        DeployError: with everything that is wrong; pyinfra then ends the run before any change.
    """
    fleet_host: FleetHost[HostConfig] = fleet_host_of(host)
    state: HostState = host.get_fact(Host)
    layout, problems = check_layout(fleet_host, state)
    view = _observed(
        view_of(
            fleet_of(host),
            fleet_host,
            LocalStore(),
            secrets_for(fleet_host),
            layout=layout,
            distribution=state.distribution,
        )
    )
    problems += check_roles(fleet_host, view, state)
    for problem in problems:
        if problem.severity == "warning":
            logger.warning("%s%s", host.print_prefix, problem)
    _refuse(problem for problem in problems if problem.severity == "error")
    try:
        composed = compose(view)
    except (ImageMissing, ValueError) as error:
        raise DeployError(f"{host.name} is refused, nothing was changed on any host: {error}") from error
    _refuse(_without_wheels(fleet_host, composed))
    return Target(composed, state.packet_filter)


def _refuse(errors: Iterable[Problem]) -> None:
    if listed := "\n".join(f"  {problem}" for problem in errors):
        raise DeployError(f"{host.name} is refused, nothing was changed on any host:\n{listed}")


def _observed(view: FleetView) -> FleetView:
    """Return the view with what the mirror's host answers, when it matters what it serves.

    What is on the mirror decides which images its clients run, not what lies on this computer.
    """
    mirror = view.mirror
    if mirror is None or not mirror.is_needed:
        return view
    try:
        served = asked(mirror.place.host, mirror.place.directory)
    except MirrorUnreachable as error:
        raise DeployError(f"{host.name} gets its packages from the mirror; nothing was changed: {error}") from error
    view = replace(view, mirror=replace(mirror, live=served.release))
    if mirror.is_used and served.release is not None:
        view = replace(view, store=MirroredStore(served.release.images))
    return view


def _without_wheels(fleet_host: FleetHost[HostConfig], composed: Composition) -> Iterator[Problem]:
    """Say so when the wheels for this distribution's Python are not on the control machine."""
    distribution = composed.view.distribution
    python = PYTHONS.get(distribution)
    for name, state in composed.states.items():
        carried = any(not environment.from_index for environment in state.environments)
        if carried and python is not None and not Wheelhouse().has(python):
            reason = f"and the wheels for Python {python} of {distribution} are not on this computer"
            yield fleet_host.problem(f"{name}.wheels", "carried", reason, FETCH)
