"""What the `mimir` role puts on a host."""

from __future__ import annotations

from roles.mimir.model import MimirSettings
from roles.site import Part, Site
from roles.tenant_store import TenantStore
from rtinfra.quadlet import Account
from rtinfra.render import render

MIMIR = TenantStore(
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


def part(settings: MimirSettings, site: Site) -> Part:
    """Return containers, files, units and packages.

    Raises:
        ValueError: several members, and no storage that all of them see.
    """
    store = site.object_store
    members = site.members(MIMIR.name)
    if len(members) > 1 and store is None:
        raise ValueError("several members need storage that all of them see: put a host into the group garage")
    tenants = site.telemetry.tenants
    config = render(
        "mimir/mimir.yaml.j2",
        settings=settings,
        address=site.address,
        store=store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        retention=max(tenant.metrics_retention for tenant in tenants.values()),
        replication_factor=replication_factor(len(members)),
        peers=[f"{member.address}:{member.settings.memberlist_port}" for member in members],
        alertmanagers=[f"{url}/" for url in site.urls("alertmanager")],
        mount=MIMIR.mount,
        data=MIMIR.data,
    )
    return MIMIR.part(site, settings, config, render("mimir/overrides.yaml.j2", settings=settings, tenants=tenants))
