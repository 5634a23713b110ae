"""Typed settings of the `agents` role (OB-1, OB-5)."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from rtinfra.config.host_types import MemoryBound, PackageName, PrintedName
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SecretName, SettingError, Settings


class SliceSettings(Settings):
    """Bounds of all agents together."""

    memory_max: MemoryBound = Field(description="MemoryMax=")
    cpu_weight: int = Field(ge=1, le=10000, description="CPUWeight=; 100 is the weight of everything else")


class NodeExporterSettings(Settings):
    """Metrics of the host itself."""

    port: Port


class CollectorSettings(Settings):
    """The OpenTelemetry Collector on the host; it takes telemetry on loopback only."""

    grpc_port: Port
    http_port: Port
    health_port: Port
    metrics_port: Port
    memory_limit_mb: int = Field(ge=50)
    # Below, a single large request could find no room even in an empty queue and would wait for ever.
    queue_mb: int = Field(ge=64, description="records kept on disk for each signal while no gateway answers")


class FilebeatSettings(Settings):
    """Filebeat, the vendor's package; only used with logs: filebeat."""

    stats_port: Port
    username: PrintedName
    password_secret: SecretName | None = Field(description="name of the secret")


class AgentsSettings(Settings):
    """Settings of the `agents` role."""

    packages: tuple[PackageName, ...]
    slice: SliceSettings
    node_exporter: NodeExporterSettings
    collector: CollectorSettings
    logs: Literal["collector", "filebeat"] = Field(description="who ships the application's log files")
    filebeat: FilebeatSettings

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.logs == "filebeat" and self.filebeat.password_secret is None:
            raise SettingError("logs is filebeat, and filebeat.password_secret names no secret")
        if self.collector.memory_limit_mb << 20 >= self.slice.memory_max.bytes:
            raise SettingError(
                f"collector.memory_limit_mb is {self.collector.memory_limit_mb}, and slice.memory_max, for all agents "
                f"together, only {self.slice.memory_max}"
            )
        return self


#: Key to the settings of this role.
AGENTS: Final = Section("agents", AgentsSettings)
#: Pages that tell what the collector and Filebeat counted.
METRICS_PAGE: Final = "/metrics"
STATS_PAGE: Final = "/stats"
FILEBEAT_UNIT: Final = "filebeat.service"
