"""Typed settings of the `prometheus` role (OB-13, AL-2)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, Interval, MemoryBound, Retention, Tolerance
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings


class PrometheusSettings(Settings):
    """Settings of the `prometheus` role."""

    port: Port
    retention: Retention
    scrape_interval: Interval
    evaluation_interval: Interval
    out_of_order_window: Tolerance = Field(description="samples this much late are accepted; the longest outage")
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
PROMETHEUS: Final = Section("prometheus", PrometheusSettings)
#: Pages that tell what it was started and configured with, what it scrapes, and what its rules say.
FLAGS_PAGE: Final = "/api/v1/status/flags"
CONFIG_PAGE: Final = "/api/v1/status/config"
TARGETS_PAGE: Final = "/api/v1/targets?state=active"
RULES_PAGE: Final = "/api/v1/rules"
#: How many hosts, and how many control loops, it has measurements of.
HOSTS_SEEN: Final = "count(node_uname_info)"
LOOPS_SEEN: Final = "count(mxrc_rt_cycle_count_total)"


def query(expression: str) -> str:
    """Return the path that asks it for the value of an expression."""
    return f"/api/v1/query?query={quote(expression)}"
