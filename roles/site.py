"""What a role may know of its surroundings: shared settings, and who else runs what, where.

Agents, gateways and backends point at each other. Instead of addresses written twice, each of them gets a `Site`:
the fleet as seen from one host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field

from rtinfra.config.types import Distribution, Duration, Settings
from rtinfra.deb import LocalPackage
from rtinfra.operations.managed import Managed, PythonEnvironment, Unit
from rtinfra.quadlet import Container

#: Name of a tenant: it becomes an HTTP header, a label and a part of file names.
TENANT_PATTERN = r"^[a-z][a-z0-9-]{0,40}$"
#: Tenant for what the stack says about itself.
INFRA_TENANT = "infra-monitoring"
#: Where node_exporter looks for metrics in files.
TEXTFILE_DIRECTORY = "/var/lib/prometheus/node-exporter"
#: Unit on the first host of the role `garage` that makes the cluster, its buckets and its key.
GARAGE_SETUP = "rtinfra-garage-setup.service"
#: Slice of everything that watches a host: bounded, and on a real-time host off the isolated cores.
AGENTS_SLICE = "agents.slice"


class TenantSettings(Settings):
    """How long and how much is kept for one tenant, in every backend that knows tenants (OB-11)."""

    logs_retention: Duration
    traces_retention: Duration
    metrics_retention: Duration
    samples_per_second: int = Field(gt=0, description="metric samples accepted per second")
    series: int = Field(gt=0, description="metric series kept at a time")


class TelemetrySettings(Settings):
    """What everything that makes, carries, stores or shows telemetry has in common."""

    environment: Literal["dev", "staging", "prod"]
    address: str | None = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$",
        description="address by which other hosts of the inventory reach this one; null: its ssh address",
    )
    tenant: str = Field(pattern=TENANT_PATTERN, description="tenant of what this host sends")
    tenants: dict[str, TenantSettings]
    traces: Literal["jaeger", "tempo", "elastic_apm"]
    metrics: Literal["prometheus", "mimir"]
    logs: Literal["file", "loki", "elasticsearch"]


class MirrorSettings(Settings):
    """What the offline mirror holds beside what the roles of the inventory ask for (OF-1)."""

    distribution: Distribution = Field(description="what hosts run", examples=["debian-13"])
    suite: str = Field(pattern=r"^[a-z]+$", description="its code name, as archives call it", examples=["trixie"])
    architecture: str = Field(pattern=r"^[a-z0-9-]+$", description="dpkg's name of the hosts' architecture")
    components: tuple[str, ...] = Field(min_length=1, description="components of the archive")
    valid_days: int = Field(ge=8, le=3650, description="days that a mirror or bundle is good for")
    replacements: tuple[str, ...] = Field(
        description="files of .debs, relative to the project, taken instead of the archive's packages of those names"
    )
    base_patterns: tuple[str, ...] = Field(description="apt patterns of what every Debian has")
    base_packages: tuple[str, ...] = Field(description="packages that make a host bootable and reachable")
    boot_loaders: tuple[str, ...] = Field(description="boot loaders; they exclude each other")
    python: tuple[Annotated[str, Field(pattern=r"^3\.[0-9]+$")], ...] = Field(
        min_length=1, description="Python versions that wheels are for", examples=[["3.13"]]
    )


@dataclass(frozen=True)
class Member:
    """A host that runs a role: its name, the address others reach it by, its settings of that role, its tenant."""

    host: str
    address: str
    settings: Any
    tenant: str


class Secrets(Protocol):
    """Where secrets come from."""

    def read(self, name: str) -> bytes:
        """Return the value of a secret; raises SecretError when it is not defined."""
        ...


class Store(Protocol):
    """What has to be on this computer already, because hosts fetch nothing: images and our own packages."""

    def image(self, name: str) -> str:
        """Return the pinned reference of an image of the catalogue, `repository@sha256:...`."""
        ...

    def package(self, name: str) -> LocalPackage:
        """Return one of our own Debian packages."""
        ...


@dataclass(frozen=True)
class ObjectStore:
    """An S3 service of the fleet: where it answers and with which key."""

    endpoint: str
    region: str
    key_id: str = field(repr=False)
    key: str = field(repr=False)
    setup: str | None
    """Unit of this host that makes the buckets; None when another host does."""

    @property
    def environment(self) -> bytes:
        """An environment file with the key, for programs that expand variables in their configuration."""
        return f"S3_KEY_ID={self.key_id}\nS3_KEY_SECRET={self.key}\n".encode()


@dataclass(frozen=True)
class Site:
    """The fleet as seen from one host."""

    host: str
    address: str
    telemetry: TelemetrySettings
    roles: Mapping[str, tuple[Member, ...]] = field(repr=False)
    secrets: Secrets = field(repr=False)
    store: Store = field(repr=False)
    housekeeping: str | None = None
    """CPU list of a real-time host's housekeeping cores; None elsewhere."""
    is_supplied: bool = False
    """Whether the host gets all packages, wheels and images from the offline mirror, and none from this computer."""

    def members(self, role: str) -> tuple[Member, ...]:
        """Return the hosts that run a role, in the order of the inventory."""
        return self.roles.get(role, ())

    def urls(self, role: str, port: str = "port", scheme: str = "http") -> tuple[str, ...]:
        """Return where a role answers: one URL for each of its hosts; `port` names the setting."""
        return tuple(f"{scheme}://{member.address}:{getattr(member.settings, port)}" for member in self.members(role))

    @property
    def object_store(self) -> ObjectStore | None:
        """Return the S3 service that backends keep their data in, None when no host runs one (OB-12)."""
        members = self.members("garage")
        if not members:
            return None
        # The one on this host saves a way over the network; all of them have the same content.
        nearest = next((member for member in members if member.host == self.host), members[0])
        settings = nearest.settings
        return ObjectStore(
            endpoint=f"{nearest.address}:{settings.s3_port}",
            region=settings.region,
            key_id=self.secrets.read(settings.s3_key_id_secret).decode(),
            key=self.secrets.read(settings.s3_key_secret).decode(),
            setup=GARAGE_SETUP if members[0].host == self.host else None,
        )


@dataclass(frozen=True)
class MirrorPlace:
    """Where the fleet's offline mirror is: its host by name and address, its HTTPS port, its folder there."""

    host: str
    address: str
    port: int
    directory: str

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """Its IP address; None when it is reached by name."""
        try:
            return ip_address(self.address)
        except ValueError:
            return None

    @property
    def netloc_host(self) -> str:
        """Its address as it stands in URLs."""
        return f"[{self.address}]" if isinstance(self.ip, IPv6Address) else self.address

    @property
    def netloc(self) -> str:
        """Address and port; the port always, since certificates of registries are looked up by this text."""
        return f"{self.netloc_host}:{self.port}"

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"https://{self.netloc}"

    @property
    def live(self) -> str:
        """Folder of the live release on its host."""
        return f"{self.directory}/published/current"


@dataclass(frozen=True)
class Part:
    """What one role puts on a host. Containers bring their own paths and unit.

    `accounts` are files that make accounts which own other paths: they come first.
    """

    containers: tuple[Container, ...] = ()
    paths: tuple[Managed, ...] = ()
    units: tuple[Unit, ...] = ()
    packages: tuple[str, ...] = ()
    local_packages: tuple[LocalPackage, ...] = ()
    accounts: tuple[Managed, ...] = ()
    environments: tuple[PythonEnvironment, ...] = ()


def secret_names(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return the secrets that settings ask for, by key: every field that ends in `_secret` or `_secrets`."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for key, one in [(name, value)] if not isinstance(value, tuple) else _numbered(name, value):
            if isinstance(one, BaseModel):
                yield from secret_names(one, f"{prefix}{key}.")
            elif isinstance(one, str) and name.endswith(("_secret", "_secrets")):
                yield f"{prefix}{key}", one


def _numbered(name: str, values: tuple[object, ...]) -> list[tuple[str, object]]:
    return [(f"{name}.{number}", value) for number, value in enumerate(values)]
