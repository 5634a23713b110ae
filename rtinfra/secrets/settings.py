"""Typed settings of where secrets are kept: the file secrets.yaml of the project folder, which holds none itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rtinfra.config.types import SecretName, Settings, Url


class AgeSettings(Settings):
    """A file encrypted with age."""

    file: Path
    identity: Path


class InfisicalSettings(Settings):
    """A self-hosted manager with Infisical's API. Its own two credentials come from environment, files or age."""

    url: Url = Field(pattern=r"[^/]$", description="without a slash at the end")
    project: str = Field(pattern=r"^[\w-]+$", description="id of the project")
    environment: str | None = Field(
        pattern=r"^[\w-]+$", description="slug of the environment; null: named as the host's telemetry.environment"
    )
    path: str = Field(pattern=r"^/\S*$")
    client_id_secret: SecretName
    client_secret_secret: SecretName
    ca_file: Path | None


class SecretSources(Settings):
    """Where secrets are looked for, after environment and files; null: not there."""

    age: AgeSettings | None
    infisical: InfisicalSettings | None
