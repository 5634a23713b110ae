"""The `tempo` role: traces of many tenants, in object storage or on disk."""

from __future__ import annotations

from collections.abc import Iterator

from roles.alloy.model import ALLOY
from roles.datasources import trace_options
from roles.facets import Bound, Datasource, Json, Links, Listener, Scrape, Signal, Span, Store, TraceSearch
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from roles.tempo.model import CONFIG_PAGE, OVERRIDES_PAGE, TEMPO, TempoSettings
from roles.tenant_store import TenantStore
from rtinfra.facts.http import Request
from rtinfra.quadlet import Account
from rtinfra.render import render

PROGRAM = TenantStore(
    name="tempo",
    description="Tempo, traces",
    account=Account("rtinfra-tempo", 426),
    mount="/etc/tempo",
    data="/var/tempo",
    checker="/tempo -config.verify -config.file={path}",
)


def metrics_url(view: FleetView) -> str | None:
    """Return where metrics made from spans are written to: a store that keeps tenants apart, else any, else nowhere."""
    stores = sorted(view.stores(Signal.METRICS), key=lambda store: not store.by_tenant)
    return next((store.remote_write for store in stores if store.remote_write), None)


def state(settings: TempoSettings, view: FleetView) -> RoleState:
    """Return its container."""
    tenants = view.telemetry.tenants
    values = {
        "settings": settings,
        "address": view.address,
        "store": view.object_store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        "retention": max(tenant.traces_retention for tenant in tenants.values()),
        "tenants": tenants,
        "metrics_url": metrics_url(view),
        "mount": PROGRAM.mount,
        "data": PROGRAM.data,
    }
    return PROGRAM.state(
        view, settings, render("tempo/tempo.yaml.j2", **values), render("tempo/overrides.yaml.j2", **values)
    )


def _spans(document: Json) -> tuple[Span, ...] | None:
    return None if document.get("batches") or document.get("trace") else ()


def _options(links: Links) -> dict[str, object]:
    return trace_options(links) | ({"serviceMap": {"datasourceUid": links.metrics}} if links.metrics else {})


def _reads_back(settings: TempoSettings, view: FleetView) -> Iterator[Request]:
    for page in (CONFIG_PAGE, OVERRIDES_PAGE):
        yield Request(view.url(settings.port, page))


ROLE = Role(
    section=TEMPO,
    state=state,
    tier=Tier.STORES,
    keeps_objects=True,
    listens=(
        Listener(port=lambda settings: settings.port, peers=(GRAFANA, PROMETHEUS)),
        Listener(port=lambda settings: settings.grpc_port, bound=Bound.LOOPBACK),
        Listener(port=lambda settings: settings.otlp_grpc_port, peers=(GATEWAYS,), bound=Bound.EVERYWHERE),
        Listener(port=lambda settings: settings.otlp_http_port, peers=(ALLOY,), bound=Bound.EVERYWHERE),
    ),
    scrapes=(Scrape(job="tempo", port=lambda settings: settings.port),),
    reads_back=_reads_back,
    store=Store(
        signal=Signal.TRACES,
        exporter="otlp_grpc",
        ingest=lambda member: member.netloc(member.settings.otlp_grpc_port),
        otlp_http=lambda member: member.url(member.settings.otlp_http_port),
        by_tenant=True,
        trace_search=TraceSearch(
            # Its search leaves out what is younger than 30 s.
            seconds=45,
            url=lambda member, trace: member.url(member.settings.port, f"/api/traces/{trace}"),
            spans=_spans,
        ),
    ),
    datasource=Datasource(
        title="Tempo",
        type="tempo",
        signal=Signal.TRACES,
        url=lambda member: member.url(member.settings.port),
        options=_options,
        by_tenant=True,
    ),
)
