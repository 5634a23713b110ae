"""Every host's view of the fleet, and the checks that need to see more than one host.

`load_hosts` of roles/host.py checks each host by itself. Here is what only the whole inventory can tell: a tenant
that nobody defined, a backend that everything is sent to and that no host runs, a secret or an image that is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from roles.host import TELEMETRY_ROLES, HostConfig, load_hosts
from roles.site import INFRA_TENANT, Member, MirrorPlace, Secrets, Site, Store, secret_names
from roles.telemetry import telemetry_of
from rtinfra.config import ABSENT, ConfigError, Fleet, FleetHost, Problem
from rtinfra.deb import LocalPackage
from rtinfra.images import ImageMissing, LocalStore
from rtinfra.secrets import SecretError, operator_secrets
from rtinfra.wheelhouse import FETCH, PYTHONS, Wheelhouse

#: Which role answers for a signal's exporter of `telemetry`; exporters that no role of ours runs are absent.
EXPORTER_ROLES: Mapping[str, str] = {
    "jaeger": "jaeger",
    "tempo": "tempo",
    "prometheus": "prometheus",
    "mimir": "mimir",
    "loki": "loki",
    "elasticsearch": "elasticsearch",
}


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
    problems = fleet_problems(fleet)
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


def site_of(fleet: Fleet[HostConfig], host: FleetHost[HostConfig], store: Store, secrets: Secrets) -> Site:
    """Return the fleet as seen from one of its hosts."""
    return Site(
        host=host.name,
        address=address_of(host),
        telemetry=host.config.telemetry,
        roles={role: members(fleet, role) for role in (*TELEMETRY_ROLES, "rt_hosts")},
        secrets=secrets,
        store=store,
        is_supplied=is_supplied(host),
    )


def is_supplied(host: FleetHost[HostConfig]) -> bool:
    """Whether a host gets all packages, wheels and images from the offline mirror, and none from this computer."""
    client = host.config.mirror_client
    return "mirror_client" in host.groups and client is not None and client.enabled


def members(fleet: Fleet[HostConfig], role: str) -> tuple[Member, ...]:
    """Return the hosts of a role with their settings of it; of real-time hosts that is the application."""
    section = "rt_app" if role == "rt_hosts" else role
    return tuple(
        Member(host.name, address_of(host), getattr(host.config, section), host.config.telemetry.tenant)
        for host in fleet.group(role)
    )


def address_of(host: FleetHost[HostConfig]) -> str:
    """Return the address by which other hosts reach this one."""
    return host.config.telemetry.address or host.ssh.address


def mirror_of(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> MirrorPlace | None:
    """Return the mirror that a host uses, or serves; None when it does neither.

    Raises:
        ValueError: the inventory does not tell which one it uses.
    """
    client = host.config.mirror_client if "mirror_client" in host.groups else None
    if "mirror_server" in host.groups:
        if client is not None and client.server not in (None, host.name):
            raise ValueError(f"it serves a mirror itself and uses that one, not {client.server}'s")
        return _place(host)
    if client is None:
        return None
    servers = {server.name: server for server in fleet.group("mirror_server")}
    if client.server is not None:
        if client.server not in servers:
            raise ValueError(f"the mirror's host {client.server} is not in the group mirror_server")
        return _place(servers[client.server])
    if len(servers) != 1:
        raise ValueError(
            f"the inventory has several hosts in the group mirror_server: {', '.join(servers)}"
            if servers
            else "no host of the inventory is in the group mirror_server"
        )
    (server,) = servers.values()
    return _place(server)


def _place(server: FleetHost[HostConfig]) -> MirrorPlace:
    settings = server.config.mirror_server
    assert settings is not None  # hosts of the group have the section
    return MirrorPlace(server.name, address_of(server), settings.port, str(settings.directory))


def _mirror_problems(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Iterator[Problem]:
    try:
        mirror_of(fleet, host)
    except ValueError as error:
        settings = host.config.mirror_client
        assert settings is not None
        yield host.problem(
            "mirror_client.server",
            settings.server,
            f"leaves open where this host gets its packages from: {error}",
            "put the host that serves the mirror into the group mirror_server, and name it here if there are several",
        )


def _host_problems(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Iterator[Problem]:
    telemetry = host.config.telemetry
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
    if "agents" in host.groups and not fleet.group("gateways"):
        yield host.problem(
            f"hosts.{host.name}.groups",
            "agents",
            "needs a gateway to send to, and no host of the inventory is one",
            "put a host into the group gateways",
        )
    if "gateways" in host.groups:
        for signal in ("traces", "metrics", "logs"):
            exporter = getattr(telemetry, signal)
            role = EXPORTER_ROLES.get(exporter)
            if role is not None and not fleet.group(role):
                yield host.problem(
                    f"telemetry.{signal}",
                    exporter,
                    f"is where the gateways send {signal}, and no host of the inventory runs it",
                    f"put a host into the group {role}, or choose another exporter",
                )
    yield from _mirror_problems(fleet, host)


def _secret_problems(host: FleetHost[HostConfig]) -> Iterator[Problem]:
    secrets = operator_secrets()
    for role in TELEMETRY_ROLES:
        if role not in host.groups:
            continue
        for key, name in secret_names(getattr(host.config, role), f"{role}."):
            try:
                secrets.read(name)
            except SecretError as error:
                # The name of a secret is no secret; its value is not part of the message.
                yield host.problem(key, name, str(error))


class _NotingStore:
    """The store of this computer, for a look at everything that a host needs of it: misses are noted, not raised."""

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


def _role_problems(fleet: Fleet[HostConfig], host: FleetHost[HostConfig]) -> Iterator[Problem]:
    store = _NotingStore()
    try:
        telemetry = telemetry_of(host, site_of(fleet, host, store, operator_secrets()))
    except ValueError as error:
        # A role that cannot work with what the rest of the fleet is; its words say what to change.
        yield host.problem(f"hosts.{host.name}.groups", ", ".join(host.groups), str(error))
        return
    dict(telemetry.images)  # asks for the image of every container
    if is_supplied(host):
        return  # from the mirror; what is not on it is said when it has been asked
    carried = any(not environment.from_index for environment in telemetry.environments)
    if carried and not any(Wheelhouse().has(python) for python in PYTHONS.values()):
        yield host.problem(
            f"hosts.{host.name}.groups", "preflight", "needs Python wheels, and none are on this computer", FETCH
        )
    for name, reason in store.missing.items():
        yield host.problem(f"hosts.{host.name}.groups", name, reason)
