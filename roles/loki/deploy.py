"""What the `loki` role puts on a host."""

from __future__ import annotations

from roles.loki.model import LokiSettings
from roles.site import Part, Site
from rtinfra.quadlet import Account, Container, check_command, config_dir, config_file, secret_file
from rtinfra.render import render

NAME = "loki"
ACCOUNT = Account("rtinfra-loki", 425)
#: Where the image expects its configuration; it is built without a shell, from nothing.
MOUNT = "/etc/loki"
DATA = "/loki"
KEY_FILE = "s3.env"


def part(settings: LokiSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    store = site.object_store
    tenants = site.telemetry.tenants
    # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
    longest = max(tenant.logs_retention for tenant in tenants.values())
    config = (
        config_file(
            NAME,
            "loki.yaml",
            render(
                "loki/loki.yaml.j2",
                settings=settings,
                address=site.address,
                store=store,
                retention=longest,
                mount=MOUNT,
                data=DATA,
            ),
            validate=check_command(site.store.image(NAME), MOUNT, "/usr/bin/loki -verify-config -config.file={path}"),
        ),
        config_file(NAME, "overrides.yaml", render("loki/overrides.yaml.j2", tenants=tenants)),
        *((secret_file(NAME, KEY_FILE, store.environment, ACCOUNT),) if store else ()),
    )
    container = Container(
        name=NAME,
        description="Loki, logs",
        image=NAME,
        account=ACCOUNT,
        command=(f"-config.file={MOUNT}/loki.yaml", *(("-config.expand-env=true",) if store else ())),
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
