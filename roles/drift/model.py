"""Typed settings of the `drift` role (L-5)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from roles.shared import TEXTFILE_DIRECTORY
from rtinfra.config.host_types import PackageName
from rtinfra.config.sections import EVERY_HOST, Section
from rtinfra.config.types import Settings


class DriftSettings(Settings):
    """Settings of the `drift` role."""

    enabled: bool = Field(description="whether the host checks itself")
    packages: tuple[PackageName, ...] = Field(description="Debian packages that the checker needs")
    at: str = Field(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="time of day of the check, by the host's clock"
    )


#: Key to the settings of this role.
DRIFT: Final = Section("drift", DriftSettings, EVERY_HOST)
SERVICE: Final = "rtinfra-drift.service"
TIMER: Final = "rtinfra-drift.timer"
#: Where the host keeps what is expected, and what it found last.
STATE: Final = "/var/lib/rtinfra/drift"
RESULT: Final = f"{STATE}/result.json"
EXPECTED: Final = f"{STATE}/expected.json"
METRICS: Final = f"{TEXTFILE_DIRECTORY}/rtinfra_drift.prom"
