"""Settings that belong to no role alone: the CPU model, tenants, what all backends of a host may use, the mirror."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from rtinfra.config.host_types import HostAddress, MemoryShare, PackageName, Retention
from rtinfra.config.sections import EVERY_HOST, Section
from rtinfra.config.types import CpuListText, Distribution, Settings

#: The group whose hosts get a real-time kernel, isolation, tuning and the application.
RT_GROUP: Final = "rt_hosts"
#: Name of a tenant: it becomes an HTTP header, a label and a part of file names.
TENANT_PATTERN: Final = r"^[a-z][a-z0-9-]{0,40}$"
#: Tenant for what the stack says about itself.
INFRA_TENANT: Final = "infra-monitoring"
#: Where node_exporter looks for metrics in files.
TEXTFILE_DIRECTORY: Final = "/var/lib/prometheus/node-exporter"
#: Name of our files where several are read in the order of their names and the last one wins, as 90-kubelet.conf would.
LAST_FILE: Final = "zz-rtinfra"
#: Slice of everything that watches a host: bounded, and on a real-time host off the isolated cores.
AGENTS_SLICE: Final = "agents.slice"


class FollowsEnvironment(NamedTuple):
    """What follows from `telemetry.environment` where it is not set itself (OF-3)."""

    tenant: str
    preflight: Literal["paper", "staging", "prod"]


#: By environment. The secret manager's environment has the same name (rtinfra.secrets.operator_secrets).
ENVIRONMENTS: Final[Mapping[str, FollowsEnvironment]] = {
    "dev": FollowsEnvironment("staging", "paper"),
    "staging": FollowsEnvironment("staging", "staging"),
    "prod": FollowsEnvironment("prod", "prod"),
}


class CpuSettings(Settings):
    """The one CPU model: kernel command line, slices, units and the application's files derive from it."""

    isolated: CpuListText = Field(description="cores for real-time work, in kernel list grammar")
    housekeeping: CpuListText | None = Field(default=None, description="all other cores when null")
    count: int | None = Field(
        default=None, ge=1, le=8192, description="CPUs the host is expected to have; lets `check` see more"
    )


class PrerequisiteSettings(Settings):
    """What a host must have before anything is changed on it (RT-1)."""

    cores: int = Field(ge=1)
    memory_mb: int = Field(ge=1)


class BackendsSettings(Settings):
    """Bounds of all backend containers of a host together."""

    packages: tuple[PackageName, ...]
    memory_max: MemoryShare = Field(description="MemoryMax= of their slice")
    cpu_weight: int = Field(ge=1, le=10000)


class TenantSettings(Settings):
    """How long and how much is kept for one tenant, in every backend that knows tenants (OB-11)."""

    logs_retention: Retention
    traces_retention: Retention
    metrics_retention: Retention
    samples_per_second: int = Field(gt=0, description="metric samples accepted per second")
    series: int = Field(gt=0, description="metric series kept at a time")


class TelemetrySettings(Settings):
    """What everything that makes, carries, stores or shows telemetry has in common.

    Which stores `traces`, `metrics` and `logs` may name is said by the roles that take them (roles/catalogue.py).
    """

    environment: Literal["dev", "staging", "prod"]
    address: HostAddress | None = Field(
        description="address by which other hosts of the inventory reach this one; null: its ssh address",
    )
    tenant: str = Field(
        pattern=TENANT_PATTERN, description="tenant of what this host sends; null: that of the environment"
    )
    tenants: dict[str, TenantSettings]
    traces: str
    metrics: str
    logs: str

    @model_validator(mode="before")
    @classmethod
    def _tenant_of_the_environment(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("tenant") is not None:
            return data
        follows = ENVIRONMENTS.get(str(data.get("environment")))
        return {**data, "tenant": follows.tenant} if follows else data


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
    base_packages: tuple[PackageName, ...] = Field(description="packages that make a host bootable and reachable")
    boot_loaders: tuple[PackageName, ...] = Field(description="boot loaders; some exclude each other")
    python: tuple[Annotated[str, Field(pattern=r"^3\.[0-9]+$")], ...] = Field(
        min_length=1, description="Python versions that wheels are for", examples=[["3.13"]]
    )


CPU: Final = Section("cpu", CpuSettings, RT_GROUP)
PREREQUISITES: Final = Section("prerequisites", PrerequisiteSettings, RT_GROUP)
BACKENDS: Final = Section("backends", BackendsSettings, EVERY_HOST)
TELEMETRY: Final = Section("telemetry", TelemetrySettings, EVERY_HOST)
MIRROR: Final = Section("mirror", MirrorSettings, EVERY_HOST)
