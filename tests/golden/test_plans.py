"""The whole plan of a host, command by command and file by file, against stored texts.

`debian-13.txt` is the plan of a bare Debian 13 host with four cores on two NUMA nodes. Every other scenario is
stored as its difference from that one, so that a reader sees what a distribution or a setting changes.
After an intended change: `pytest tests/golden --update-golden`, then read the difference before committing it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from roles.host import HostConfig
from rtinfra.config import FleetHost
from rtinfra.cpu import Topology
from rtinfra.facts.packet_filter import PacketFilterState
from tests.golden.plan import commands, host_with, mirror_plan, plan, steps_of, target_of

EXPECTED = Path(__file__).parent / "expected"
BASE = "debian-13"

# What differs from the base scenario: distribution, topology, settings of the host.
SCENARIOS: Mapping[str, tuple[str, Topology, Mapping[str, object]]] = {
    BASE: (BASE, Topology.flat(4, nodes=2), {}),
    "debian-12": ("debian-12", Topology.flat(4, nodes=2), {}),
    "ubuntu-24.04": ("ubuntu-24.04", Topology.flat(4, nodes=2), {}),
    "isolated-one-core": (BASE, Topology.flat(4, nodes=2), {"cpu": {"isolated": "3"}}),
    "one-sysctl": (BASE, Topology.flat(4, nodes=2), {"rt_tuning": {"sysctl": {"vm.swappiness": 1}}}),
    "no-watchdog": (BASE, Topology.flat(4, nodes=2), {"rt_tuning": {"watchdog": {"enabled": False}}}),
    "time-servers": (BASE, Topology.flat(4, nodes=2), {"base": {"time": {"servers": ["192.0.2.123"]}}}),
    "sixteen-threads": (
        BASE,
        Topology.flat(16, nodes=2, threads=2),
        {"cpu": {"isolated": "4-7,12-N"}},
    ),
}


def _host(name: str) -> tuple[FleetHost[HostConfig], str, Topology]:
    distribution, topology, settings = SCENARIOS[name]
    return host_with(settings), distribution, topology


@pytest.fixture(scope="module")
def base_plan() -> str:
    return plan(*_host(BASE))


@pytest.mark.parametrize("name", SCENARIOS)
def test_plan(name: str, base_plan: str, request: pytest.FixtureRequest) -> None:
    if name == BASE:
        actual, stored = base_plan, EXPECTED / f"{name}.txt"
    else:
        lines = difflib.unified_diff(
            base_plan.splitlines(), plan(*_host(name)).splitlines(), BASE, name, lineterm="", n=1
        )
        actual, stored = "\n".join(lines) + "\n", EXPECTED / f"{name}.diff"
    if request.config.getoption("--update-golden"):
        stored.write_text(actual, encoding="utf-8")
    assert actual == stored.read_text(encoding="utf-8")


@pytest.mark.parametrize("role", ["mirror_server", "mirror_client"])
def test_mirror_plan(role: str, request: pytest.FixtureRequest) -> None:
    actual, stored = mirror_plan(role), EXPECTED / f"{role.replace('_', '-')}.txt"
    if request.config.getoption("--update-golden"):
        stored.write_text(actual, encoding="utf-8")
    assert actual == stored.read_text(encoding="utf-8")


def test_one_sysctl_touches_one_file() -> None:
    """Changing one sysctl in the settings changes exactly that file."""
    stored = (EXPECTED / "one-sysctl.diff").read_text(encoding="utf-8")
    changed = [line for line in stored.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-    -vm.swappiness = 10", "+    -vm.swappiness = 1"]


@pytest.mark.parametrize("has_program", [True, False])
def test_the_packet_filter_comes_as_early_as_its_program_is_there(has_program: bool) -> None:
    """New clients of a mirror have to be let in before they ask for packages."""
    target = target_of(host_with({}, groups=()), BASE, Topology.flat(4, nodes=2))
    found = replace(target, packet_filter=PacketFilterState(has_program=has_program))
    sent = commands(lambda state: steps_of(state, found))
    (trial,) = (number for number, command in enumerate(sent) if command.startswith("set -- try"))
    (packages,) = (number for number, command in enumerate(sent) if " install nftables " in command)
    assert (trial < packages) is has_program
