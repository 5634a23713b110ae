"""Typed settings of the `base` role."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import AccountName, DiskSize, HostAddress, OwnAccount, PackageName, Retention
from rtinfra.config.sections import EVERY_HOST, Section
from rtinfra.config.types import Settings


class TimeSettings(Settings):
    """Clock synchronisation by chrony."""

    servers: tuple[HostAddress, ...] = Field(description="NTP servers on the closed network; may be empty")
    step_limit_seconds: float = Field(gt=0, description="step the clock at start when it is off by more")


class JournalSettings(Settings):
    """Bounds of systemd-journald on disk."""

    max_use: DiskSize = Field(description="SystemMaxUse=")
    keep_free: DiskSize = Field(description="SystemKeepFree=")
    max_retention: Retention = Field(description="MaxRetentionSec=")


class BaseSettings(Settings):
    """Settings of the `base` role."""

    packages: tuple[PackageName, ...] = Field(description="Debian packages every host has")
    time: TimeSettings
    journal: JournalSettings
    realtime_group: OwnAccount = Field(description="members may use real-time priorities and lock memory")
    realtime_members: tuple[AccountName, ...] = Field(description="login users added to the real-time group")


#: Key to the settings of this role.
BASE: Final = Section("base", BaseSettings, EVERY_HOST)
