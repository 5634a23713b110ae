"""What the `mimir` role puts on a host."""

from __future__ import annotations

from roles.mimir.model import MimirSettings
from roles.site import Part, Site
from rtinfra.quadlet import Account, Container, check_command, config_dir, config_file, secret_file
from rtinfra.render import render

NAME = "mimir"
ACCOUNT = Account("rtinfra-mimir", 427)
MOUNT = "/etc/mimir"
DATA = "/data"
KEY_FILE = "s3.env"


def replication_factor(members: int) -> int:
    """Return how often samples are kept: three times where there are hosts for it, otherwise once.

    Two copies would need both hosts for every write: a majority of two is two.
    """
    return 3 if members >= 3 else 1


def part(settings: MimirSettings, site: Site) -> Part:
    """Return containers, files, units and packages.

    Raises:
        ValueError: several members, and no storage that all of them see.
    """
    store = site.object_store
    members = site.members(NAME)
    if len(members) > 1 and store is None:
        raise ValueError("several members need storage that all of them see: put a host into the group garage")
    tenants = site.telemetry.tenants
    config = (
        config_file(
            NAME,
            "mimir.yaml",
            render(
                "mimir/mimir.yaml.j2",
                settings=settings,
                address=site.address,
                store=store,
                # For tenants that nobody defined, and for all should the overrides be lost: too long harms less.
                retention=max(tenant.metrics_retention for tenant in tenants.values()),
                replication_factor=replication_factor(len(members)),
                peers=[f"{member.address}:{member.settings.memberlist_port}" for member in members],
                alertmanagers=[f"{url}/" for url in site.urls("alertmanager")],
                mount=MOUNT,
                data=DATA,
            ),
            # With -modules it reads and checks its configuration, prints a list and ends (cmd/mimir/main.go).
            validate=check_command(site.store.image(NAME), MOUNT, "/bin/mimir -modules -config.file={path}"),
        ),
        config_file(NAME, "overrides.yaml", render("mimir/overrides.yaml.j2", settings=settings, tenants=tenants)),
        *((secret_file(NAME, KEY_FILE, store.environment, ACCOUNT),) if store else ()),
    )
    container = Container(
        name=NAME,
        description="Mimir, metrics",
        image=NAME,
        account=ACCOUNT,
        command=(f"-config.file={MOUNT}/mimir.yaml", *(("-config.expand-env=true",) if store else ())),
        config=config,
        config_mount=MOUNT,
        data={NAME: DATA},
        environment_files=(f"{config_dir(NAME)}/{KEY_FILE}",) if store else (),
        ready=f"http://{site.address}:{settings.port}/ready",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
        limit_nofile=65536,
        after=(store.setup,) if store and store.setup else (),
    )
    return Part(containers=(container,))
