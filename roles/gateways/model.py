"""Typed settings of the `gateways` role (OB-6)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

from pydantic import Field, model_validator

from rtinfra.config.host_types import CpuQuota, MemoryBound
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SecretName, SettingError, Settings


class GatewaysSettings(Settings):
    """Settings of the `gateways` role."""

    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(
        description="one gateway runs for each; empty: one, at the host's own telemetry address"
    )
    grpc_port: Port
    http_port: Port
    health_port: Port
    metrics_port: Port
    memory_max: MemoryBound
    memory_limit_mb: int = Field(ge=50)
    cpu_quota: CpuQuota
    # Below, a single large request could find no room even in an empty queue and would wait for ever.
    queue_mb: int = Field(ge=64, description="records kept on disk for each exporter while its backend is away")
    log_file_mb: int = Field(ge=1, description="logs: file: a file is rotated at this size")
    log_files: int = Field(ge=1, description="logs: file: rotated files kept for each tenant")
    elastic_apm_endpoint: str | None = Field(
        pattern=r"^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$",
        description="traces: elastic_apm: its OTLP/gRPC address and port",
    )
    elastic_apm_token_secret: SecretName | None = Field(
        description="traces: elastic_apm: name of the secret with its token"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.memory_limit_mb << 20 >= self.memory_max.bytes:
            raise SettingError(f"memory_limit_mb is {self.memory_limit_mb}, and memory_max only {self.memory_max}")
        if len(set(self.addresses)) < len(self.addresses):
            raise SettingError("has an address twice in addresses")
        return self


#: Key to the settings of this role.
GATEWAYS: Final = Section("gateways", GatewaysSettings)
#: What `telemetry.logs` may say besides a store: the gateways keep logs as files themselves.
FILE: Final = "file"
#: What `telemetry.traces` may say besides a store: somebody else's, at `elastic_apm_endpoint`.
ELASTIC_APM: Final = "elastic_apm"
#: Page that tells what a gateway counted.
METRICS_PAGE: Final = "/metrics"


def addresses_of(settings: GatewaysSettings, address: str) -> tuple[str, ...]:
    """Return the addresses of a host's gateways; `address` is the host's own."""
    return tuple(str(own) for own in settings.addresses) or (address,)
