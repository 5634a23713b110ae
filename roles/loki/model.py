"""Typed settings of the `loki` role (OB-8)."""

from __future__ import annotations

from typing import Final

from rtinfra.config.host_types import CpuQuota, MemoryBound
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings


class LokiSettings(Settings):
    """Settings of the `loki` role. Retention stands with the tenants."""

    port: Port
    grpc_port: Port
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
LOKI: Final = Section("loki", LokiSettings)
#: Pages that tell what it was configured with, and the limits of the tenant that asks.
CONFIG_PAGE: Final = "/config"
LIMITS_PAGE: Final = "/config/tenant/v1/limits"
