"""Typed settings of the `kibana` role (OB-3)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, MemoryBound
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SecretName, Settings


class KibanaSettings(Settings):
    """Settings of the `kibana` role."""

    port: Port
    password_secret: SecretName = Field(description="secret: password of the user kibana_system")
    encryption_key_secret: SecretName = Field(description="secret: 32 characters or more")
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
KIBANA: Final = Section("kibana", KibanaSettings)
