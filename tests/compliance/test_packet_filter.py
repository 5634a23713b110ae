"""Who may reach the host: the packet filter in the kernel, and every socket that a program listens at."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

import pytest

from roles.facets import Bound, ListenerAt
from roles.host import HostConfig
from roles.packet_filter.access import Access, PortOf, access, ssh_ports
from roles.packet_filter.model import PACKET_FILTER
from roles.shape import FleetView
from rtinfra.verify import expect
from rtinfra.verify.look.packet_filter import PacketFilter
from rtinfra.verify.look.sockets import Listening, Sockets

pytestmark = pytest.mark.every_host

# What becomes of packets to what the sets of the table hold.
_VERDICTS = {"open4": "accept", "open6": "accept", "ours": "refuse"}
# Rules for what comes in: loopback and one for each set; one where logins are restricted; those of a closed host.
_RULES, _RULES_GUARDED, _RULES_CLOSED = 4, 1, 4
# Programs of Debian that listen, by the kernel's name of them (15 letters): transports and ports that are theirs.
_DISTRIBUTION = {
    "systemd-resolve": {("udp", 53), ("tcp", 53), ("udp", 5355), ("tcp", 5355), ("udp", 5353)},
    "systemd-network": {("udp", 68), ("udp", 546)},
    "NetworkManager": {("udp", 68), ("udp", 546)},
    "dhclient": {("udp", 68), ("udp", 546)},
    "dhcpcd": {("udp", 68), ("udp", 546)},
    "chronyd": {("udp", 323)},
}
# Of ssh's own; `systemd` where ssh.socket listens for it. What a login forwards it offers on loopback.
_SSH = ("sshd", "sshd-session", "systemd")


@pytest.fixture
def required(config: HostConfig, view: FleetView) -> Access:
    """What the filter has to let through."""
    settings = config[PACKET_FILTER]
    if not settings.enabled:
        expect.not_applicable("packet_filter.enabled is false: everybody reaches every port of this host")
    return access(settings, view)


@pytest.mark.control(
    id="L-15.1", severity="critical", title="Ports of ours are open to the hosts that need them, and to nobody else"
)
def test_filter(packet_filter: PacketFilter, required: Access) -> None:
    openings = {f"{one.port.transport} {one.port.number} {one.network}" for one in required.openings}
    ours = {f"{port.transport} {port.number}" for port in required.ours}
    expect.that(packet_filter.is_there, "no table", "a table", "packet filter in the kernel")
    expect.nothing(sorted(packet_filter.openings - openings), "open, and need not be")
    expect.nothing(sorted(openings - packet_filter.openings), "closed, and have to be open")
    expect.equal(sorted(packet_filter.ours), sorted(ours), "ports that are refused to all others")
    expect.entries(packet_filter.verdicts, _VERDICTS, "what the rules do")
    rules = _RULES + _RULES_GUARDED * bool(required.guarded) + _RULES_CLOSED * required.is_closed
    expect.equal(packet_filter.rules, rules, "rules for what comes in")
    expect.equal(packet_filter.policy, "drop" if required.is_closed else "accept", "what becomes of everything else")


@pytest.mark.control(id="L-15.2", severity="high", title="The packet filter is there or gone, as the settings say")
def test_switch(packet_filter: PacketFilter, config: HostConfig) -> None:
    is_wanted = config[PACKET_FILTER].enabled
    expect.equal(packet_filter.is_there, is_wanted, "packet filter in the kernel")


@pytest.mark.control(id="L-15.3", severity="high", title="Every program that takes connections is a known one")
def test_known(sockets: Sockets, config: HostConfig, view: FleetView) -> None:
    known = {(transport, one.port) for one in view.listeners() for transport in one.transports}
    known |= {(entry.protocol, entry.port) for entry in config[PACKET_FILTER].also_open}
    strangers = (
        one
        for one in sockets.all
        if (one.transport, one.port) not in known
        and not _is_of_the_distribution(one, ssh_ports(view))
        # Who asks somebody by UDP gets the answer at a port that the kernel chose.
        and not (one.transport == "udp" and one.port in sockets.asking)
    )
    expect.nothing(strangers, "programs that nobody knows of")


@pytest.mark.control(id="L-15.4", severity="high", title="Every program of ours listens where it is meant to")
def test_bound(sockets: Sockets, view: FleetView) -> None:
    expect.nothing(_elsewhere(sockets.all, view.listeners()), "programs that listen at more than they have to")


def _is_of_the_distribution(one: Listening, ssh: Iterable[PortOf]) -> bool:
    if one.transport == "tcp" and set(one.programs) <= set(_SSH) and one.programs:
        return one.port in {port.number for port in ssh} or (one.is_local and "systemd" not in one.programs)
    return any((one.transport, one.port) in _DISTRIBUTION.get(name, ()) for name in one.programs)


def _elsewhere(sockets: Iterable[Listening], listeners: Iterable[ListenerAt]) -> Iterator[str]:
    meant = {(transport, one.port): one for one in listeners for transport in one.transports}
    for socket in sockets:
        listener = meant.get((socket.transport, socket.port))
        if listener is None or socket.is_local or listener.bound is Bound.EVERYWHERE:
            continue
        if listener.bound is Bound.LOOPBACK or not _is_at(listener, socket.address):
            yield f"{socket}, meant to be at {listener.bound.value}"


def _is_at(listener: ListenerAt, address: str) -> bool:
    """Tell whether it is meant to be at an address; of a host that is known by a name nobody can tell."""
    try:
        return address in {str(ip_address(text)) for text in listener.addresses}
    except ValueError:
        return address != "*"
