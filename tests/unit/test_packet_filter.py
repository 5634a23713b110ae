"""Who may reach what: listeners of all roles, the rules that follow from them, and the real nft with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from roles.agents.model import AGENTS
from roles.catalogue import ROLES
from roles.composition import compose
from roles.facets import Bound, Member
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.host import _ports
from roles.jaeger.model import JAEGER
from roles.packet_filter.access import Access, Opening, PortOf, access, peers_without_address
from roles.packet_filter.model import OpenPortSettings, PacketFilterSettings
from roles.packet_filter.role import ROLE, rules
from roles.prometheus.model import PROMETHEUS
from roles.shape import AnyRole, FleetView, Role
from rtinfra.facts import packet_filter as fact
from rtinfra.operations.resources import Absent, File
from tests.unit.filter_site import Computer, computers
from tests.unit.telemetry_site import at, here, rt_app, shipped, view

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces")

#: Everything that runs somewhere, on one host.
ALL = tuple(role for role in ROLES if isinstance(role, Role) and role.listens)


def settings(**changes: Any) -> PacketFilterSettings:
    found = shipped("packet_filter", **changes)
    assert isinstance(found, PacketFilterSettings)
    return found


def settings_of(role: AnyRole) -> Any:
    return rt_app() if role.name == "rt_app" else shipped(role.name)


def sources(found: Access, port: int, transport: str = "tcp") -> set[str]:
    return {str(one.network) for one in found.openings if one.port == PortOf(transport, port)}  # type: ignore[arg-type]


# ---- listeners


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_port_that_a_role_claims_has_a_listener(role: AnyRole) -> None:
    """As the check of ports that clash: a field called `port`, or ending in `_port`."""
    assert isinstance(role, Role)
    own = settings_of(role)
    claimed = dict(_ports(own))
    assert len(set(claimed.values())) == len(claimed), "the shipped ports tell fields apart"
    assert {listener.port(own) for listener in role.listens} == set(claimed.values()), claimed


@pytest.mark.parametrize("role", ALL, ids=lambda role: role.name)
def test_who_asks_a_role_may_reach_it(role: Role[Any]) -> None:
    """What is scraped is open to Prometheus, what stores to the gateways, what Grafana asks to Grafana."""
    own = settings_of(role)
    peers = {listener.port(own): listener.peers for listener in role.listens}
    for scrape in role.scrapes:
        assert PROMETHEUS in peers[scrape.port(own)], scrape.job
    member = Member("x", "192.0.2.1", own, "prod")
    if role.store is not None:
        assert GATEWAYS in peers[port_in(role.store.ingest(member))]
    if role.datasource is not None:
        assert GRAFANA in peers[port_in(role.datasource.url(member))]


def port_in(address: str) -> int:
    return int(address.removeprefix("http://").partition("/")[0].rpartition(":")[2])


@pytest.mark.parametrize("role", ALL, ids=lambda role: role.name)
def test_what_listens_on_loopback_is_open_to_nobody(role: Role[Any]) -> None:
    for listener in role.listens:
        assert listener.bound is not Bound.LOOPBACK or not (listener.peers or listener.is_page)


# ---- what follows from the fleet


def test_a_port_is_open_to_the_hosts_whose_programs_connect_to_it() -> None:
    fleet = view(
        jaeger=here(), gateways=(at("gw1", "192.0.2.7"), at("gw2", "2001:db8::7")), prometheus=at("p", "192.0.2.8")
    )
    found = access(settings(), fleet)
    own = fleet.required(JAEGER)
    assert sources(found, own.grpc_port) == {"192.0.2.7/32", "2001:db8::7/128"}
    assert sources(found, own.metrics_port) == {"192.0.2.8/32"}
    assert sources(found, own.health_port) == set()
    assert sources(found, own.ui_port) == {"0.0.0.0/0", "::/0"}, "people"
    assert {own.grpc_port, own.health_port, own.ui_port} <= {port.number for port in found.ours}


def test_a_host_comes_from_all_of_its_addresses() -> None:
    gateway = shipped("gateways", addresses=["192.0.2.7", "192.0.2.8"])
    fleet = view(
        jaeger=here(),
        gateways=at("gw", "192.0.2.6", gateway),
        packet_filter=(here(), at("gw", "192.0.2.6", settings(also_from=["198.51.100.6"]))),
    )
    found = sources(access(settings(), fleet), fleet.required(JAEGER).grpc_port)
    assert found == {"192.0.2.6/32", "192.0.2.7/32", "192.0.2.8/32", "198.51.100.6/32"} or found == {
        "192.0.2.6/31",
        "192.0.2.8/32",
        "198.51.100.6/32",
    }


def test_pages_are_for_the_operators_networks_alone() -> None:
    fleet = view(grafana=here())
    port = fleet.required(GRAFANA).port
    assert sources(access(settings(pages_from=["192.0.2.0/24"]), fleet), port) == {"192.0.2.0/24"}
    assert sources(access(settings(pages_from=[]), fleet), port) == set()


def test_an_agent_is_open_to_prometheus_and_to_itself_only() -> None:
    fleet = view(agents=here(), gateways=at("gw", "192.0.2.7"))
    found = access(settings(), fleet)
    assert PortOf("tcp", fleet.required(AGENTS).node_exporter.port) in found.ours
    assert found.openings == (), "nobody scrapes here"


def test_what_the_operator_opens_is_open() -> None:
    opened = [{"port": 2049, "protocol": "tcp", "networks": ["192.0.2.0/24"]}]
    found = access(settings(also_open=opened), view())
    assert sources(found, 2049) == {"192.0.2.0/24"}
    assert PortOf("tcp", 2049) not in found.ours


def test_the_inventorys_port_of_ssh_is_one_too() -> None:
    found = access(settings(ssh_from=["192.0.2.0/24"]), replace(view(), ssh_port=2222))
    assert found.guarded == (PortOf("tcp", 22), PortOf("tcp", 2222))
    assert {(one.port.number, str(one.network)) for one in found.openings} == {
        (22, "192.0.2.0/24"),
        (2222, "192.0.2.0/24"),
    }
    everybody = access(settings(), view())
    assert (everybody.guarded, everybody.openings) == ((), ()), "no rule is about it"
    assert access(settings(default="drop"), view()).openings, "but where all else is closed"


def test_a_host_with_a_name_for_an_address_is_refused_where_it_has_to_be_let_in() -> None:
    fleet = view(jaeger=here(), gateways=at("gw", "gateway.example"), packet_filter=here())
    assert list(peers_without_address(fleet)) == [("gw", "gateway.example")]
    (finding,) = ROLE.problems_in(fleet)
    assert (finding.key, finding.suggestion) == (
        "packet_filter.enabled",
        "set telemetry.address of gw to its IP address",
    )
    off = view(jaeger=here(), gateways=at("gw", "gateway.example"), packet_filter=here(settings(enabled=False)))
    assert not list(ROLE.problems_in(off))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_nobody_comes_from_loopback(address: str) -> None:
    fleet = view(jaeger=here(), gateways=at("gw", address))
    assert sources(access(settings(), fleet), fleet.required(JAEGER).grpc_port) == set()
    assert not list(peers_without_address(fleet))


def test_the_zone_of_an_address_means_nothing_elsewhere() -> None:
    fleet = view(jaeger=here(), gateways=(at("a", "fe80::7%eth0"), at("b", "::ffff:192.0.2.9")))
    assert sources(access(settings(), fleet), fleet.required(JAEGER).grpc_port) == {"fe80::7/128", "192.0.2.9/32"}


def test_networks_are_written_as_networks() -> None:
    with pytest.raises(ValidationError, match=r"is an address inside a network; write 192\.0\.2\.0/24"):
        settings(ssh_from=["192.0.2.9/24"])
    with pytest.raises(ValidationError, match="is not a network of IP addresses"):
        settings(pages_from=["office"])


# ---- what is placed


def test_without_the_filter_all_of_it_is_absent() -> None:
    off = ROLE.state(settings(enabled=False), view())
    assert all(isinstance(path, Absent) for path in off.files)
    assert {path.path for path in off.files} == {path.path for path in ROLE.state(settings(), view()).files}
    assert (off.units, off.packages, off.packet_filters[0].rules) == ((), (), None)


def test_its_package_is_one_of_the_host() -> None:
    fleet = view(base=here(), packet_filter=here())
    composed = compose(fleet, [role for role in ROLES if role.name in ("base", "packet_filter")])
    assert "nftables" in composed.packages
    assert fact.RULES in {path.path for path in composed.paths}


def test_a_boot_loads_ours_alone() -> None:
    (unit,) = (path for path in ROLE.state(settings(), view()).files if path.path == fact.UNIT_FILE)
    assert isinstance(unit, File)
    assert b"flush" not in unit.content + rules(settings(), view())
    assert b"Before=network-pre.target" in unit.content


# ---- the real nft

HOST, PEER, STRANGER = "10.9.0.1", "10.9.0.2", "10.9.0.3"
HOST6, PEER6, STRANGER6 = "fd00:9::1", "fd00:9::2", "fd00:9::3"
_OPERATORS = 2049


@pytest.fixture(scope="module")
def lan() -> Iterator[list[Computer]]:
    """A host with every program, one with every program that connects to them, and a stranger."""
    with computers(
        host=(f"{HOST}/24", f"{HOST6}/64"),
        peer=(f"{PEER}/24", f"{PEER6}/64"),
        stranger=(f"{STRANGER}/24", f"{STRANGER6}/64"),
    ) as found:
        yield found


def whole_fleet(peer: str) -> FleetView:
    """Everything runs on the host, and everything on the peer."""
    every = {role.name: (here(), at("peer", peer)) for role in ALL}
    return view(address=HOST, **every, telemetry=(here(), at("peer", peer)), mirror_client=at("peer", peer))


def ports(fleet: FleetView) -> dict[str, bool]:
    """Every port of ours, and whether hosts of the fleet are to reach it."""
    found: dict[str, bool] = {}
    for listener in fleet.listeners():
        for transport in listener.transports:
            key = f"{transport}:{listener.port}"
            found[key] = found.get(key, False) or bool(listener.peers - {fleet.host})
    return found


def numbers(names: Mapping[str, object], transport: str) -> list[int]:
    return sorted({int(name.partition(":")[2]) for name in names if name.startswith(f"{transport}:")})


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize(
    ("host", "peer", "own"), [(HOST, PEER, "127.0.0.1"), (HOST6, PEER6, "::1")], ids=["ipv4", "ipv6"]
)
@pytest.mark.parametrize("default", ["accept", "drop"])
def test_the_kernel_lets_peers_in_and_nobody_else(
    lan: list[Computer], host: str, peer: str, own: str, default: str
) -> None:
    here_, there, stranger = lan
    fleet = whole_fleet(peer)
    here_.run("nft", "add", "table", "inet", "others")
    here_.load(rules(settings(pages_from=[f"{PEER}/32", f"{PEER6}/128"], default=default), fleet))
    expected = ports(fleet)
    assert len(expected) > 40
    with here_.listening([*numbers(expected, "tcp"), _OPERATORS], numbers(expected, "udp")):
        every = [*expected, f"tcp:{_OPERATORS}"]
        assert set(here_.tries(own, *every).values()) == {"open"}, "the host itself"
        assert set(here_.tries(host, *every).values()) == {"open"}, "also by its address"
        seen = stranger.tries(host, *every)
        assert seen.pop(f"tcp:{_OPERATORS}") == ("open" if default == "accept" else "silent"), "not ours"
        assert set(seen.values()) == {"refused"}
        seen = there.tries(host, *expected)
    pages = {listener.port for listener in fleet.listeners() if listener.is_page}
    wanted = {
        name: "open" if is_open or int(name.partition(":")[2]) in pages else "refused"
        for name, is_open in expected.items()
    }
    assert seen == wanted
    assert "others" in here_.run("nft", "list", "tables").stdout, "tables of others stay"


@pytest.mark.slow
@needs_root
def test_who_may_not_log_in_begins_nothing_new(lan: list[Computer]) -> None:
    here_, there, stranger = lan
    restricted = rules(settings(ssh_from=[f"{PEER}/32"]), view())
    here_.load(rules(settings(), view()))
    with here_.talking(22), stranger.connected(HOST, 22) as answers:
        assert answers("before"), "everybody may log in"
        here_.load(restricted)
        assert there.tries(HOST, "tcp:22") == {"tcp:22": "open"}
        assert stranger.tries(HOST, "tcp:22") == {"tcp:22": "refused"}
        assert answers("after"), "the deploy that loads the rules goes on over the connection that it has"


@pytest.mark.slow
@needs_root
def test_what_a_closed_host_asks_for_it_gets(lan: list[Computer]) -> None:
    here_, _, stranger = lan
    here_.load(rules(settings(default="drop"), view()))
    with stranger.listening([8080], [53]):
        assert here_.tries(STRANGER, "tcp:8080", "udp:53") == {"tcp:8080": "open", "udp:53": "open"}
        assert here_.tries(STRANGER6, "tcp:8080") == {"tcp:8080": "open"}, "neighbours are found"


SHIPPED, NOBODY = shipped("packet_filter"), view()
networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: str(ip_network((pair[0], pair[1]), strict=False)))


@hypothesis.settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(1, 65535), networks), max_size=40))
def test_no_network_lies_in_another_of_the_same_port(entries: list[tuple[str, int, str]]) -> None:
    """The kernel would refuse the set."""
    opened = tuple(
        OpenPortSettings.model_validate({"port": port, "protocol": protocol, "networks": [network]})
        for protocol, port, network in entries
    )
    found = access(SHIPPED.model_copy(update={"also_open": opened}), NOBODY).openings
    for one in found:
        others = [other for other in found if other.port == one.port and other is not one]
        assert not any(_inside(one, other) for other in others)
    for protocol, port, network in entries:
        assert any(
            one.port == PortOf(protocol, port) and _inside(Opening(one.port, ip_network(network)), one)  # type: ignore[arg-type]
            for one in found
        )


def _inside(one: Opening, other: Opening) -> bool:
    if one.network.version != other.network.version:
        return False
    return int(other.network.network_address) <= int(one.network.network_address) and int(
        one.network.broadcast_address
    ) <= int(other.network.broadcast_address)
