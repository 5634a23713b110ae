"""Typed settings of the `alertmanager` role (AL-1, AL-3)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from rtinfra.config.host_types import CpuQuota, MemoryBound, Tolerance
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings, Url

_NAME = r"^[a-z][a-z0-9_-]*$"


class ChannelSettings(Settings):
    """A channel whose whole address is a secret: a webhook."""

    url_secret: str = Field(pattern=_NAME, description="name of the secret with the webhook's URL")


class SlackSettings(ChannelSettings):
    """Slack."""

    channel: str = Field(pattern=r"^#[\w-]+$")


class TelegramSettings(Settings):
    """Telegram."""

    token_secret: str = Field(pattern=_NAME, description="name of the secret with the bot's token")
    chat_id: int
    api_url: Url


class EscalationSettings(Settings):
    """An on-call service that can send text messages; called when an alert is still firing after a while."""

    key_secret: str = Field(pattern=_NAME, description="name of the secret with the API key")
    api_url: Url
    after: Tolerance


class AlertmanagerSettings(Settings):
    """Settings of the `alertmanager` role."""

    port: Port
    cluster_port: Port
    log_port: Port = Field(description="the alert log: webhook receiver and runbook pages")
    log_file_mb: int = Field(ge=1, description="the alert log's file is put aside at this size")
    log_files: int = Field(ge=1, description="files put aside that are kept")
    p1_interval: Tolerance = Field(description="warnings are sent at most this often")
    teams: ChannelSettings | None
    slack: SlackSettings | None
    telegram: TelegramSettings | None
    webhook: ChannelSettings | None
    escalation: EscalationSettings | None
    memory_max: MemoryBound
    cpu_quota: CpuQuota


#: Key to the settings of this role.
ALERTMANAGER: Final = Section("alertmanager", AlertmanagerSettings)
#: Pages that tell its configuration and its cluster, the alerts it has, and what the alert log counted.
STATUS_PAGE: Final = "/api/v2/status"
ALERTS_PAGE: Final = "/api/v2/alerts"
LOG_METRICS_PAGE: Final = "/metrics"
