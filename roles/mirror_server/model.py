"""Typed settings of the `mirror_server` role (OF-1)."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from rtinfra.config.host_types import OwnFolder, PackageName
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, SettingError, Settings

#: An IP address or a DNS name, as it may stand in a certificate.
CertificateName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$")]


class CertificateSettings(Settings):
    """The mirror's own certificate authority, and the server certificate it signs."""

    ca_days: int = Field(ge=1, le=36500)
    server_days: int = Field(ge=1, le=36500)
    renew_days: int = Field(ge=1, description="made anew by a deploy when it ends within this many days")
    names: tuple[CertificateName, ...] = Field(description="names and addresses besides the host's own")

    @model_validator(mode="after")
    def _last_longer_than_their_renewal(self) -> Self:
        for name in ("ca_days", "server_days"):
            if getattr(self, name) <= self.renew_days:
                raise SettingError(
                    f"{name} is {getattr(self, name)}, not more than renew_days {self.renew_days}:"
                    " every deploy would make a new certificate"
                )
        return self


class MirrorServerSettings(Settings):
    """Settings of the `mirror_server` role."""

    packages: tuple[PackageName, ...]
    directory: OwnFolder = Field(description="the mirror's folder on the host")
    port: Port = Field(description="HTTPS; there is no other way in")
    registry_port: Port = Field(description="of the image registry, on loopback only")
    certificate: CertificateSettings


#: Key to the settings of this role.
MIRROR_SERVER: Final = Section("mirror_server", MirrorServerSettings)
#: What serves files, and what serves images.
WEB_UNIT: Final = "nginx.service"
REGISTRY_UNIT: Final = "docker-registry.service"
