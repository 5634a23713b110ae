"""Typed settings of notifications: which channels there are, where they answer, which secrets they need."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from rtinfra.config.host_types import Moment, Tolerance
from rtinfra.config.types import SecretName, SettingError, Settings, Url

BaseUrl = Annotated[Url, AfterValidator(lambda url: url.rstrip("/"))]
"""Where an API answers: scheme, host, perhaps a port and a path. On a closed network it is the operator's own relay."""


_PAIRS = re.compile(r"\s*(?:\w+\s*=\s*(?:'(?:[^'\\]|\\.)*'|[^\s']+)(?:\s+|$))+")


def _conninfo(text: str) -> str:
    if re.search(r"pass(word|file)\s*=", text, re.IGNORECASE) or "://" in text:
        raise SettingError(
            "must be of the form keyword=value, without a password",
            "write for example host=127.0.0.1 port=5432 dbname=app user=preflight, and the secret's name apart",
        )
    if not _PAIRS.fullmatch(text):
        # libpq would quote the word that is no pair, in a message that goes to people.
        raise SettingError(
            "must be of the form keyword=value, word by word", "put a value with blanks in single quotes"
        )
    return text


Conninfo = Annotated[str, Field(pattern=r"^\w+\s*=.+$"), AfterValidator(_conninfo)]
"""Where a PostgreSQL answers, libpq's keyword=value notation."""


class WebhookSettings(Settings):
    """A channel whose whole address is a secret: Slack, Microsoft Teams, a program of one's own."""

    url_secret: SecretName


class TelegramSettings(Settings):
    """A Telegram bot."""

    token_secret: SecretName
    chat_id: int
    api_url: BaseUrl = "https://api.telegram.org"


class OnCallSettings(Settings):
    """An on-call service that speaks OpsGenie's protocol; it hears of failures (P0) only."""

    key_secret: SecretName
    api_url: BaseUrl


class RecordSettings(Settings):
    """The PostgreSQL data base in which every notification is written down."""

    conninfo: Conninfo
    password_secret: SecretName | None = None


class NotifySettings(Settings):
    """Settings of notifications."""

    p1_interval: Tolerance
    timeout: Moment
    attempts: int = Field(ge=1, le=10)
    runbooks_url: BaseUrl | None
    telegram: TelegramSettings | None
    slack: WebhookSettings | None
    teams: WebhookSettings | None
    on_call: OnCallSettings | None
    webhook: WebhookSettings | None
    record: RecordSettings | None
