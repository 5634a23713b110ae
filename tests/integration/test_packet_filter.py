"""The packet filter with the real nft, between computers that are network namespaces of this one.

systemd's timer is a shell in the background here; the scenario on a lab machine has the real one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from roles.packet_filter.access import access
from roles.packet_filter.role import ROLE, rules
from roles.shape import FleetView
from rtinfra.facts import output_sections
from rtinfra.facts import packet_filter as fact
from rtinfra.facts.packet_filter import PacketFilterState
from rtinfra.operations import packet_filter
from rtinfra.operations.packet_filter import PacketFilter
from rtinfra.operations.resources import File
from rtinfra.verify.look import packet_filter as look_at_table
from rtinfra.verify.look import sockets
from rtinfra.verify.look.answer import Answer
from tests.integration.filter_site import Computer, computers
from tests.unit.telemetry_site import at, here, shipped, view
from tests.unit.test_packet_filter import ALL, settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces")

# ---- who reaches what

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


def test_what_a_closed_host_asks_for_it_gets(lan: list[Computer]) -> None:
    here_, _, stranger = lan
    here_.load(rules(settings(default="drop"), view()))
    with stranger.listening([8080], [53]):
        assert here_.tries(STRANGER, "tcp:8080", "udp:53") == {"tcp:8080": "open", "udp:53": "open"}
        assert here_.tries(STRANGER6, "tcp:8080") == {"tcp:8080": "open"}, "neighbours are found"


# ---- new rules on trial

_RUN = """#!/bin/sh
for word; do case "$word" in --on-active=*) seconds=${word#*=} ;; esac; done
while [ "${1#-}" != "$1" ]; do shift; done
( sleep "$seconds"; exec "$@" ) >/dev/null 2>&1 &
echo $! >/run/timer
"""
_CTL = """#!/bin/sh
echo "$*" >>/run/systemctl
case "$*" in 'stop rtinfra-packet-filter-trial.timer') [ ! -e /run/timer ] || kill "$(cat /run/timer)" ;; esac
"""
OLD = b"table inet rtinfra\ndelete table inet rtinfra\ntable inet rtinfra {\n\tchain old {\n\t}\n}\n"
NEW = OLD.replace(b"chain old", b"chain new")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Computer]:
    """A computer with systemd's commands as far as the script needs them."""
    for name, text in (("systemd-run", _RUN), ("systemctl", _CTL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with computers(host=()) as (found,):
        yield found


def call(host: Computer, tools: Path, verb: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    text = f"PATH={tools}:$PATH\nset -- {verb}\n{packet_filter._SCRIPT}"
    return host.run("sh", "-c", text, stdin=stdin.decode(), check=False)


def table(host: Computer) -> str:
    return host.run("nft", "list", "ruleset").stdout


def eventually(host: Computer, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in table(host):
        assert time.monotonic() < deadline, table(host)
        time.sleep(0.1)


def test_who_is_not_heard_of_again_has_the_old_rules(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    assert call(host, tmp_path, "try 1", NEW).returncode == 0
    assert "chain new" in table(host)
    eventually(host, "chain old")
    assert "chain new" not in table(host)
    late = call(host, tmp_path, "keep 0")
    assert late.returncode == 1
    assert "the host has taken the new rules back" in late.stderr
    assert "chain old" in table(host)


def test_who_is_heard_of_keeps_the_new_ones(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    assert call(host, tmp_path, "try 1", NEW).returncode == 0
    assert call(host, tmp_path, "keep abc").returncode == 0
    time.sleep(1.5)
    assert "chain new" in table(host)
    words = host.run("cat", fact.LOADED).stdout.split()
    assert words == ["abc", host.run("sh", "-c", fact.HASH_TABLE).stdout.strip()]


def test_back_is_at_once_and_once(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    call(host, tmp_path, "try 30", NEW)
    assert call(host, tmp_path, "back").returncode == 0
    assert "chain old" in table(host)
    assert call(host, tmp_path, "back").returncode != 0, "there is nothing to take back"


def test_without_rules_before_there_are_none_again(host: Computer, tmp_path: Path) -> None:
    assert call(host, tmp_path, "try 30", NEW).returncode == 0
    call(host, tmp_path, "back")
    assert "rtinfra" not in table(host)


def test_rules_that_nft_refuses_change_nothing(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    done = call(host, tmp_path, "try 30", b"table inet rtinfra {\n chain x { tcp dport nonsense accept; }\n}\n")
    assert done.returncode == 1
    assert "rtinfra: nft refuses the rules, nothing was changed" in done.stderr
    assert "chain old" in table(host)
    assert host.run("test", "-e", "/run/timer", check=False).returncode == 1, "nothing was armed"


def test_what_a_run_that_died_has_tried_is_nothing_to_go_back_to(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    call(host, tmp_path, "try 30", NEW)
    assert call(host, tmp_path, "try 30", NEW.replace(b"new", b"newer")).returncode == 0
    call(host, tmp_path, "back")
    assert "chain old" in table(host)


def test_off_takes_ours_away_and_nothing_else(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    host.run("nft", "add", "table", "inet", "others")
    assert call(host, tmp_path, "off").returncode == 0
    assert table(host) == "table inet others {\n}\n"
    assert "disable --now --quiet rtinfra-packet-filter.service" in host.run("cat", "/run/systemctl").stdout


def test_the_loader_loads_the_file_and_takes_ours_away(host: Computer, tmp_path: Path) -> None:
    desired = _desired()
    (text,) = (path.content for path in desired.paths if isinstance(path, File) and path.path == fact.LOADER)
    program, content = tmp_path / "loader", tmp_path / "rules"
    program.write_bytes(text.replace(fact.RULES.encode(), str(content).encode()))
    content.write_bytes(desired.rules or b"")
    host.run("sh", str(program), "load")
    assert look(host).has_loaded(desired.sha256)
    host.run("sh", str(program), "unload")
    assert table(host) == ""


def _desired() -> PacketFilter:
    (found,) = ROLE.state(shipped("packet_filter"), view()).packet_filters
    return found


def look(host: Computer) -> PacketFilterState:
    text = host.run("sh", "-c", output_sections.script(fact.COMMANDS), check=False).stdout
    return fact.parse(output_sections.parse(text.splitlines()))


@pytest.mark.parametrize(
    "change",
    [
        "delete table inet rtinfra",
        "add rule inet rtinfra input accept",
        "flush chain inet rtinfra input",
        "flush set inet rtinfra ours",
        "add element inet rtinfra open4 { tcp . 9100 . 10.0.0.0/8 }",
    ],
)
def test_what_somebody_does_to_the_table_by_hand_is_seen(host: Computer, tmp_path: Path, change: str) -> None:
    content = rules(shipped("packet_filter"), view(agents=here()))
    sha256 = hashlib.sha256(content).hexdigest()
    assert not look(host).has_loaded(sha256)
    call(host, tmp_path, "try 30", content)
    call(host, tmp_path, f"keep {sha256}")
    assert look(host).has_loaded(sha256)
    assert not look(host).has_loaded("another")
    host.run("nft", *change.split())
    assert not look(host).has_loaded(sha256)
    call(host, tmp_path, "try 30", content)
    call(host, tmp_path, f"keep {sha256}")
    assert look(host).has_loaded(sha256)


# ---- what a verification sees


@pytest.mark.parametrize("default", ["accept", "drop"])
def test_what_the_real_nft_says_of_our_rules_is_what_they_mean(default: str) -> None:
    fleet = view(
        jaeger=here(), alertmanager=(here(), at("b", "fd00::5")), gateways=at("gw", "192.0.2.7"), prometheus=here()
    )
    settings = shipped("packet_filter", default=default, pages_from=["10.0.0.0/8", "fc00::/7"])
    with computers(host=()) as (host,):
        host.load(rules(settings, fleet))
        text = host.run("nft", "-j", "list", "table", "inet", "rtinfra").stdout
    seen = look_at_table.read(Answer({"packet_filter": text.splitlines()}))
    wanted = access(settings, fleet)
    assert seen.openings == {f"{one.port.transport} {one.port.number} {one.network}" for one in wanted.openings}
    assert seen.ours == {f"{port.transport} {port.number}" for port in wanted.ours}
    assert (seen.policy, seen.rules) == (default, 4 if default == "accept" else 8)


def test_the_real_ss_is_read() -> None:
    with computers(host=()) as (host,), host.listening([4711], [4712]):
        lines = host.run("ss", "-Hlntup").stdout.splitlines()
    found = sockets.read(Answer({"sockets": lines, "asking_ports": ["32768\t60999"]}))
    assert {(one.transport, one.port, one.address) for one in found.all} == {("tcp", 4711, "*"), ("udp", 4712, "*")}
    assert all(one.programs for one in found.all)
