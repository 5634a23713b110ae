"""Typed settings of the `mimir` role (OB-10)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, Interval, MemoryBound, Tolerance
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings


class MimirSettings(Settings):
    """Settings of the `mimir` role. Retention and limits stand with the tenants."""

    port: Port
    grpc_port: Port
    memberlist_port: Port
    ruler_interval: Interval
    out_of_order_window: Tolerance
    exemplars: int = Field(ge=0, description="kept at a time for each tenant; 0 switches them off")
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
MIMIR: Final = Section("mimir", MimirSettings)
#: Pages that tell what it was configured with, and the limits of all tenants.
CONFIG_PAGE: Final = "/config"
RUNTIME_CONFIG_PAGE: Final = "/runtime_config"
