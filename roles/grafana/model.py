"""Typed settings of the `grafana` role (OB-14)."""

from __future__ import annotations

from typing import Final

from rtinfra.config.host_types import CpuQuota, MemoryBound
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SecretName, Settings


class GrafanaSettings(Settings):
    """Settings of the `grafana` role."""

    port: Port
    admin_password_secret: SecretName
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
GRAFANA: Final = Section("grafana", GrafanaSettings)
