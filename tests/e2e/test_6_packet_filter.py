"""L-15: nobody reaches a program but who has to, and no rule locks its operator out: the host takes such rules back.

The two machines of the telemetry scenarios. A third computer is a further address of the real-time machine.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping

import pytest

from roles.facets import Bound
from roles.fleet import load_hosts
from roles.packet_filter.access import access
from roles.packet_filter.role import rules
from roles.shape import FleetView
from roles.stand_ins import stand_in_view
from rtinfra.facts.packet_filter import RULES, UNIT
from rtinfra.lab import Machine
from rtinfra.lab.ssh import greets
from rtinfra.operations import packet_filter
from rtinfra.paths import PROJECT
from tests.e2e.conftest import INVENTORY, MACHINE
from tests.e2e.stack import BACKENDS, Backends, eventually
from tests.e2e.test_2_deploy import out
from tests.project import Project
from tests.unit.telemetry_site import shipped

TABLE = "nft -s list table inet rtinfra"
STRANGER = "10.77.0.250"
SSH_FROM = '  ssh_from: ["0.0.0.0/0", "::/0"]'
# Prints what becomes of a connection from the first argument, an address of this host, to each HOST:PORT that follows.
TRY = """
import json, socket, sys
found = {}
for place in sys.argv[2:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 5, (sys.argv[1], 0)).close()
        found[place] = "open"
    except OSError as error:
        found[place] = "silent" if isinstance(error, TimeoutError) else "refused"
print(json.dumps(found))
"""


def tries(machine: Machine, source: str, places: list[str]) -> dict[str, str]:
    """Return what becomes of a connection to each place, from an address of a machine."""
    words = " ".join(map(shlex.quote, [TRY, source, *places]))
    found: dict[str, str] = json.loads(out(machine, f"python3 -c {words}"))
    return found


def views() -> Mapping[str, FleetView]:
    """The fleet of both machines, as each sees it."""
    fleet = load_hosts(PROJECT, INVENTORY)
    return {name: stand_in_view(fleet, host) for name, host in fleet.hosts.items()}


def expected(view: FleetView, asking: str) -> dict[str, str]:
    """Return each place at which a host listens, and what is to become of a connection from another one of the fleet.

    A port that is open and at which nobody listens answers as one that is closed, so none of these may be.
    """
    found: dict[str, str] = {}
    for listener in view.listeners():
        if listener.bound is Bound.LOOPBACK or "tcp" not in listener.transports:
            continue
        is_open = asking in listener.peers or listener.is_page
        found |= {f"{address}:{listener.port}": "open" if is_open else "refused" for address in listener.addresses}
    return found


@pytest.fixture
def stranger(machine: Machine) -> Iterator[str]:
    """An address of the lab's network that no host of the inventory has."""
    card = out(machine, f"ip -o address show to {machine.lan_addresses[0]}").split()[1]
    machine.run(f"ip address add {STRANGER}/24 dev {card}")
    yield STRANGER
    machine.run(f"ip address del {STRANGER}/24 dev {card}")


def test_each_machine_reaches_of_the_other_what_it_needs(
    lab_project: Project, backends: Backends, machine: Machine
) -> None:
    seen = views()
    for asking, name, to in ((machine, MACHINE, BACKENDS), (backends.machine, BACKENDS, MACHINE)):
        wanted = expected(seen[to], name)
        assert wanted
        found = tries(asking, asking.lan_addresses[0], list(wanted))
        print(f"from {name}:", *(f"  {place} {became}" for place, became in found.items()), sep="\n")
        assert found == wanted


def test_a_stranger_reaches_pages_and_nothing_else(backends: Backends, machine: Machine, stranger: str) -> None:
    wanted = expected(views()[BACKENDS], "nobody")
    found = tries(machine, stranger, list(wanted))
    print(f"from {stranger}:", *(f"  {place} {became}" for place, became in found.items()), sep="\n")
    assert found == wanted
    assert set(wanted.values()) == {"open", "refused"}


def test_rules_that_lock_their_operator_out_are_taken_back(lab_project: Project, machine: Machine) -> None:
    before = out(machine, f"{TABLE}; sha256sum {RULES}")
    lab_project.edit("group_data/all.yaml", SSH_FROM, '  ssh_from: ["192.0.2.0/24"]')
    result = lab_project.deploy("--limit", MACHINE)
    assert not result.ok
    assert "no new login comes through the new packet filter" in result.log
    assert "its former rules are back, logging in works" in result.log
    assert "see that packet_filter.ssh_from has the network of this computer" in result.log
    assert greets(machine.port, 10), "logging in works"
    assert out(machine, f"{TABLE}; sha256sum {RULES}") == before
    lab_project.edit("group_data/all.yaml", '  ssh_from: ["192.0.2.0/24"]', SSH_FROM)
    assert lab_project.deploy("--limit", MACHINE).changed == 0


def test_a_run_that_dies_on_trial_leaves_the_former_rules(machine: Machine) -> None:
    """systemd's own timer, while nobody is there any more."""
    view, seconds = views()[MACHINE], 5
    locked = rules(shipped("packet_filter", ssh_from=[]), view)
    assert access(shipped("packet_filter", ssh_from=[]), view).guarded
    before = out(machine, TABLE)
    machine.run(f"set -- try {seconds}\n{packet_filter._SCRIPT}", input=locked)
    began = time.monotonic()
    assert not greets(machine.port, 3), "nobody may log in"
    eventually("a login", 60, lambda: greets(machine.port, 3))
    assert time.monotonic() - began < 30
    assert out(machine, TABLE) == before


def test_a_table_that_somebody_took_away_is_put_back(lab_project: Project, machine: Machine) -> None:
    before = out(machine, TABLE)
    machine.run("nft add table inet others; nft delete table inet rtinfra")
    result = lab_project.deploy("--limit", MACHINE)
    assert result.ok, result.log
    assert result.changed_operations == ("packet_filter | rules",)
    assert out(machine, TABLE) == before
    # Its stop takes away ours and no other; its start brings it.
    machine.run(f"systemctl stop {UNIT}")
    assert out(machine, "nft list tables") == "table inet others"
    machine.run(f"systemctl start {UNIT}; nft delete table inet others")
    assert out(machine, TABLE) == before
