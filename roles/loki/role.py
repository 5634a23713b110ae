"""The `loki` role: logs of many tenants."""

from __future__ import annotations

import json
from urllib.parse import quote

from roles.alloy.model import ALLOY
from roles.datasources import trace_link
from roles.facets import (
    TENANT_HEADER,
    Bound,
    Datasource,
    Json,
    Links,
    Listener,
    LogSearch,
    Member,
    Scrape,
    Signal,
    Store,
)
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.loki.model import CONFIG_PAGE, LIMITS_PAGE, LOKI, LokiSettings
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from roles.tenant_store import TenantStore
from rtinfra.facts.http import Request
from rtinfra.quadlet import Account
from rtinfra.render import render

PROGRAM = TenantStore(
    name="loki",
    description="Loki, logs",
    account=Account("rtinfra-loki", 425),
    # The image is built without a shell, from nothing.
    mount="/etc/loki",
    data="/loki",
    checker="/usr/bin/loki -verify-config -config.file={path}",
)


def state(settings: LokiSettings, view: FleetView) -> RoleState:
    """Return its container."""
    tenants = view.telemetry.tenants
    config = render(
        "loki/loki.yaml.j2",
        settings=settings,
        address=view.address,
        store=view.object_store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        retention=max(tenant.logs_retention for tenant in tenants.values()),
        mount=PROGRAM.mount,
        data=PROGRAM.data,
    )
    return PROGRAM.state(view, settings, config, render("loki/overrides.yaml.j2", tenants=tenants))


def _request(member: Member[LokiSettings], trace: str) -> Request:
    # Its default range is the last hour. A query needs a label, and every stream of OTLP has this one.
    query = quote(f'{{service_name=~".+"}} |= "{trace}"', safe="")
    return Request(member.url(member.settings.port, f"/loki/api/v1/query_range?limit=1&query={query}"))


def _records(document: Json) -> str:
    found = document.get("data", {}).get("result")
    return json.dumps(found) if found else ""


def _links(links: Links) -> dict[str, object]:
    """Link from the id in a record to its trace, be it structured metadata or in the JSON of the line."""
    if links.traces is None:
        return {}
    link = trace_link(links.traces)
    return {
        "derivedFields": [
            {**link, "name": "trace_id", "matcherType": "label", "matcherRegex": "trace_id"},
            {**link, "name": "trace.id", "matcherType": "regex", "matcherRegex": r'"trace\.id":\s*"(\w+)"'},
        ]
    }


def _reads_back(settings: LokiSettings, view: FleetView) -> list[Request]:
    # The query only tells the answers of the tenants apart.
    limits = (
        Request(
            view.url(settings.port, f"{LIMITS_PAGE}?tenant={tenant}"),
            headers={TENANT_HEADER: tenant},
        )
        for tenant in view.telemetry.tenants
    )
    return [Request(view.url(settings.port, CONFIG_PAGE)), *limits]


ROLE = Role(
    section=LOKI,
    state=state,
    tier=Tier.STORES,
    keeps_objects=True,
    listens=(
        Listener(port=lambda settings: settings.port, peers=(GATEWAYS, ALLOY, GRAFANA, PROMETHEUS)),
        Listener(port=lambda settings: settings.grpc_port, bound=Bound.LOOPBACK),
    ),
    scrapes=(Scrape(job="loki", port=lambda settings: settings.port),),
    reads_back=_reads_back,
    store=Store(
        signal=Signal.LOGS,
        exporter="otlp_http",
        ingest=lambda member: member.url(member.settings.port, "/otlp"),
        otlp_http=lambda member: member.url(member.settings.port, "/otlp"),
        by_tenant=True,
        log_search=LogSearch(request=_request, records=_records),
    ),
    datasource=Datasource(
        title="Loki",
        type="loki",
        signal=Signal.LOGS,
        url=lambda member: member.url(member.settings.port),
        options=_links,
        by_tenant=True,
        logs_query=lambda trace, service: f'{{service_name="{service}"}} |= "{trace}"',
    ),
)
