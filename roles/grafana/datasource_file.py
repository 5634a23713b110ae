"""Datasources of Grafana: one for each store and tenant of the fleet, and the links between them (OB-14, OB-15).

The uids are fixed: dashboards and links contain them. A header is no isolation: who may see one tenant's datasource
here sees the others' too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roles.datasources import SERVICE, TRACE
from roles.facets import TENANT_HEADER, DatasourceAt, Links, Signal
from roles.shape import FleetView

#: Where the passwords of readers are inside the container.
PASSWORDS = "/etc/grafana"


def uid(view: FleetView, signal: Signal, tenant: str) -> str | None:
    """Return the datasource that has a tenant's signal: that of the store it is sent to, else what there is."""
    source = view.datasource(signal)
    return source.uid(tenant) if source else None


def provisioning(view: FleetView) -> dict[str, Any]:
    """Return the provisioning file: what it does not name is removed."""
    return {"apiVersion": 1, "prune": True, "datasources": list(datasources(view))}


def datasources(view: FleetView) -> Iterator[dict[str, Any]]:
    """Return every datasource of the fleet: those that all tenants share in the order of signals, then by tenant."""
    every = view.datasources()
    order = list(Signal)
    for source in sorted(every, key=lambda source: order.index(source.signal)):
        if not source.by_tenant:
            yield _source(view, source, view.telemetry.tenant)
    for tenant in view.telemetry.tenants:
        for source in every:
            if source.by_tenant:
                yield _source(view, source, tenant)


def _source(view: FleetView, source: DatasourceAt, tenant: str) -> dict[str, Any]:
    header = {"httpHeaderName1": TENANT_HEADER} if source.by_tenant else {}
    found: dict[str, Any] = {
        "uid": source.uid(tenant),
        "name": f"{source.title} {tenant}" if source.by_tenant else source.title,
        "type": source.type,
        "access": "proxy",
        "url": source.url,
        "editable": False,
        "isDefault": source.is_default,
        "jsonData": {**header, **source.options(_links(view, tenant))},
    }
    if source.by_tenant:
        found["secureJsonData"] = {"httpHeaderValue1": tenant}
    if source.reader is not None:
        user, file, _ = source.reader
        found |= {
            "basicAuth": True,
            "basicAuthUser": user,
            # Read by Grafana when it starts; the password is not in this file.
            "secureJsonData": {"basicAuthPassword": f"$__file{{{PASSWORDS}/{file}}}"},
        }
    return found


def _links(view: FleetView, tenant: str) -> Links:
    logs = view.datasource(Signal.LOGS)
    return Links(
        metrics=uid(view, Signal.METRICS, tenant),
        traces=uid(view, Signal.TRACES, tenant),
        logs=uid(view, Signal.LOGS, tenant),
        logs_query=logs.logs_query(TRACE, SERVICE) if logs and logs.logs_query else None,
        alerts=uid(view, Signal.ALERTS, tenant),
    )
