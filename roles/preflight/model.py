"""Typed settings of the `preflight` role (PF-1 to PF-5): those of the preflight itself, and how it runs on a host."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from roles.shared import ENVIRONMENTS
from rtinfra.config.host_types import Interval, MemoryBound, OwnFolder, PackageName
from rtinfra.config.sections import Section
from rtinfra.config.types import AbsolutePath
from rtinfra.preflight import settings


class PreflightSettings(settings.ChosenSettings):
    """Settings of the `preflight` role."""

    state_directory: OwnFolder
    packages: tuple[PackageName, ...]
    interval: Interval
    memory_max: MemoryBound
    environment_file: AbsolutePath | None = Field(description="file with variables of the application")
    wheels: Literal["carried", "index"] = Field(description="where the host's Python packages come from")

    def environment_in(self, telemetry: str) -> settings.Environment:
        """Return the environment of a preflight on a host of that `telemetry.environment`."""
        return self.environment or ENVIRONMENTS[telemetry].preflight

    def on_host(
        self,
        environment: settings.Environment,
        textfiles: str,
        housekeeping: str | None,
        ready_url: str | None,
        runbooks_url: str | None,
    ) -> settings.PreflightSettings:
        """Return what the program on the host gets: without what is the role's, with what only the fleet knows.

        `textfiles` is where node_exporter looks for metrics in files; `housekeeping` are the cores of a real-time host
        that are not isolated, None elsewhere; `ready_url` is where the application of this project would answer,
        `runbooks_url` where the pages are.
        """
        own: dict[str, Any] = {name: getattr(self, name) for name in settings.ChosenSettings.model_fields}
        realtime = self.checks.realtime
        if realtime is not None:
            kept = realtime.housekeeping or housekeeping
            realtime = realtime.model_copy(update={"housekeeping": kept}) if housekeeping is not None else None
        application = self.checks.application
        if application.url is None and not application.command:
            application = application.model_copy(update={"url": ready_url})
        own["environment"] = environment
        own["checks"] = self.checks.model_copy(update={"realtime": realtime, "application": application})
        own["notify"] = self.notify.model_copy(update={"runbooks_url": self.notify.runbooks_url or runbooks_url})
        return settings.PreflightSettings(**own, textfile_directory=textfiles)


#: Key to the settings of this role.
PREFLIGHT: Final = Section("preflight", PreflightSettings)
