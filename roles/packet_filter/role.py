"""The `packet_filter` role: nobody reaches a program of ours but who has to; who that is tells access.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from roles.packet_filter.access import access, peers_without_address
from roles.packet_filter.model import PACKET_FILTER, PacketFilterSettings
from roles.shape import FleetView, Role, RoleState
from rtinfra.config import Finding
from rtinfra.facts.packet_filter import HASH_TABLE, LOADED, LOADER, RULES, TABLE, UNIT, UNIT_FILE
from rtinfra.operations.packet_filter import PacketFilter
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, File, Resource, Unit
from rtinfra.render import render


def state(settings: PacketFilterSettings, view: FleetView) -> RoleState:
    """Return the rules with what loads them at boot; without the filter, that all of it is absent."""
    if not settings.enabled:
        paths: tuple[Resource, ...] = (
            Absent(path=UNIT_FILE, actions=(DAEMON_RELOAD,)),
            Absent(path=LOADER),
            Absent(path=RULES),
        )
        return RoleState(files=paths, packet_filters=(PacketFilter(None, paths),))
    content = rules(settings, view)
    paths = tuple(_files(content))
    return RoleState(
        files=paths,
        units=(Unit(UNIT),),
        packages=settings.packages,
        packet_filters=(PacketFilter(content, paths),),
    )


def rules(settings: PacketFilterSettings, view: FleetView) -> bytes:
    """Return the file that nft(8) reads."""
    found = access(settings, view)
    by_version = {
        f"open{version}": [opening for opening in found.openings if opening.network.version == version]
        for version in (4, 6)
    }
    return render("packet_filter/rules.nft.j2", access=found, table=TABLE, **by_version)


def _files(content: bytes) -> Iterator[Resource]:
    names = {"table": TABLE, "rules": RULES, "loaded": LOADED, "loader": LOADER, "unit": UNIT}
    values = {**names, "loaded_directory": PurePosixPath(LOADED).parent, "hash_table": HASH_TABLE}
    yield File(path=RULES, content=content)
    yield File(path=LOADER, content=render("packet_filter/packet-filter.sh.j2", **values), mode="0755")
    yield File(path=UNIT_FILE, content=render(f"packet_filter/{UNIT}.j2", **values), actions=(DAEMON_RELOAD,))


def _problems(settings: PacketFilterSettings, view: FleetView) -> Iterator[Finding]:
    if not settings.enabled:
        return
    for host, name in peers_without_address(view):
        yield Finding(
            "packet_filter.enabled",
            settings.enabled,
            f"has to let {host} in, whose address in the inventory is a name: {name}. Names are looked up by nobody "
            "while a host boots",
            f"set telemetry.address of {host} to its IP address",
        )


# Its files follow rules that were proven, so its own operation brings them.
ROLE = Role(section=PACKET_FILTER, state=state, supplies=True, problems=_problems)
