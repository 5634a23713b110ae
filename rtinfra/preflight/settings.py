"""Typed settings of the preflight: what is checked, how slow is too slow, where results go.

A check whose section is null (or whose list is empty) does not run. Values of secrets are never here, only names.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rtinfra.config.host_types import Moment
from rtinfra.config.types import (
    AbsolutePath,
    CpuListText,
    SecretName,
    SettingError,
    Settings,
    UnitName,
    Url,
    without_password,
)
from rtinfra.notify.settings import Conninfo, NotifySettings

#: Where a host has its settings and secrets.
CONFIGURATION: Final = "/etc/rtinfra/preflight"

Environment = Literal["paper", "staging", "prod"]
"""What the host is part of. A plain word on purpose: it is a label of metrics, and an enum would show as its repr."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise SettingError(f"is not a regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class VariableSettings(Settings):
    """An environment variable that must be set; its value is never shown."""

    name: VariableName
    pattern: Pattern | None = Field(default=None, description="the whole value must match it")


class GuardSettings(Settings):
    """A safety switch: where it is, and what it must say in each environment; null where it does not matter."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9 _-]{0,40}$")
    variable: VariableName | None = None
    file: AbsolutePath | None = None
    paper: str | None = None
    staging: str | None = None
    prod: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.variable is None) == (self.file is None):
            raise SettingError("needs either variable or file: that is where the switch is")
        return self


class RedisSettings(Settings):
    """A Redis server; the check connects and asks PING."""

    url: Annotated[str, AfterValidator(without_password)] = Field(
        pattern=r"^(rediss?|unix)://[^@\s]+$", description="without user name and password"
    )
    username: str | None = None
    password_secret: SecretName | None = None
    slow: Moment = Field(description="a slower answer is a warning")


class PostgresSettings(Settings):
    """A PostgreSQL server; the check connects and asks SELECT 1."""

    conninfo: Conninfo
    password_secret: SecretName | None = None
    slow: Moment = Field(description="a slower answer is a warning")


class ApiSettings(Settings):
    """An HTTP service that must be well."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    url: Url
    status: int = Field(default=200, ge=100, le=599)
    token_secret: SecretName | None = Field(default=None, description="sent as a bearer token")
    ca_file: AbsolutePath | None = Field(default=None, description="certificate authority of an https URL")
    slow: Moment


class ApplicationSettings(Settings):
    """How the application itself says that it is ready: an address or a program; neither: it is not asked."""

    url: Url | None
    command: tuple[str, ...]
    slow: Moment

    @model_validator(mode="after")
    def _one_hook(self) -> Self:
        if self.url is not None and self.command:
            raise SettingError("has both url and command", "keep one of them")
        if self.command and not PurePosixPath(self.command[0]).is_absolute():
            raise SettingError("command must begin with the absolute path of a program")
        return self


class RealtimeSettings(Settings):
    """What makes a real-time host one, as the kernel sees it."""

    housekeeping: CpuListText | None = Field(description="cores that are not isolated; all others must be")
    units: tuple[UnitName, ...]


class EvidenceSettings(Settings):
    """Files kept for every run."""

    keep: int = Field(ge=1, le=100_000, description="runs kept")


class CheckSettings(Settings):
    """What is looked at. Null or empty: that check does not run."""

    variables: tuple[VariableSettings, ...]
    required_secrets: tuple[SecretName, ...]
    guards: tuple[GuardSettings, ...]
    redis: RedisSettings | None
    postgres: PostgresSettings | None
    apis: tuple[ApiSettings, ...]
    application: ApplicationSettings
    deployed_tree: AbsolutePath | None = Field(description="git work tree the application is deployed from")
    realtime: RealtimeSettings | None

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (("apis", [api.name for api in self.apis]), ("guards", [one.name for one in self.guards])):
            if len(set(names)) < len(names):
                raise SettingError(f"{what} has a name twice")
        return self


class ChosenSettings(Settings):
    """What people decide about the preflight, wherever it runs."""

    environment: Environment | None = Field(description="null: as the host's telemetry says")
    namespace: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$", description="metrics begin with it")
    timeout: Moment = Field(description="a check that takes longer has failed")
    state_directory: AbsolutePath
    evidence: EvidenceSettings
    checks: CheckSettings
    notify: NotifySettings


class PreflightSettings(ChosenSettings):
    """Settings of the preflight on one computer: the same, and where node_exporter of it looks for metrics."""

    environment: Environment

    textfile_directory: AbsolutePath
