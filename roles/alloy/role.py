"""The `alloy` role: Grafana Alloy, the unified collector."""

from __future__ import annotations

from collections.abc import Iterator

from roles.alloy.model import ALLOY, COMPONENTS_PAGE, METRICS_PAGE, AlloySettings
from roles.facets import Bound, Listener, Scrape, Signal
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from roles.shared import INFRA_TENANT, TELEMETRY
from rtinfra.facts.http import Request
from rtinfra.quadlet import Account, Container, check_command, config_file
from rtinfra.render import render

NAME = "alloy"
ACCOUNT = Account("rtinfra-alloy", 428)
MOUNT = "/etc/alloy"
DATA = "/var/lib/alloy/data"
#: Attribute of a resource that says whose it is.
TENANT_ATTRIBUTE = "tenant_id"


def endpoints(view: FleetView) -> dict[str, str]:
    """Return where each signal goes, as a base URL of OTLP over HTTP; a signal that nobody stores is absent.

    A store that keeps tenants apart is preferred.
    """
    found = {}
    for signal in (Signal.LOGS, Signal.TRACES, Signal.METRICS):
        stores = sorted(view.stores(signal), key=lambda store: not store.by_tenant)
        if url := next((store.otlp_http for store in stores if store.otlp_http), None):
            found[signal.value] = url
    return found


def state(settings: AlloySettings, view: FleetView) -> RoleState:
    """Return its container."""
    config = config_file(
        NAME,
        "config.alloy",
        render(
            "alloy/config.alloy.j2",
            settings=settings,
            address=view.address,
            tenants=list(view.telemetry.tenants),
            infra_tenant=INFRA_TENANT,
            attribute=TENANT_ATTRIBUTE,
            endpoints=endpoints(view),
        ),
        validate=check_command(view.store.image(NAME), MOUNT, "/bin/alloy validate {path}"),
    )
    container = Container(
        name=NAME,
        description="Grafana Alloy, collector",
        image=NAME,
        account=ACCOUNT,
        command=(
            "run",
            f"--server.http.listen-addr={view.netloc(settings.ui_port)}",
            f"--storage.path={DATA}",
            "--disable-reporting",
            f"{MOUNT}/config.alloy",
        ),
        config=(config,),
        config_mount=MOUNT,
        data={NAME: DATA},
        ready=view.url(settings.ui_port, "/-/ready"),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return RoleState(containers=(container,))


def _reads_back(settings: AlloySettings, view: FleetView) -> Iterator[Request]:
    for page in (METRICS_PAGE, COMPONENTS_PAGE):
        yield Request(view.url(settings.ui_port, page))


ROLE = Role(
    section=ALLOY,
    state=state,
    tier=Tier.PASSES_ON,
    listens=(
        Listener(port=lambda settings: settings.grpc_port, peers=(TELEMETRY,), bound=Bound.EVERYWHERE),
        Listener(port=lambda settings: settings.http_port, peers=(TELEMETRY,), bound=Bound.EVERYWHERE),
        Listener(port=lambda settings: settings.ui_port, peers=(PROMETHEUS,), is_page=True),
    ),
    scrapes=(Scrape(job="alloy", port=lambda settings: settings.ui_port),),
    reads_back=_reads_back,
)
