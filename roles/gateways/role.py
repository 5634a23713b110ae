"""The `gateways` role: collectors in containers, which route each tenant to the stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from roles.facets import TENANT_HEADER, Listener, Member, Scrape, Signal, StoreAt
from roles.gateways.model import ELASTIC_APM, FILE, GATEWAYS, METRICS_PAGE, GatewaysSettings, addresses_of
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from roles.shared import INFRA_TENANT, TELEMETRY
from rtinfra.config import Finding
from rtinfra.facts.http import Request
from rtinfra.netloc import url
from rtinfra.operations.resources import Action, Directory
from rtinfra.quadlet import DATA_ROOT, Account, Container, check_command, config_file, secret_file
from rtinfra.render import render

IMAGE = "otelcol"
ACCOUNT = Account("rtinfra-gateways", 420)
CONFIG_MOUNT = "/etc/otelcol"
DATA_MOUNT = "/data"
#: Where the program is in its image.
PROGRAM = "/otelcol"

_SIGNALS = (Signal.TRACES, Signal.METRICS, Signal.LOGS)
_SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class Route:
    """One tenant's way for one signal: a pipeline and an exporter with a queue of its own."""

    signal: str
    tenant: str
    exporter: str
    """Type of the exporter."""
    targets: tuple[str, ...]
    """Addresses or URLs of the store."""
    by_tenant: bool = False
    """Whether the store takes the tenant from a header."""
    index: str = ""
    user: str = ""
    token: str | None = None
    """Credential that the store asks for, as the configuration has it."""

    @property
    def pipeline(self) -> str:
        """Id of its pipeline."""
        return f"{self.signal}/{self.tenant}"

    @property
    def component(self) -> str:
        """Id of its exporter."""
        return f"{self.exporter}/{self.signal}-{self.tenant}"


def state(settings: GatewaysSettings, view: FleetView) -> RoleState:
    """Return one container for each address.

    Raises:
        ValueError: `telemetry` names a store that has no address.
    """
    routes = tuple(_routes(settings, view))
    containers = tuple(
        _container(f"otel-gateway-{number}", address, settings, view, routes)
        for number, address in enumerate(addresses_of(settings, view.address), 1)
    )
    files = tuple(_log_directory(container.name) for container in containers) if view.telemetry.logs == FILE else ()
    # chattr(1), for the directories of `logs: file`.
    return RoleState(containers=containers, files=files, packages=("e2fsprogs",) if files else ())


def _routes(settings: GatewaysSettings, view: FleetView) -> Iterator[Route]:
    # Whoever looks after the stack gets what names no tenant or an unknown one, so that tenant is always there.
    for signal in _SIGNALS:
        route = _route(signal, settings, view)
        for tenant in dict.fromkeys((*view.telemetry.tenants, INFRA_TENANT)):
            yield replace(route, tenant=tenant)


def _route(signal: Signal, settings: GatewaysSettings, view: FleetView) -> Route:
    """Return the way of a signal, of no tenant yet.

    Of a store whose exporter takes one address it is the first host in the inventory; while that one is away, what is
    for it waits in the queue.
    """
    store = view.chosen(signal)
    if store is not None:
        return _to_store(store, view)
    if signal is Signal.LOGS and view.telemetry.logs == FILE:
        return Route(signal.value, "", "file", ())
    if signal is not Signal.TRACES or view.telemetry.traces != ELASTIC_APM:
        raise ValueError(f"gateways send {signal.value} to a store that no host of the inventory runs")
    if settings.elastic_apm_endpoint is None:
        raise ValueError("telemetry.traces is elastic_apm, and gateways.elastic_apm_endpoint is not set")
    secret = settings.elastic_apm_token_secret
    token = escape(view.secrets.read(secret).decode()) if secret else None
    return Route(signal.value, "", "otlp_grpc", (settings.elastic_apm_endpoint,), token=token)


def _to_store(store: StoreAt, view: FleetView) -> Route:
    secret = store.password_secret
    return Route(
        store.signal.value,
        "",
        store.exporter,
        store.targets,
        store.by_tenant,
        store.index,
        store.user,
        escape(view.secrets.read(secret).decode()) if secret else None,
    )


def _container(
    name: str, address: str, settings: GatewaysSettings, view: FleetView, routes: tuple[Route, ...]
) -> Container:
    content = render(
        "gateways/config.yaml.j2",
        settings=settings,
        telemetry=view.telemetry,
        name=name,
        address=address,
        data=DATA_MOUNT,
        signals=[signal.value for signal in _SIGNALS],
        routes=routes,
        infra_tenant=INFRA_TENANT,
        tenant_header=TENANT_HEADER,
        log_days={
            tenant: ceil(limits.logs_retention.seconds / _SECONDS_PER_DAY)
            for tenant, limits in view.telemetry.tenants.items()
        },
    )
    validate = check_command(view.store.image(IMAGE), CONFIG_MOUNT, f"{PROGRAM} validate --config=file:{{path}}")
    # With a password in it the file is nobody's business; without, its changes can be shown.
    config = (
        secret_file(name, "config.yaml", content, ACCOUNT)
        if any(route.token for route in routes)
        else config_file(name, "config.yaml", content)
    )
    return Container(
        name=name,
        description=f"OpenTelemetry Collector, gateway at {address}",
        image=IMAGE,
        account=ACCOUNT,
        command=(f"--config=file:{CONFIG_MOUNT}/config.yaml",),
        config=(replace(config, validate=validate),),
        config_mount=CONFIG_MOUNT,
        data={name: DATA_MOUNT},
        environment={"GOMEMLIMIT": f"{settings.memory_limit_mb * 4 // 5}MiB"},
        ready=url(address, settings.health_port, "/"),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )


def escape(value: str) -> str:
    """Return a value as the collector's configuration writes it: there $ begins a reference, and $$ is a $."""
    return value.replace("$", "$$")


def _log_directory(name: str) -> Directory:
    """Return the directory of `logs: file`, whose files the kernel writes to the disk at once.

    The file exporter knows no fsync, and answers when the kernel has the record. With the attribute S, which new files
    take over from their directory (chattr(1)), each write returns when the disk has it. The directory lies in one of
    the account's, which may lay a link in its place: so it is the account that sets it.
    """
    path = f"{DATA_ROOT}/{name}/logs"
    account = f"setpriv --reuid {ACCOUNT.name} --regid {ACCOUNT.name} --clear-groups"
    return Directory(
        path=path,
        mode="0750",
        owner=ACCOUNT.name,
        group=ACCOUNT.name,
        actions=(Action(f"sync-logs-{name}", f"{account} chattr +S {path}"),),
    )


def _problems(settings: GatewaysSettings, view: FleetView) -> Iterator[Finding]:
    """Refuse a store that everything is sent to and that no host runs."""
    for signal in _SIGNALS:
        name = getattr(view.telemetry, signal.value)
        role = next((role for role in view.roles if role.stored is signal and role.name == name), None)
        if role is not None and view.chosen(signal) is None:
            yield Finding(
                f"telemetry.{signal.value}",
                name,
                f"is where the gateways send {signal.value}, and no host of the inventory runs it",
                f"put a host into the group {role.group}, or choose another exporter",
            )


def _reads_back(settings: GatewaysSettings, view: FleetView) -> Iterator[Request]:
    for address in addresses_of(settings, view.address):
        yield Request(url(address, settings.metrics_port, METRICS_PAGE))


def _addresses(member: Member[GatewaysSettings]) -> tuple[str, ...]:
    return addresses_of(member.settings, member.address)


ROLE = Role(
    section=GATEWAYS,
    state=state,
    tier=Tier.PASSES_ON,
    listens=(
        # Programs of every host of the fleet may send here, through an agent or by themselves.
        Listener(port=lambda settings: settings.grpc_port, peers=(TELEMETRY,), addresses=_addresses),
        Listener(port=lambda settings: settings.http_port, peers=(TELEMETRY,), addresses=_addresses),
        Listener(port=lambda settings: settings.metrics_port, peers=(PROMETHEUS,), addresses=_addresses),
        Listener(port=lambda settings: settings.health_port, addresses=_addresses),
    ),
    scrapes=(
        Scrape(
            job="gateways",
            port=lambda settings: settings.metrics_port,
            addresses=_addresses,
        ),
    ),
    reads_back=_reads_back,
    problems=_problems,
)
