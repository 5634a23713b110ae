"""Grafana's dashboard JSON: what is written in metrics/dashboards/, in a layout that flows from left to right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from roles.grafana.dashboard_file import WIDTH, Choice, Colour, DashboardFile, Kind, Panel, Threshold
from rtinfra.limits import Limits, filled, number

# Grafana's names of the kinds.
_TYPES: Final[Mapping[Kind, str]] = {"number": "stat", "graph": "timeseries", "bars": "bargauge"}


@dataclass(frozen=True)
class Dashboard:
    """A dashboard on one datasource of the type prometheus, with the limits that its panels name."""

    written: DashboardFile
    datasource: str
    limits: Limits

    @property
    def uid(self) -> str:
        """Its fixed name."""
        return self.written.uid


def to_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it. Ids are counted in the order of panels: the same input, the same file."""
    written = dashboard.written
    return {
        "uid": written.uid,
        "title": written.title,
        "description": filled(written.description, dashboard.limits),
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
        "templating": {"list": [_choice(choice, dashboard.datasource) for choice in written.choices]},
        "annotations": {"list": []},
        "panels": list(_panels(dashboard)),
    }


def _choice(choice: Choice, datasource: str) -> dict[str, Any]:
    return {
        "name": choice.name,
        "label": choice.label,
        "type": "query",
        "datasource": _source(datasource),
        "definition": choice.query,
        "query": {"query": choice.query, "refId": choice.name},
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
    count = y = 0
    for row in dashboard.written.rows:
        count += 1
        yield {
            "id": count,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.columns > WIDTH:
                x, y, height = 0, y + height, 0
            count += 1
            position = {"x": x, "y": y, "w": panel.columns, "h": 4 if panel.kind == "number" else 8}
            yield _panel(panel, count, position, dashboard)
            x, height = x + position["w"], max(height, position["h"])
        y += height


def _panel(panel: Panel, identity: int, position: dict[str, int], dashboard: Dashboard) -> dict[str, Any]:
    now = panel.kind != "graph"
    source = _source(dashboard.datasource)
    return {
        "id": identity,
        "type": _TYPES[panel.kind],
        "title": panel.title,
        "description": filled(panel.description, dashboard.limits),
        "gridPos": position,
        "datasource": source,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": filled(query.expression, dashboard.limits),
                "legendFormat": query.legend or "__auto",
                "instant": now,
                "range": not now,
                "exemplar": not now,
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel, dashboard.limits), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel, limits: Limits) -> dict[str, Any]:
    found: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "graph" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": _value(step, limits), "color": colour} for colour, step in panel.steps.items()],
        },
        "mappings": _mappings(panel.texts),
    }
    if panel.decimals is not None:
        found["decimals"] = panel.decimals
    if panel.kind == "graph":
        found["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            # A limit is drawn where there is one.
            "thresholdsStyle": {"mode": "line" if len(panel.steps) > 1 else "off"},
        }
    return found


def _value(step: Threshold, limits: Limits) -> float | None:
    """Return where a colour begins. Whole numbers are written without a point."""
    if not isinstance(step, str):
        return step
    value = number(limits, step)
    return int(value) if value.is_integer() else value


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
        case "number":
            return {**last, "colorMode": "background", "graphMode": "none", "textMode": "auto", "justifyMode": "center"}
        case "bars":
            return {**last, "orientation": "horizontal", "displayMode": "basic"}
        case "graph":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
