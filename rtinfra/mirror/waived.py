"""Weaknesses that may stay until a day, because somebody answers for it. The file is audit-waivers.yaml."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, field_validator

from rtinfra.config.document import load_document
from rtinfra.config.types import SettingError, Settings
from rtinfra.mirror.ecosystems import PYPI, normalised

#: Name of the file in the project folder.
WAIVERS: Final = "audit-waivers.yaml"

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]


class Waiver(Settings):
    """One weakness of one package. `expires` is the last day on which it counts, by this computer's calendar."""

    weakness: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]*$", description="any of its names: CVE, GHSA, DSA ...")
    package: str = Field(min_length=1, description="as the audit names it")
    owner: _Text
    reason: _Text
    expires: date

    @field_validator("expires", mode="before")
    @classmethod
    def _is_a_day(cls, value: Any) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(str(value))
        except ValueError as error:
            raise SettingError("is not a day of the calendar", "write it as 2026-12-31") from error

    def covers(self, package: str, names: Collection[str]) -> bool:
        """Tell whether it is about this weakness of this package."""
        return self.weakness in names and package in (self.package, normalised(PYPI, self.package))


class _File(Settings):
    waivers: tuple[Waiver, ...] = ()


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read the file; one that does not exist has none.

    Raises:
        ConfigError: it is not what its head says, with file and line.
    """
    if not path.exists():
        return ()
    return load_document(_File, path, path.name).waivers
