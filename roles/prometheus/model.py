"""Typed settings of the `prometheus` role (OB-13, AL-2)."""

from __future__ import annotations

from pydantic import Field

from rtinfra.config.types import ByteSize, Duration, Port, Settings


class PrometheusSettings(Settings):
    """Settings of the `prometheus` role."""

    port: Port
    retention: Duration
    scrape_interval: Duration
    evaluation_interval: Duration
    out_of_order_window: Duration = Field(description="samples this much late are accepted; the longest outage")
    memory_max: ByteSize
    cpu_quota: str = Field(pattern=r"^[1-9][0-9]*%$")
