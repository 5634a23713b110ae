"""What the `tempo` role puts on a host."""

from __future__ import annotations

from roles.site import Part, Site
from roles.tempo.model import TempoSettings
from rtinfra.quadlet import Account, Container, check_command, config_dir, config_file, secret_file
from rtinfra.render import render

NAME = "tempo"
ACCOUNT = Account("rtinfra-tempo", 426)
MOUNT = "/etc/tempo"
DATA = "/var/tempo"
KEY_FILE = "s3.env"


def metrics_url(site: Site) -> str | None:
    """Return where metrics made from spans are written to: Mimir, else Prometheus, else nowhere."""
    for role, path in (("mimir", "/api/v1/push"), ("prometheus", "/api/v1/write")):
        for url in site.urls(role):
            return url + path
    return None


def part(settings: TempoSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    store = site.object_store
    tenants = site.telemetry.tenants
    values = {
        "settings": settings,
        "address": site.address,
        "store": store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        "retention": max(tenant.traces_retention for tenant in tenants.values()),
        "tenants": tenants,
        "metrics_url": metrics_url(site),
        "mount": MOUNT,
        "data": DATA,
    }
    config = (
        config_file(
            NAME,
            "tempo.yaml",
            render("tempo/tempo.yaml.j2", **values),
            validate=check_command(site.store.image(NAME), MOUNT, "/tempo -config.verify -config.file={path}"),
        ),
        config_file(NAME, "overrides.yaml", render("tempo/overrides.yaml.j2", **values)),
        *((secret_file(NAME, KEY_FILE, store.environment, ACCOUNT),) if store else ()),
    )
    container = Container(
        name=NAME,
        description="Tempo, traces",
        image=NAME,
        account=ACCOUNT,
        command=(f"-config.file={MOUNT}/tempo.yaml", *(("-config.expand-env=true",) if store else ())),
        config=config,
        config_mount=MOUNT,
        data={NAME: DATA},
        environment_files=(f"{config_dir(NAME)}/{KEY_FILE}",) if store else (),
        ready=f"http://{site.address}:{settings.port}/ready",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
        after=(store.setup,) if store and store.setup else (),
    )
    return Part(containers=(container,))
