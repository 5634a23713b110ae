"""What the `gateways` role puts on a host: collectors in containers, which route each tenant to the backends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from roles.gateways.model import GatewaysSettings
from roles.site import INFRA_TENANT, Part, Site
from rtinfra.operations.managed import Action, Directory
from rtinfra.quadlet import DATA_ROOT, Account, Container, check_command, config_file, secret_file
from rtinfra.render import render

IMAGE = "otelcol"
ACCOUNT = Account("rtinfra-gateways", 420)
CONFIG_MOUNT = "/etc/otelcol"
DATA_MOUNT = "/data"
#: Where the program is in its image.
PROGRAM = "/otelcol"
#: Prefix of log indices in Elasticsearch; tenant and day follow.
LOG_INDEX = "mxrc-logs"

_SIGNALS = ("traces", "metrics", "logs")
_SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class Route:
    """One tenant's way for one signal: a pipeline and an exporter with a queue of its own."""

    signal: str
    tenant: str
    backend: str
    """One of the choices of `telemetry.traces`, `.metrics`, `.logs`."""
    exporter: str
    """Type of the exporter."""
    targets: tuple[str, ...]
    """Addresses or URLs of the backend."""

    @property
    def pipeline(self) -> str:
        """Id of its pipeline."""
        return f"{self.signal}/{self.tenant}"

    @property
    def component(self) -> str:
        """Id of its exporter."""
        return f"{self.exporter}/{self.signal}-{self.tenant}"


def part(settings: GatewaysSettings, site: Site) -> Part:
    """Return one container for each address.

    Raises:
        ValueError: `telemetry` names a backend that has no address.
    """
    addresses = [str(address) for address in settings.addresses] or [site.address]
    routes = tuple(_routes(settings, site))
    containers = tuple(
        _container(f"otel-gateway-{number}", address, settings, site, routes)
        for number, address in enumerate(addresses, 1)
    )
    paths = tuple(_log_directory(container.name) for container in containers) if site.telemetry.logs == "file" else ()
    # chattr(1), for the directories of `logs: file`.
    return Part(containers=containers, paths=paths, packages=("e2fsprogs",) if paths else ())


def _routes(settings: GatewaysSettings, site: Site) -> Iterator[Route]:
    # Whoever looks after the stack gets what names no tenant or an unknown one, so that tenant is always there.
    tenants = dict.fromkeys((*site.telemetry.tenants, INFRA_TENANT))
    for signal in _SIGNALS:
        backend = getattr(site.telemetry, signal)
        exporter, targets = _target(backend, settings, site)
        for tenant in tenants:
            yield Route(signal, tenant, backend, exporter, targets)


def _target(backend: str, settings: GatewaysSettings, site: Site) -> tuple[str, tuple[str, ...]]:
    """Return the type of exporter and the addresses for a backend.

    Only Elasticsearch's exporter takes several addresses. Of any other backend it is the first host in the inventory;
    while that one is away, what is for it waits in the queue.
    """
    match backend:
        case "file":
            return "file", ()
        case "elasticsearch":
            return "elasticsearch", site.urls("elasticsearch")
        case "elastic_apm":
            if settings.elastic_apm_endpoint is None:
                raise ValueError("telemetry.traces is elastic_apm, and gateways.elastic_apm_endpoint is not set")
            return "otlp_grpc", (settings.elastic_apm_endpoint,)
    first = site.members(backend)[0]
    match backend:
        case "jaeger":
            return "otlp_grpc", (f"{first.address}:{first.settings.grpc_port}",)
        case "tempo":
            return "otlp_grpc", (f"{first.address}:{first.settings.otlp_grpc_port}",)
        case "prometheus":
            return "otlp_http", (f"http://{first.address}:{first.settings.port}/api/v1/otlp",)
        case _:  # mimir, loki
            return "otlp_http", (f"http://{first.address}:{first.settings.port}/otlp",)


def _container(name: str, address: str, settings: GatewaysSettings, site: Site, routes: tuple[Route, ...]) -> Container:
    secrets = _credentials(settings, site)
    content = render(
        "gateways/config.yaml.j2",
        settings=settings,
        telemetry=site.telemetry,
        name=name,
        address=address,
        data=DATA_MOUNT,
        signals=_SIGNALS,
        routes=routes,
        infra_tenant=INFRA_TENANT,
        log_index=LOG_INDEX,
        credentials={key: escape(value) for key, value in secrets.items()},
        log_days={
            tenant: ceil(limits.logs_retention.seconds / _SECONDS_PER_DAY)
            for tenant, limits in site.telemetry.tenants.items()
        },
    )
    validate = check_command(site.store.image(IMAGE), CONFIG_MOUNT, f"{PROGRAM} validate --config=file:{{path}}")
    # With a password in it the file is nobody's business; without, its changes can be shown.
    config = (
        secret_file(name, "config.yaml", content, ACCOUNT) if secrets else config_file(name, "config.yaml", content)
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
        ready=f"http://{address}:{settings.health_port}/",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )


def _credentials(settings: GatewaysSettings, site: Site) -> dict[str, str]:
    """Return the secrets that the configuration holds."""
    found = {}
    if site.telemetry.logs == "elasticsearch":
        name = site.members("elasticsearch")[0].settings.password_secret
        found["elasticsearch"] = site.secrets.read(name).decode()
    if site.telemetry.traces == "elastic_apm" and settings.elastic_apm_token_secret is not None:
        found["elastic_apm"] = site.secrets.read(settings.elastic_apm_token_secret).decode()
    return found


def escape(value: str) -> str:
    """Return a value as the collector's configuration writes it: there $ begins a reference, and $$ is a $."""
    return value.replace("$", "$$")


def _log_directory(name: str) -> Directory:
    """Return the directory of `logs: file`, whose files the kernel writes to the disk at once.

    The file exporter knows no fsync, and answers when the kernel has the record. With the attribute S, which new files
    take over from their directory (chattr(1)), each write returns when the disk has it.
    """
    path = f"{DATA_ROOT}/{name}/logs"
    return Directory(
        path=path,
        mode="0750",
        owner=ACCOUNT.name,
        group=ACCOUNT.name,
        actions=(Action(f"sync-logs-{name}", f"chattr +S {path}"),),
    )
