"""What the `loki` role puts on a host."""

from __future__ import annotations

from roles.loki.model import LokiSettings
from roles.site import Part, Site
from roles.tenant_store import TenantStore
from rtinfra.quadlet import Account
from rtinfra.render import render

LOKI = TenantStore(
    name="loki",
    description="Loki, logs",
    account=Account("rtinfra-loki", 425),
    # The image is built without a shell, from nothing.
    mount="/etc/loki",
    data="/loki",
    checker="/usr/bin/loki -verify-config -config.file={path}",
)


def part(settings: LokiSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    tenants = site.telemetry.tenants
    config = render(
        "loki/loki.yaml.j2",
        settings=settings,
        address=site.address,
        store=site.object_store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        retention=max(tenant.logs_retention for tenant in tenants.values()),
        mount=LOKI.mount,
        data=LOKI.data,
    )
    return LOKI.part(site, settings, config, render("loki/overrides.yaml.j2", tenants=tenants))
