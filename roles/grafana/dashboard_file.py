"""A dashboard as it is written in metrics/dashboards/: typed; every error with its file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rtinfra.config.document import load_document
from rtinfra.config.explain import did_you_mean
from rtinfra.config.types import SettingError, Settings
from rtinfra.limits import NUMBERS, check_places
from rtinfra.metric_catalogue import metric_names
from rtinfra.paths import PROJECT

DASHBOARDS: Final = PROJECT / "metrics" / "dashboards"
#: Width of a dashboard in Grafana's units.
WIDTH: Final = 24

T = TypeVar("T")
Kind = Literal["number", "graph", "bars"]
Colour = Literal["green", "orange", "red", "blue"]
# A panel's width unless told.
_WIDTHS: Final[dict[Kind, int]] = {"number": 4, "graph": 12, "bars": 12}


def _expression(text: str) -> str:
    try:
        metric_names(check_places(text))
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError(f"is not PromQL: {error}") from None
    return text


def _threshold(value: object) -> object:
    if value not in (None, *NUMBERS) and not (type(value) is int and value == 1):
        reason = "must be the name of a limit in metrics/limits.yaml, 1, or null"
        raise SettingError(reason, did_you_mean(str(value), sorted(NUMBERS), "some are"))
    return value


def _not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    if not items:
        raise SettingError("is empty", "write at least one")
    return items


# min_length would count entries with a mistake as missing.
Several = Annotated[tuple[T, ...], AfterValidator(_not_empty)]
"""A list with at least one entry."""

Text = Annotated[str, AfterValidator(check_places)]
"""A text for people; `[[limit:form]]` in it is a limit (rtinfra.limits)."""

Expression = Annotated[str, AfterValidator(_expression)]
"""PromQL; `[[limit]]` in it is a limit, `$host` and `$env` are choices of the dashboard."""

Threshold = Annotated[int | str | None, BeforeValidator(_threshold)]
"""From where a colour holds: a limit by its name; 1 for what is counted, or is yes or no; null for the first colour."""


class Query(Settings):
    """A query, and what its lines are called."""

    expression: Expression = Field(description="PromQL")
    legend: str = Field(default="", description="name of a line; {{label}} is the value of a label")


class Panel(Settings):
    """A panel."""

    title: str = Field(max_length=32, description="a few words")
    description: Text = Field(pattern=r"\.$", description="what it shows, in sentences for people outside IT")
    kind: Kind = Field(description="number: is all well? in colours; graph: over time; bars: one for each line, now")
    queries: Several[Query] = Field(description="what is shown; one for a number and for bars")
    unit: str = Field(default="short", description="Grafana's name of the unit, such as s, bytes or percentunit")
    steps: dict[Colour, Threshold] = Field(
        default={"green": None}, min_length=1, description="colours, each from its threshold on, upwards"
    )
    texts: dict[str, tuple[str, Colour]] = Field(default={}, description="text and colour shown instead of a value")
    decimals: int | None = Field(default=None, ge=0, description="digits after the point; null: as Grafana likes")
    stacked: bool = Field(default=False, description="whether lines of a graph are laid on one another")
    width: int | None = Field(default=None, ge=1, le=WIDTH, description="of 24; null: 4 for a number, 12 for others")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        first, *others = self.steps.values()
        if first is not None or None in others:
            raise SettingError("the first colour of steps, and no other, has the threshold null")
        if self.kind != "graph" and len(self.queries) > 1:
            raise SettingError("only a graph has several queries", "make a panel of each")
        return self

    @property
    def columns(self) -> int:
        """Width in Grafana's units."""
        return self.width or _WIDTHS[self.kind]


class Row(Settings):
    """Panels under a heading, from left to right."""

    title: str = Field(description="the heading")
    panels: Several[Panel]


class Choice(Settings):
    """A variable that people choose above the panels."""

    name: str = Field(pattern=r"^[a-z]+$", description="what expressions call it, after a $")
    label: str = Field(description="what people call it")
    query: str = Field(description="Grafana's query for its values")


class DashboardFile(Settings):
    """A dashboard."""

    uid: str = Field(pattern=r"^rtinfra-[a-z-]+$", description="fixed name; links contain it")
    title: str
    description: Text = Field(description="what question it answers")
    metrics: Literal["own", "monitoring"] = Field(
        description="whose metrics: those of the tenant that the fleet belongs to, or those of the monitoring itself"
    )
    choices: tuple[Choice, ...] = ()
    rows: Several[Row]


def load_dashboard(path: Path) -> DashboardFile:
    """Read a dashboard.

    Raises:
        ConfigError: it cannot be read or is wrong; every problem with its line.
    """
    shown = str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
    return load_document(DashboardFile, path, shown)
