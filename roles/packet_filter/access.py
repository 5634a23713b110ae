"""Who may reach which port of a host: from the listeners of its roles, the fleet, and the operator's networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from itertools import groupby
from typing import Final, NamedTuple

from roles.facets import ListenerAt, Transport
from roles.packet_filter.model import PACKET_FILTER, PacketFilterSettings
from roles.shape import FleetView

Network = IPv4Network | IPv6Network

# Also where the inventory names another: it may be a port that is forwarded to this one.
_SSH: Final = 22
_EVERYBODY: Final = frozenset((ip_network("0.0.0.0/0"), ip_network("::/0")))


class PortOf(NamedTuple):
    """A port of a transport."""

    transport: Transport
    number: int


class Opening(NamedTuple):
    """A port and one network whose computers may reach it."""

    port: PortOf
    network: Network


@dataclass(frozen=True)
class Access:
    """What a host's filter lets through.

    `ours` are the ports that are open to nobody but who is in `openings`. Of `guarded`, those of the ssh server, the
    same is true of new connections; empty where everybody may log in. `is_closed`: what is not ours is dropped too, but
    for `published`: what the operator opened, which may be the port of somebody's container.
    """

    ours: tuple[PortOf, ...]
    guarded: tuple[PortOf, ...]
    openings: tuple[Opening, ...]
    published: tuple[Opening, ...]
    is_closed: bool


def access(settings: PacketFilterSettings, view: FleetView) -> Access:
    """Return what the filter of the view's host lets through."""
    listeners = view.listeners()
    ours = {PortOf(transport, listener.port) for listener in listeners for transport in listener.transports}
    is_closed, is_guarded = settings.default == "drop", not set(settings.ssh_from) >= _EVERYBODY
    # Where everything that is not ours is open anyway, no rule is about it.
    ssh = ssh_ports(view) - ours if is_closed or is_guarded else frozenset()
    also = [
        Opening(PortOf(entry.protocol, entry.port), network)
        for entry in settings.also_open
        for network in entry.networks
    ]
    openings = [
        *_of_listeners(settings, view, listeners),
        *(Opening(port, network) for port in ssh for network in settings.ssh_from),
        *also,
    ]
    return Access(
        ours=tuple(sorted(ours)),
        guarded=tuple(sorted(ssh)) if is_guarded else (),
        openings=_collapsed(openings),
        published=_collapsed(also),
        is_closed=is_closed,
    )


def ssh_ports(view: FleetView) -> frozenset[PortOf]:
    """Return the ports that logins come in at."""
    return frozenset((PortOf("tcp", _SSH), PortOf("tcp", view.ssh_port)))


def peers_without_address(view: FleetView) -> Iterator[tuple[str, str]]:
    """Yield each host that has to be let in and whose address is a name, with that name."""
    needed = {peer for listener in view.listeners() for peer in listener.peers} - {view.host}
    for host, addresses in view.addresses_by_host().items():
        if host in needed:
            yield from ((host, address) for address in addresses if _address(address) is None)


def _of_listeners(
    settings: PacketFilterSettings, view: FleetView, listeners: Iterable[ListenerAt]
) -> Iterator[Opening]:
    sources = _sources(view)
    for listener in listeners:
        networks = [network for peer in sorted(listener.peers - {view.host}) for network in sources.get(peer, ())]
        for transport in listener.transports:
            port = PortOf(transport, listener.port)
            yield from (Opening(port, network) for network in networks)
            if listener.is_page:
                yield from (Opening(port, network) for network in settings.pages_from)


def _sources(view: FleetView) -> dict[str, list[Network]]:
    """Return the addresses that each host of the fleet may come from. Nobody comes from loopback over a network."""
    also = {member.host: member.settings.also_from for member in view.members(PACKET_FILTER)}
    found: dict[str, list[Network]] = {}
    for host, addresses in view.addresses_by_host().items():
        known = [address for text in addresses if (address := _address(text)) is not None and not address.is_loopback]
        found[host] = [*map(ip_network, known), *also.get(host, ())]
    return found


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address without its zone, which means something on one computer alone; None for a name."""
    if text == "localhost":
        return IPv4Address("127.0.0.1")
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found if isinstance(found, IPv4Address) else found.ipv4_mapped or IPv6Address(int(found))


def _collapsed(openings: Iterable[Opening]) -> tuple[Opening, ...]:
    """Return them sorted, and no network inside another of the same port: the kernel refuses a set of such."""

    def key(opening: Opening) -> tuple[PortOf, int]:
        return opening.port, opening.network.version

    found: list[Opening] = []
    for (port, version), group in groupby(sorted(openings, key=key), key):
        networks = [opening.network for opening in group]
        found += (
            (Opening(port, network) for network in collapse_addresses(_v4(networks)))
            if version == 4
            else (Opening(port, network) for network in collapse_addresses(_v6(networks)))
        )
    return tuple(found)


def _v4(networks: Iterable[Network]) -> list[IPv4Network]:
    return [network for network in networks if isinstance(network, IPv4Network)]


def _v6(networks: Iterable[Network]) -> list[IPv6Network]:
    return [network for network in networks if isinstance(network, IPv6Network)]
