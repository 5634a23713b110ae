"""Small words for Grafana's dashboard JSON: panels, rows and a layout that flows from left to right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Colour = Literal["green", "orange", "red", "blue"]
#: Width of a dashboard in Grafana's units.
WIDTH = 24


@dataclass(frozen=True)
class Query:
    """PromQL and what its lines are called; `{{label}}` in the legend is a label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel. `steps` are thresholds, each colour from its value on; the first begins at minus infinity."""

    kind: Literal["stat", "timeseries", "bargauge"]
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    steps: tuple[tuple[float | None, Colour], ...] = ((None, "green"),)
    texts: Mapping[str, tuple[str, Colour]] = field(default_factory=dict)
    width: int
    height: int
    stacked: bool = False
    decimals: int | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A dashboard on one datasource of the type prometheus."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    datasource: str
    # Variables: name, what it is called, query for its values.
    choices: tuple[tuple[str, str, str], ...] = ()

    @property
    def panels(self) -> Iterator[Panel]:
        """Every panel."""
        for row in self.rows:
            yield from row.panels


GOOD_WHEN_ZERO: tuple[tuple[float | None, Colour], ...] = ((None, "green"), (1, "red"))


def answer(title: str, description: str, expression: str, unit: str = "short", **more: Any) -> Panel:
    """Return a big number that is coloured by its thresholds: an answer to "is all well?"."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        queries=(Query(expression),),
        unit=unit,
        width=more.pop("width", 4),
        height=4,
        **more,
    )


def graph(title: str, description: str, *queries: Query, unit: str = "short", width: int = 12, **more: Any) -> Panel:
    """Return a graph over time."""
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        queries=queries,
        unit=unit,
        width=width,
        height=8,
        **more,
    )


def bars(title: str, description: str, query: Query, unit: str = "short", width: int = 12, **more: Any) -> Panel:
    """Return one bar for each line of the query's result, as it is now."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        queries=(query,),
        unit=unit,
        width=width,
        height=8,
        **more,
    )


def to_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it. Ids are counted in the order of panels: the same input, the same file."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["rtinfra"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "title": "Dashboards",
                "type": "dashboards",
                "tags": ["rtinfra"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_choice(dashboard, *choice) for choice in dashboard.choices]},
        "annotations": {"list": []},
        "panels": list(_panels(dashboard)),
    }


def _choice(dashboard: Dashboard, name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _source(dashboard.datasource),
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _source(uid: str) -> dict[str, str]:
    return {"type": "prometheus", "uid": uid}


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number = y = 0
    for row in dashboard.rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            number += 1
            position = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            yield _panel(panel, number, position, dashboard.datasource)
            x, height = x + panel.width, max(height, panel.height)
        y += height


def _panel(panel: Panel, number: int, position: dict[str, int], datasource: str) -> dict[str, Any]:
    now = panel.kind != "timeseries"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": position,
        "datasource": _source(datasource),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _source(datasource),
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "instant": now,
                "range": not now,
                "exemplar": not now,
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        },
        "mappings": _mappings(panel.texts),
    }
    if panel.decimals is not None:
        found["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        found["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            # A limit is drawn where there is one.
            "thresholdsStyle": {"mode": "line" if len(panel.steps) > 1 else "off"},
        }
    return found


def _mappings(texts: Mapping[str, tuple[str, Colour]]) -> Sequence[dict[str, Any]]:
    if not texts:
        return []
    options = {
        value: {"text": text, "color": colour, "index": i} for i, (value, (text, colour)) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


def _options(panel: Panel) -> dict[str, Any]:
    last = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    match panel.kind:
        case "stat":
            return {**last, "colorMode": "background", "graphMode": "none", "textMode": "auto", "justifyMode": "center"}
        case "bargauge":
            return {**last, "orientation": "horizontal", "displayMode": "basic"}
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
