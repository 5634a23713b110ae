"""Typed settings of the `jaeger` role (OB-4)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, MemoryBound, Retention
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings


class JaegerSettings(Settings):
    """Settings of the `jaeger` role."""

    ui_port: Port
    grpc_port: Port
    http_port: Port
    query_grpc_port: Port
    health_port: Port
    metrics_port: Port
    retention: Retention
    sync_writes: bool = Field(description="a span is on the disk before it is acknowledged")
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
JAEGER: Final = Section("jaeger", JaegerSettings)
#: Span of the control loop's cycles, about one a second.
CYCLE_SPAN: Final = "rt.cycle"


def operations(service: str) -> str:
    """Return the path at which it lists the operations of a service."""
    return f"/api/services/{quote(service, safe='')}/operations"
