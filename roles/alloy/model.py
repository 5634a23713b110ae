"""Typed settings of the `alloy` role (OB-7)."""

from __future__ import annotations

from pydantic import Field

from rtinfra.config.types import ByteSize, Duration, Port, Settings


class AlloySettings(Settings):
    """Settings of the `alloy` role."""

    grpc_port: Port
    http_port: Port
    ui_port: Port
    memory_limit_mb: int = Field(ge=50)
    memory_spike_percent: int = Field(ge=1, le=100)
    retry_initial: Duration
    retry_max: Duration
    retry_total: Duration
    memory_max: ByteSize
    cpu_quota: str = Field(pattern=r"^[1-9][0-9]*%$")
