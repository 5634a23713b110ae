"""Which offline mirror a host uses, and whether it can: what the roles of server and clients decide together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from roles.facets import Member
from roles.mirror_client.model import MIRROR_CLIENT
from roles.mirror_place import Mirror, MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER, MirrorServerSettings
from roles.shape import FleetView
from rtinfra.config import Finding
from rtinfra.facts.host import HostState

_MOMENT = "%Y-%m-%d %H:%M:%S UTC"
# What apt lets a release file be ahead of the clock, Acquire::Max-FutureTime in apt.conf(5).
_CLOCK_TOLERANCE = timedelta(seconds=10)


def mirror_of(view: FleetView) -> Mirror | None:
    """Return the mirror that a host uses, or serves; None when it does neither.

    Raises:
        ValueError: the inventory does not tell which one it uses.
    """
    client = view.own(MIRROR_CLIENT)
    servers = {server.host: server for server in view.members(MIRROR_SERVER)}
    is_used = client is not None and client.enabled
    if view.host in servers:
        if client is not None and client.server not in (None, view.host):
            raise ValueError(f"it serves a mirror itself and uses that one, not {client.server}'s")
        return Mirror(_place(servers[view.host]), is_served=True, is_used=is_used)
    if client is None:
        return None
    if client.server is not None:
        if client.server not in servers:
            raise ValueError(f"the mirror's host {client.server} is not in the group {MIRROR_SERVER.group}")
        return Mirror(_place(servers[client.server]), is_served=False, is_used=is_used)
    if len(servers) != 1:
        raise ValueError(
            f"the inventory has several hosts in the group {MIRROR_SERVER.group}: {', '.join(servers)}"
            if servers
            else f"no host of the inventory is in the group {MIRROR_SERVER.group}"
        )
    (server,) = servers.values()
    return Mirror(_place(server), is_served=False, is_used=is_used)


def _place(server: Member[MirrorServerSettings]) -> MirrorPlace:
    return MirrorPlace(server.host, server.address, server.settings.port, str(server.settings.directory))


def mirror_refusals(view: FleetView, state: HostState) -> Iterator[Finding]:
    """Return why an observed host cannot get its packages from what the mirror serves now."""
    mirror = view.mirror
    if mirror is None or not mirror.is_needed:
        return
    place, release = mirror.place, mirror.live
    if release is None:
        yield Finding(
            "mirror_server.directory" if view.host == place.host else "mirror_client.server",
            place.directory,
            f"has no published release on {place.host}, so there is nothing to install from",
            f"on {place.host} run, with RTINFRA_MIRROR_DIR={place.directory}: `rtinfra mirror import` with the bundle "
            "that was carried in, then `rtinfra mirror publish`",
        )
        return
    index, clock = release.index, datetime.fromtimestamp(state.clock, UTC)
    if clock + _CLOCK_TOLERANCE < index.date:
        yield Finding(
            "host",
            view.host,
            f"has a clock that says {clock:{_MOMENT}}, and the mirror's release is of {index.date:{_MOMENT}}: "
            "apt would call it not valid yet",
            "set the clock on the host, for example `date -u -s '2026-01-31 12:00'`, then `hwclock --systohc`",
        )
    if index.valid_until is not None and index.valid_until < clock:
        yield Finding(
            "host",
            view.host,
            f"has a clock that says {clock:{_MOMENT}}, and the mirror's release {release.name} was valid "
            f"until {index.valid_until:{_MOMENT}}: apt refuses what is expired",
            f"on {place.host} run `rtinfra mirror publish --again`, which signs it anew, or carry in a newer bundle; "
            "or set the clock, if that is what is wrong",
        )
    if state.codename and state.codename != index.suite:
        yield Finding(
            "host",
            view.host,
            f"runs {state.codename}, and the mirror has packages of {index.suite}: they would replace its system",
            f"use a mirror whose lock was made for {state.codename}, or install the host with {index.suite}",
        )
    if state.architecture and state.architecture not in index.architectures:
        yield Finding(
            "host",
            view.host,
            f"is {state.architecture}, and the mirror has packages for {' '.join(index.architectures) or 'none'}",
            f"use a mirror whose lock was made for {state.architecture}",
        )
