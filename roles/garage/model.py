"""Typed settings of the `garage` role (OB-12)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, DiskSize, MemoryBound
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SecretName, Settings


class GarageSettings(Settings):
    """Settings of the `garage` role."""

    s3_port: Port
    rpc_port: Port
    admin_port: Port
    region: str = Field(pattern=r"^[a-z0-9-]+$", description="S3 region; clients sign their requests with it")
    rpc_secret: SecretName = Field(description="secret: 64 hex digits, shared by all nodes")
    admin_token_secret: SecretName
    s3_key_id_secret: SecretName = Field(description="secret: id of the backends' key, GK and 24 hex digits")
    s3_key_secret: SecretName = Field(description="secret: that key, 64 hex digits")
    capacity: DiskSize = Field(description="space each node gives to the cluster")
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
GARAGE: Final = Section("garage", GarageSettings)
