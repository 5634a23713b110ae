"""The `mimir` role: metrics of many tenants."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from roles.alertmanager.model import ALERTMANAGER
from roles.alloy.model import ALLOY
from roles.datasources import metrics_options
from roles.facets import Bound, Datasource, Listener, Scrape, Signal, Store
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.mimir.model import CONFIG_PAGE, MIMIR, RUNTIME_CONFIG_PAGE, MimirSettings
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from roles.tempo.model import TEMPO
from roles.tenant_store import TenantStore
from rtinfra.facts.http import Request
from rtinfra.quadlet import Account
from rtinfra.render import render

PROGRAM = TenantStore(
    name="mimir",
    description="Mimir, metrics",
    account=Account("rtinfra-mimir", 427),
    mount="/etc/mimir",
    data="/data",
    # With -modules it reads and checks its configuration, prints a list and ends (cmd/mimir/main.go).
    checker="/bin/mimir -modules -config.file={path}",
    limit_nofile=65536,
)


def replication_factor(members: int) -> int:
    """Return how often samples are kept: three times where there are hosts for it, otherwise once.

    Two copies would need both hosts for every write: a majority of two is two.
    """
    return 3 if members >= 3 else 1


def state(settings: MimirSettings, view: FleetView) -> RoleState:
    """Return its container.

    Raises:
        ValueError: several members, and no storage that all of them see.
    """
    store = view.object_store
    members = view.members(MIMIR)
    if len(members) > 1 and store is None:
        groups = view.groups_with(lambda role: role.makes_object_store)
        raise ValueError(f"several members need storage that all of them see: put a host into the group {groups}")
    tenants = view.telemetry.tenants
    config = render(
        "mimir/mimir.yaml.j2",
        settings=settings,
        address=view.address,
        store=store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        retention=max(tenant.metrics_retention for tenant in tenants.values()),
        replication_factor=replication_factor(len(members)),
        peers=[member.netloc(member.settings.memberlist_port) for member in members],
        alertmanagers=[member.url(member.settings.port, "/") for member in view.members(ALERTMANAGER)],
        mount=PROGRAM.mount,
        data=PROGRAM.data,
    )
    return PROGRAM.state(view, settings, config, render("mimir/overrides.yaml.j2", settings=settings, tenants=tenants))


def _reads_back(settings: MimirSettings, view: FleetView) -> Iterator[Request]:
    for page in (CONFIG_PAGE, RUNTIME_CONFIG_PAGE):
        yield Request(view.url(settings.port, page))


ROLE = Role(
    section=MIMIR,
    state=state,
    tier=Tier.STORES,
    keeps_objects=True,
    listens=(
        # Prometheus scrapes it and writes to it for the long term, Tempo writes metrics of spans.
        Listener(port=lambda settings: settings.port, peers=(GATEWAYS, ALLOY, TEMPO, PROMETHEUS, GRAFANA)),
        Listener(port=lambda settings: settings.grpc_port, peers=(MIMIR,), bound=Bound.EVERYWHERE),
        Listener(port=lambda settings: settings.memberlist_port, peers=(MIMIR,)),
    ),
    scrapes=(Scrape(job="mimir", port=lambda settings: settings.port),),
    reads_back=_reads_back,
    store=Store(
        signal=Signal.METRICS,
        exporter="otlp_http",
        ingest=lambda member: member.url(member.settings.port, "/otlp"),
        otlp_http=lambda member: member.url(member.settings.port, "/otlp"),
        remote_write=lambda member: member.url(member.settings.port, "/api/v1/push"),
        by_tenant=True,
    ),
    datasource=Datasource(
        title="Mimir",
        type="prometheus",
        signal=Signal.METRICS,
        url=lambda member: member.url(member.settings.port, "/prometheus"),
        options=partial(metrics_options, "Mimir"),
        by_tenant=True,
    ),
)
