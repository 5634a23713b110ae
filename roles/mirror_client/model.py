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
SOURCE: Final = "/etc/apt/sources.list.d/rtinfra.sources"
KEY: Final = "/etc/apt/keyrings/rtinfra-mirror.asc"
# The last of its folder by name: what others have set there must not weaken it, apt.conf(5).
APT_CONFIGURATION: Final = "/etc/apt/apt.conf.d/zz-rtinfra-mirror"
PREFERENCES: Final = "/etc/apt/preferences.d/60-rtinfra-mirror"
AUTHORITY: Final = "/etc/rtinfra/mirror-ca.crt"
PIP: Final = "/etc/pip.conf"
REGISTRIES: Final = "/etc/containers/registries.conf.d/60-rtinfra-mirror.conf"
IMAGE_POLICY: Final = "/etc/containers/policy.json"
#: What others may have a file of their own at.
REPLACED: Final = (PIP, IMAGE_POLICY)
#: Where images of the mirror are said to be from, and where they are on it.
IMAGES: Final = "localhost/rtinfra"
REPOSITORY: Final = "rtinfra"
#: apt prefers packages of the mirror even when a newer version is installed, apt_preferences(5).
PRIORITY: Final = 1001
