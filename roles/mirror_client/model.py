"""Typed settings of the `mirror_client` role (OF-1)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.sections import Section
from rtinfra.config.types import Settings


class MirrorClientSettings(Settings):
    """Settings of the `mirror_client` role."""

    enabled: bool = Field(description="false: what was configured before the mirror is back")
    server: str | None = Field(description="name of the host of the group mirror_server; null: the only one")
    follow: bool = Field(description="whether installed packages are brought to the versions of the live release")
    warn_days: int = Field(ge=1, description="the live release has to be valid for at least this many days")


#: Key to the settings of this role.
MIRROR_CLIENT: Final = Section("mirror_client", MirrorClientSettings)
