"""What the `alloy` role puts on a host."""

from __future__ import annotations

from roles.alloy.model import AlloySettings
from roles.site import INFRA_TENANT, Part, Site
from rtinfra.quadlet import Account, Container, check_command, config_file
from rtinfra.render import render

NAME = "alloy"
ACCOUNT = Account("rtinfra-alloy", 428)
MOUNT = "/etc/alloy"
DATA = "/var/lib/alloy/data"
#: Attribute of a resource that says whose it is.
TENANT_ATTRIBUTE = "tenant_id"


def endpoints(site: Site) -> dict[str, str]:
    """Return where each signal goes, as a base URL of OTLP over HTTP; a signal that nobody stores is absent."""
    wanted = {
        "logs": [f"{url}/otlp" for url in site.urls("loki")],
        "traces": list(site.urls("tempo", "otlp_http_port")),
        "metrics": [
            *(f"{url}/otlp" for url in site.urls("mimir")),
            *(f"{url}/api/v1/otlp" for url in site.urls("prometheus")),
        ],
    }
    return {signal: urls[0] for signal, urls in wanted.items() if urls}


def part(settings: AlloySettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    config = config_file(
        NAME,
        "config.alloy",
        render(
            "alloy/config.alloy.j2",
            settings=settings,
            address=site.address,
            tenants=list(site.telemetry.tenants),
            infra_tenant=INFRA_TENANT,
            attribute=TENANT_ATTRIBUTE,
            endpoints=endpoints(site),
        ),
        validate=check_command(site.store.image(NAME), MOUNT, "/bin/alloy validate {path}"),
    )
    container = Container(
        name=NAME,
        description="Grafana Alloy, collector",
        image=NAME,
        account=ACCOUNT,
        command=(
            "run",
            f"--server.http.listen-addr={site.address}:{settings.ui_port}",
            f"--storage.path={DATA}",
            "--disable-reporting",
            f"{MOUNT}/config.alloy",
        ),
        config=(config,),
        config_mount=MOUNT,
        data={NAME: DATA},
        ready=f"http://{site.address}:{settings.ui_port}/-/ready",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return Part(containers=(container,))
