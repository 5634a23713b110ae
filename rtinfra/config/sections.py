"""Sections of a host's settings as typed keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rtinfra.config.types import Settings

S = TypeVar("S", bound=Settings)
S_co = TypeVar("S_co", bound=Settings, covariant=True)

#: The group that every host is in.
EVERY_HOST: Final = "all"


@dataclass(frozen=True)
class Section(Generic[S_co]):
    """One section of a host's settings: its name in YAML, its model, and the group whose hosts have it.

    It is the typed key to those settings: `config[GRAFANA]` is a `GrafanaSettings`, and who renames a setting hears of
    it from the type checker wherever it is used.
    """

    name: str
    model: type[S_co]
    in_group: str = ""
    """The group when it is called otherwise than the section."""

    @property
    def group(self) -> str:
        """Group whose hosts have the section; `all` for every host."""
        return self.in_group or self.name
