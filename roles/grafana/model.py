"""Typed settings of the `grafana` role (OB-14)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.sections import Section
from rtinfra.config.types import ByteSize, Port, SecretName, Settings


class GrafanaSettings(Settings):
    """Settings of the `grafana` role."""

    port: Port
    admin_password_secret: SecretName
    memory_max: ByteSize
    cpu_quota: str = Field(pattern=r"^[1-9][0-9]*%$")


#: Key to the settings of this role.
GRAFANA: Final = Section("grafana", GrafanaSettings)
