"""Typed settings of the `elasticsearch` role (OB-2)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, MemoryBound, Moment
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SecretName, Settings


class TransportTlsSettings(Settings):
    """Certificates with which members of a cluster recognise each other, PEM, made by the operator's own authority."""

    ca_secret: SecretName = Field(description="secret: certificate of the authority")
    certificate_secret: SecretName = Field(description="secret: certificate for all members")
    key_secret: SecretName = Field(description="secret: its key, without a passphrase")


class ElasticsearchSettings(Settings):
    """Settings of the `elasticsearch` role."""

    port: Port
    transport_port: Port
    heap_mb: int = Field(ge=256)
    password_secret: SecretName = Field(description="secret: password of the user elastic")
    reader_password_secret: SecretName = Field(
        description="secret: password of the user that may only read logs; Grafana uses it"
    )
    writer_password_secret: SecretName = Field(
        description="secret: password of the user that may only add records to the tenants' indices; gateways use it"
    )
    transport_tls: TransportTlsSettings | None = Field(description="needed with several members")
    refresh_interval: Moment
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
ELASTICSEARCH: Final = Section("elasticsearch", ElasticsearchSettings)
#: Index template, lifecycle policy and prefix of the indices of the application's logs (OB-1, OB-2).
LOG_INDEX: Final = "mxrc-logs"
#: User that may only read logs.
READER: Final = "rtinfra-reader"
#: User that may only add records to the indices of the tenants, and the role that says so.
WRITER: Final = "rtinfra-gateways"
