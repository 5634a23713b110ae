"""Typed settings of the `drift` role (L-5)."""

from __future__ import annotations

from pydantic import Field

from rtinfra.config.types import Settings


class DriftSettings(Settings):
    """Settings of the `drift` role."""

    enabled: bool = Field(description="whether the host checks itself")
    packages: tuple[str, ...] = Field(description="Debian packages that the checker needs")
    at: str = Field(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="time of day of the check, by the host's clock"
    )
