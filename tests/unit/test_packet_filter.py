"""Who may reach what: listeners of all roles, and the rules that follow from them."""

from __future__ import annotations

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
from roles.shape import AnyRole, Role
from rtinfra.facts import packet_filter as fact
from rtinfra.operations.resources import Absent, File
from tests.unit.telemetry_site import at, here, rt_app, shipped, view

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


# ---- networks

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
