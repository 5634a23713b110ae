"""Typed settings of the `alloy` role (OB-7)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, MemoryBound, Moment, Tolerance
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings


class AlloySettings(Settings):
    """Settings of the `alloy` role."""

    grpc_port: Port
    http_port: Port
    ui_port: Port
    memory_limit_mb: int = Field(ge=50)
    memory_spike_percent: int = Field(ge=1, le=100)
    retry_initial: Moment
    retry_max: Moment
    retry_total: Tolerance
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
ALLOY: Final = Section("alloy", AlloySettings)
#: Pages that tell what it counted, and the state of its components.
METRICS_PAGE: Final = "/metrics"
COMPONENTS_PAGE: Final = "/api/v0/web/components"
