"""Waivers: controls that may fail until a day, because somebody answers for it. The file is waivers.yaml."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, ValidationError, field_validator

from rtinfra.config import ConfigError, Problem
from rtinfra.config.explain import did_you_mean, explain
from rtinfra.config.merge import Place, nearest_place
from rtinfra.config.types import SettingError, Settings
from rtinfra.config.yaml import load_yaml
from rtinfra.paths import PROJECT

WAIVERS: Final = PROJECT / "waivers.yaml"
_ALL: Final = "all"

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]


class Waiver(Settings):
    """One exception. `expires` is the last day on which it counts, by this computer's calendar."""

    control: str
    hosts: tuple[str, ...] = Field(min_length=1)
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

    def covers(self, control: str, host: str) -> bool:
        """Tell whether it is about this control on this host."""
        return control == self.control and (_ALL in self.hosts or host in self.hosts)

    def has_expired(self, today: date) -> bool:
        """Tell whether its last day has passed."""
        return today > self.expires


class _File(Settings):
    waivers: tuple[Waiver, ...] = ()


@dataclass(frozen=True)
class Waivers:
    """All waivers of a file, with the place where each was written."""

    entries: tuple[Waiver, ...] = ()
    places: Mapping[str, Place] | None = None

    def of(self, control: str, host: str) -> Waiver | None:
        """Return the waiver of a control on a host."""
        return next((entry for entry in self.entries if entry.covers(control, host)), None)

    def place(self, waiver: Waiver) -> str:
        """Return `file:line` of a waiver."""
        return str(nearest_place(self.places or {}, f"waivers.{self.entries.index(waiver)}"))

    def check(self, hosts: Collection[str], controls: Collection[str]) -> None:
        """Refuse what names a control or a host that does not exist, or is written twice.

        Raises:
            ConfigError: with every mistake, each with its line and a suggestion.
        """
        problems = []
        claimed: dict[tuple[str, str], Waiver] = {}
        for index, waiver in enumerate(self.entries):
            key = f"waivers.{index}"
            if waiver.control not in controls:
                hint = did_you_mean(
                    waiver.control, sorted(controls), "`rtinfra verify` shows all controls, for example"
                )
                problems.append(self._problem(f"{key}.control", waiver.control, "is not a control", hint))
            for host in waiver.hosts:
                if host != _ALL and host not in hosts:
                    hint = did_you_mean(host, [*hosts, _ALL], "the hosts are")
                    problems.append(self._problem(f"{key}.hosts", host, "is not a host of the inventory", hint))
            for host in hosts if _ALL in waiver.hosts else waiver.hosts:
                other = claimed.setdefault((waiver.control, host), waiver)
                if other is not waiver:
                    reason = f"is already waived on {host} at {self.place(other)}"
                    problems.append(self._problem(f"{key}.control", waiver.control, reason, "remove one of the two"))
        if problems:
            raise ConfigError(problems)

    def _problem(self, key: str, value: object, reason: str, suggestion: str | None) -> Problem:
        place = nearest_place(self.places or {}, key)
        return Problem(place.file if place else None, place.line if place else None, key, value, reason, suggestion)


def load_waivers(path: Path = WAIVERS) -> Waivers:
    """Read a waivers file; one that does not exist has none.

    Raises:
        ConfigError: it is not what its head says, with file and line.
    """
    if not path.exists():
        return Waivers()
    shown = str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)
    tree = load_yaml(path, shown)
    data = tree.plain()
    places = tree.places()
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        found = ((nearest_place(places, it.key) or tree.place, it) for it in explain(error, _File, data))
        raise ConfigError(
            Problem(
                place.file if place else shown,
                place.line if place else None,
                finding.key,
                finding.value,
                finding.reason,
                finding.suggestion,
            )
            for place, finding in found
        ) from error
    return Waivers(file.waivers, places)
