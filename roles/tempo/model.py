"""Typed settings of the `tempo` role (OB-9)."""

from __future__ import annotations

from typing import Final

from rtinfra.config.host_types import CpuQuota, MemoryBound
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings


class TempoSettings(Settings):
    """Settings of the `tempo` role. Retention stands with the tenants."""

    port: Port
    grpc_port: Port
    otlp_grpc_port: Port
    otlp_http_port: Port
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
TEMPO: Final = Section("tempo", TempoSettings)
#: Pages that tell what it was configured with, and the limits of all tenants.
CONFIG_PAGE: Final = "/status/config"
OVERRIDES_PAGE: Final = "/status/runtime_config"
