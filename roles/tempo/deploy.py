"""What the `tempo` role puts on a host."""

from __future__ import annotations

from roles.site import Part, Site
from roles.tempo.model import TempoSettings
from roles.tenant_store import TenantStore
from rtinfra.quadlet import Account
from rtinfra.render import render

TEMPO = TenantStore(
    name="tempo",
    description="Tempo, traces",
    account=Account("rtinfra-tempo", 426),
    mount="/etc/tempo",
    data="/var/tempo",
    checker="/tempo -config.verify -config.file={path}",
)


def metrics_url(site: Site) -> str | None:
    """Return where metrics made from spans are written to: Mimir, else Prometheus, else nowhere."""
    for role, path in (("mimir", "/api/v1/push"), ("prometheus", "/api/v1/write")):
        for url in site.urls(role):
            return url + path
    return None


def part(settings: TempoSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    tenants = site.telemetry.tenants
    values = {
        "settings": settings,
        "address": site.address,
        "store": site.object_store,
        # For tenants that nobody defined, and for everything should the overrides be lost: too long harms less.
        "retention": max(tenant.traces_retention for tenant in tenants.values()),
        "tenants": tenants,
        "metrics_url": metrics_url(site),
        "mount": TEMPO.mount,
        "data": TEMPO.data,
    }
    return TEMPO.part(
        site, settings, render("tempo/tempo.yaml.j2", **values), render("tempo/overrides.yaml.j2", **values)
    )
