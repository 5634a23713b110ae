"""The dashboards of a site, from metrics/dashboards/ (OB-14, OB-16).

Every metric is in metrics/catalogue.yaml, which a test compares. Each dashboard begins with a row of big coloured
numbers that someone without knowledge of the system can read: green is well.
"""

from __future__ import annotations

from functools import cache

from roles.facets import Signal
from roles.grafana.dashboard_file import DASHBOARDS, DashboardFile, load_dashboard
from roles.grafana.datasource_file import uid
from roles.grafana.panels import Dashboard
from roles.shape import FleetView
from roles.shared import INFRA_TENANT
from rtinfra.limits import Limits, project_limits


def dashboards(view: FleetView, limits: Limits | None = None) -> tuple[Dashboard, ...]:
    """Return the dashboards of a site, with the project's limits unless told; none where nothing stores metrics.

    Raises:
        ConfigError: a dashboard is wrong; every problem with its line.
    """
    own, monitoring = uid(view, Signal.METRICS, view.telemetry.tenant), uid(view, Signal.METRICS, INFRA_TENANT)
    if own is None or monitoring is None:
        return ()
    uids = {"own": own, "monitoring": monitoring}
    return tuple(Dashboard(file, uids[file.metrics], limits or project_limits()) for file in _files())


@cache
def _files() -> tuple[DashboardFile, ...]:
    return tuple(load_dashboard(path) for path in sorted(DASHBOARDS.glob("*.yaml")))
