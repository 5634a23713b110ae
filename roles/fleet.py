"""Inventories as a whole: loading them, each host's view of all others, and the checks that need to see more than one.

A host's settings are checked by themselves while they are loaded. Here is what only the whole inventory can tell: a
tenant that nobody defined, a store that everything is sent to and that no host runs, a secret or an image that is
missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from roles.catalogue import HOST_MODEL, KNOWN_GROUPS, LAB_GROUP, ROLES, SECTIONS, STARTING_ORDER
from roles.composition import compose
from roles.facets import Member
from roles.host import HostConfig
from roles.mirror import mirror_of
from roles.secrets import secret_names
from roles.shape import FleetView, ImageStore, Secrets
from roles.shared import BACKENDS, INFRA_TENANT, TELEMETRY
from rtinfra.config import ABSENT, ConfigError, Fleet, FleetHost, Problem, SshSettings, load_fleet
from rtinfra.cpu import CpuLayout
from rtinfra.deb import LocalPackage
from rtinfra.images import ImageMissing, LocalStore
from rtinfra.secrets import SecretError, operator_secrets
from rtinfra.wheelhouse import FETCH, PYTHONS, Wheelhouse

# Where machines of the lab are reached: by forwarded ports of this computer.
_LAB_ADDRESSES = ("127.0.0.1", "::1", "localhost")


def load_settings(root: Path, inventory: Path) -> Fleet[HostConfig]:
    """Load and validate every host of an inventory, without a look at this computer.

    Raises:
        ConfigError: with all problems found, each with its file and line.
    """
    return load_fleet(root, inventory, HOST_MODEL, known_groups=KNOWN_GROUPS)


def load_hosts(root: Path, inventory: Path) -> Fleet[HostConfig]:
    """Load and validate every host of an inventory file or directory, and the keys by which they are reached.

    Raises:
        ConfigError: with all problems found, each with its file and line.
    """
    fleet = load_settings(root, inventory)
    missing = [
        host.problem(f"hosts.{host.name}.ssh.{name}", str(path), "there is no such file on this machine", hint)
        for host in fleet.hosts.values()
        for name, path, hint in (
            ("key", host.ssh.key, "make one: `ssh-keygen -t ed25519`, then `ssh-copy-id` to the host"),
            ("known_hosts", host.ssh.known_hosts, "make it: `ssh-keyscan ADDRESS`, compared with the host's screen"),
        )
        if path is not None and not path.is_file()
    ]
    if missing:
        raise ConfigError(missing)
    return fleet


def load_checked_hosts(root: Path, inventory: Path) -> Fleet[HostConfig]:
    """Load an inventory and check it as a whole.

    Raises:
        ConfigError: with all problems found.
    """
    fleet = load_hosts(root, inventory)
    try:
        operator_secrets()
    except SecretError as error:
        raise ConfigError([Problem("secrets.yaml", None, "", ABSENT, error.message, error.next_step)]) from error
    problems = [problem for host in fleet.hosts.values() for problem in _not_a_lab_machine(host)]
    problems += fleet_problems(fleet)
    problems += [problem for host in fleet.hosts.values() for problem in _secret_problems(host)]
    # Roles rely on what was checked above: tenants and secrets that exist.
    if not problems:
        problems = [problem for host in fleet.hosts.values() for problem in _role_problems(fleet, host)]
    if problems:
        raise ConfigError(problems)
    return fleet


def fleet_problems(fleet: Fleet[HostConfig]) -> list[Problem]:
    """Return what is wrong with an inventory as a whole, secrets and images of this computer aside."""
    return [problem for host in fleet.hosts.values() for problem in _host_problems(fleet, host)]


def view_of(
    fleet: Fleet[HostConfig],
    host: FleetHost[HostConfig],
    store: ImageStore,
    secrets: Secrets,
    *,
    layout: CpuLayout | None = None,
    distribution: str = "",
) -> FleetView:
    """Return the fleet as seen from one of its hosts; its mirror is there when the inventory tells which it is."""
    view = FleetView(
        host=host.name,
        address=address_of(host),
        telemetry=host.config[TELEMETRY],
        backends=host.config[BACKENDS],
        by_section={
            section.name: tuple(
                Member(one.name, address_of(one), settings, one.config[TELEMETRY].tenant)
                for one in fleet.hosts.values()
                if (settings := one.config.get(section)) is not None
            )
            for section in SECTIONS
        },
        roles=ROLES,
        secrets=secrets,
        store=store,
        distribution=distribution,
        layout=layout,
        ssh_port=host.ssh.port,
        settings_sha256=host.config.sha256,
    )
    try:
        return replace(view, mirror=mirror_of(view))
    except ValueError as error:
        return replace(view, mirror_problem=str(error))


def address_of(host: FleetHost[HostConfig]) -> str:
    """Return the address by which other hosts reach this one."""
    return host.config[TELEMETRY].address or host.ssh.address


def _not_a_lab_machine(host: FleetHost[HostConfig]) -> Iterator[Problem]:
    """Refuse the lab's settings anywhere else: with them the workload may be told to hang."""
    if LAB_GROUP in host.groups and host.ssh.address not in _LAB_ADDRESSES:
        key = f"hosts.{host.name}.groups.{host.groups.index(LAB_GROUP)}"
        yield host.problem(key, LAB_GROUP, "is for machines of `rtinfra lab` on this computer", "remove it")


class _NotingStore:
    """The store of this computer with its misses noted, not raised: all that a host needs of it is found at once."""

    def __init__(self) -> None:
        self._store = LocalStore()
        self.missing: dict[str, str] = {}

    def image(self, name: str) -> str:
        try:
            return self._store.image(name)
        except ImageMissing as error:
            self.missing[name] = str(error)
            return f"missing/{name}@sha256:{'0' * 64}"

    def package(self, name: str) -> LocalPackage:
        try:
            return self._store.package(name)
        except ImageMissing as error:
            self.missing[name] = str(error)
            return LocalPackage(Path("missing"), name, "0")


def secrets_for(host: FleetHost[HostConfig]) -> Secrets:
    """Return the secrets of this computer for one host; raises SecretError."""
    return operator_secrets(host.config[TELEMETRY].environment)


class _NoSecrets:
    """Secrets that must not be read: whether a fleet fits together is found out without any."""

    def read(self, name: str) -> bytes:
        raise TypeError(f"{name} is asked for while nobody may ask for secrets")


def _host_problems(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Iterator[Problem]:
    telemetry = host.config[TELEMETRY]
    if telemetry.tenant not in telemetry.tenants:
        yield host.problem(
            "telemetry.tenant",
            telemetry.tenant,
            "is not a tenant",
            f"use one of {', '.join(telemetry.tenants)}, or define it below telemetry.tenants",
        )
    if INFRA_TENANT not in telemetry.tenants:
        yield host.problem(
            "telemetry.tenants",
            None,
            f"has no {INFRA_TENANT}, which gets what the stack says about itself and what names no tenant",
            "restore it in group_data/all.yaml",
        )
    view = view_of(fleet, host, _NotingStore(), _NoSecrets())
    for role in ROLES:
        for found in role.problems_in(view):
            yield host.problem(found.key, found.value, found.reason, found.suggestion)


def _secret_problems(host: FleetHost[HostConfig]) -> Iterator[Problem]:
    secrets = secrets_for(host)
    if host.ssh.become_password not in (None, SshSettings.ASK):
        try:
            secrets.read(host.ssh.become_password)
        except SecretError as error:
            yield host.problem(f"hosts.{host.name}.ssh.become_password", ABSENT, str(error))
    for role in ROLES:
        settings = host.config.get(role.key)
        for key, name in secret_names(settings, f"{role.name}.") if settings is not None else ():
            try:
                secrets.read(name)
            except SecretError as error:
                # The name of a secret is no secret, and has to be told; as a value of such a key it would be hidden.
                yield host.problem(key, ABSENT, str(error))


def _role_problems(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Iterator[Problem]:
    store = _NotingStore()
    try:
        composed = compose(view_of(fleet, host, store, secrets_for(host)), STARTING_ORDER)
    except ValueError as error:
        # A role that cannot work with what the rest of the fleet is; its words say what to change.
        yield host.problem(f"hosts.{host.name}.groups", ", ".join(host.groups), str(error))
        return
    if composed.view.is_supplied:
        return  # from the mirror; what is not on it is said when it has been asked
    environments = [environment for state in composed.states.values() for environment in state.environments]
    carried = any(not environment.from_index for environment in environments)
    if carried and not any(Wheelhouse().has(python) for python in PYTHONS.values()):
        yield host.problem(
            f"hosts.{host.name}.groups", "preflight", "needs Python wheels, and none are on this computer", FETCH
        )
    for name, reason in store.missing.items():
        yield host.problem(f"hosts.{host.name}.groups", name, reason)
