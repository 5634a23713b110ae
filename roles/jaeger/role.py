"""The `jaeger` role: traces, on disk."""

from __future__ import annotations

from roles.agents.model import AGENTS
from roles.datasources import trace_options
from roles.facets import Datasource, Json, Listener, Scrape, Signal, Span, Store, TraceSearch
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.jaeger.model import JAEGER, JaegerSettings, operations
from roles.prometheus.model import PROMETHEUS
from roles.rt_app.model import RT_APP
from roles.shape import FleetView, Role, RoleState, Tier
from rtinfra.facts.http import Request
from rtinfra.quadlet import Account, Container, check_command, config_file
from rtinfra.render import render

NAME = "jaeger"
IMAGE = "jaeger"
ACCOUNT = Account("rtinfra-jaeger", 421)
CONFIG_MOUNT = "/etc/jaeger"
DATA_MOUNT = "/data"
#: Where the program is in its image.
PROGRAM = "/jaeger"


def state(settings: JaegerSettings, view: FleetView) -> RoleState:
    """Return its container."""
    config = config_file(
        NAME,
        "config.yaml",
        render("jaeger/config.yaml.j2", settings=settings, address=view.address, data=DATA_MOUNT),
        validate=check_command(view.store.image(IMAGE), CONFIG_MOUNT, f"{PROGRAM} validate --config=file:{{path}}"),
    )
    return RoleState(
        containers=(
            Container(
                name=NAME,
                description="Jaeger, traces",
                image=IMAGE,
                account=ACCOUNT,
                command=(f"--config=file:{CONFIG_MOUNT}/config.yaml",),
                config=(config,),
                config_mount=CONFIG_MOUNT,
                data={NAME: DATA_MOUNT},
                environment={"GOMEMLIMIT": f"{settings.memory_max.bytes * 4 // 5}B"},
                ready=view.url(settings.health_port, "/status"),
                memory_max=str(settings.memory_max),
                cpu_quota=settings.cpu_quota,
            ),
        ),
    )


def spans(document: Json) -> tuple[Span, ...]:
    """Return the spans in an answer of its API."""
    return tuple(
        Span(
            id=span["spanID"],
            name=span["operationName"],
            parents=frozenset(reference["spanID"] for reference in span.get("references", ())),
            service=processes.get(span.get("processID"), {}).get("serviceName", ""),
            tenants=frozenset(
                str(tag["value"])
                for tag in processes.get(span.get("processID"), {}).get("tags", ())
                if "tenant" in tag["key"]
            ),
        )
        for trace in document.get("data") or ()
        for processes in (trace.get("processes", {}),)
        for span in trace.get("spans", ())
    )


def traced_applications(view: FleetView) -> tuple[str, ...]:
    """Return the services whose cycles are traced and whose host has a collector: those that Jaeger has to know."""
    collecting = {member.host for member in view.members(AGENTS)}
    found = {
        member.settings.tracing.service_name
        for member in view.members(RT_APP)
        if member.host in collecting
        and member.settings.application.kind == "reference"
        and member.settings.tracing.instrumentation.rt_cycle
        and member.settings.tracing.sampling_rate > 0
    }
    return tuple(sorted(found))


def _reads_back(settings: JaegerSettings, view: FleetView) -> tuple[Request, ...]:
    return tuple(Request(view.url(settings.ui_port, operations(service))) for service in traced_applications(view))


ROLE = Role(
    section=JAEGER,
    state=state,
    tier=Tier.STORES,
    listens=(
        Listener(port=lambda settings: settings.ui_port, peers=(GRAFANA,), is_page=True),
        Listener(port=lambda settings: settings.grpc_port, peers=(GATEWAYS,)),
        Listener(port=lambda settings: settings.metrics_port, peers=(PROMETHEUS,)),
        Listener(port=lambda settings: settings.http_port),
        Listener(port=lambda settings: settings.query_grpc_port),
        Listener(port=lambda settings: settings.health_port),
    ),
    scrapes=(Scrape(job="jaeger", port=lambda settings: settings.metrics_port),),
    reads_back=_reads_back,
    store=Store(
        signal=Signal.TRACES,
        exporter="otlp_grpc",
        ingest=lambda member: member.netloc(member.settings.grpc_port),
        trace_search=TraceSearch(
            seconds=10,
            url=lambda member, trace: member.url(member.settings.ui_port, f"/api/traces/{trace}"),
            spans=spans,
        ),
    ),
    datasource=Datasource(
        title="Jaeger",
        type="jaeger",
        signal=Signal.TRACES,
        url=lambda member: member.url(member.settings.ui_port),
        options=trace_options,
    ),
)
