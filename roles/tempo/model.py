"""Typed settings of the `tempo` role (OB-9)."""

from __future__ import annotations

from pydantic import Field

from rtinfra.config.types import ByteSize, Port, Settings


class TempoSettings(Settings):
    """Settings of the `tempo` role. Retention stands with the tenants."""

    port: Port
    grpc_port: Port
    otlp_grpc_port: Port
    otlp_http_port: Port
    memory_max: ByteSize
    cpu_quota: str = Field(pattern=r"^[1-9][0-9]*%$")
