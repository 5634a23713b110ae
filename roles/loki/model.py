"""Typed settings of the `loki` role (OB-8)."""

from __future__ import annotations

from pydantic import Field

from rtinfra.config.types import ByteSize, Port, Settings


class LokiSettings(Settings):
    """Settings of the `loki` role. Retention stands with the tenants."""

    port: Port
    grpc_port: Port
    memory_max: ByteSize
    cpu_quota: str = Field(pattern=r"^[1-9][0-9]*%$")
