"""Two real-time hosts and a change that reboots both: one after the other, and none after the first that fails.

The second one is a copy of the first, on a network of its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from typing import Any

import pytest
from ruamel.yaml import YAML

from rtinfra.facts.boot import BOOT_PROGRAM
from rtinfra.lab import Machine
from rtinfra.lab.inventory import inventory_yaml
from tests.e2e.conftest import LAB, MACHINE
from tests.e2e.test_2_deploy import out
from tests.project import Project

pytestmark = pytest.mark.heavy
_FIRST, _SECOND = MACHINE, "second"


@dataclass(frozen=True)
class Fleet:
    """Both hosts, by their names in the inventory."""

    hosts: dict[str, Machine]

    def boots(self) -> dict[str, str]:
        """Which boot each host is in."""
        return {name: machine.boot_id() for name, machine in self.hosts.items()}

    def write_inventory(self, project: Project) -> None:
        """Make them the operator's own hosts."""
        yaml = YAML(typ="safe")
        hosts: dict[str, Any] = {}
        for name, machine in self.hosts.items():
            hosts[name] = yaml.load(inventory_yaml([machine]))["hosts"][machine.name]
        text = StringIO()
        yaml.dump({"hosts": hosts}, text)
        project.write_hosts(text.getvalue())


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[Fleet]:
    """The deployed machine and a copy of it."""
    root = LAB / "second"
    if root.exists():
        Machine(MACHINE, root=root).down()
        shutil.rmtree(root)
    machine.run("sync")
    second = machine.as_cut_off(root)
    second.up()
    for host in (machine, second):
        # On a kept machine the same scenario was tried before.
        host.run(f"{BOOT_PROGRAM} forget")
    yield Fleet({_FIRST: machine, _SECOND: second})
    second.down()
    shutil.rmtree(root)


@pytest.fixture
def fleet_project(project: Project, fleet: Fleet) -> Project:
    """A fresh copy of the project with both as its hosts, which are as its settings say."""
    fleet.write_inventory(project)
    result = project.deploy()
    assert result.ok, result.log
    return project


def turns(log: str) -> list[tuple[str, str]]:
    """What the run said about reboots, in its order: the host, and whether it goes or is back.

    A second attempt of the same host is part of the first.
    """
    said = re.findall(r"\[(\S+)\] +(reboot|is back)\b", re.sub(r"\x1b\[[0-9;]*m", "", log))
    return [turn for turn, _ in groupby(said)]


def test_none_reboots_after_the_first_that_fails(fleet: Fleet, fleet_project: Project) -> None:
    """The kernel rejects the isolation on whichever comes first; the robot cell of the other goes on."""
    before = fleet.boots()
    fleet_project.edit("group_data/rt_hosts.yaml", "- skew_tick=1", "- skew_tick=1\n    - nr_cpus=2")
    result = fleet_project.deploy()
    assert not result.ok
    rebooted = {name for name, boot in fleet.boots().items() if boot != before[name]}
    assert len(rebooted) == 1, result.log
    (first,) = rebooted
    (spared,) = fleet.hosts.keys() - rebooted
    assert turns(result.log) == [(first, "reboot"), (first, "is back")]
    assert f"[{spared}] is not rebooted, since {first} did not come back as it should" in result.log
    for machine in fleet.hosts.values():
        assert out(machine, "cat /sys/fs/cgroup/cpuset.cpus.isolated") == "2-3"
        assert out(machine, "systemctl is-active mxrc-rt") == "active"
        assert "next_entry=rtinfra" not in out(machine, "cat /boot/grub/grubenv")


def test_they_reboot_one_after_the_other(fleet: Fleet, fleet_project: Project) -> None:
    before = fleet.boots()
    fleet_project.edit("group_data/rt_hosts.yaml", "- skew_tick=1", "- skew_tick=0")
    result = fleet_project.deploy()
    assert result.ok, result.log
    assert all(boot != before[name] for name, boot in fleet.boots().items())
    order = turns(result.log)
    first, second = order[0][0], order[-1][0]
    assert first != second
    assert order == [(first, "reboot"), (first, "is back"), (second, "reboot"), (second, "is back")]
    for machine in fleet.hosts.values():
        assert "skew_tick=0" in out(machine, "cat /proc/cmdline").split()
    assert fleet_project.deploy().changed == 0

    # As it was for the scenarios that follow.
    fleet_project.edit("group_data/rt_hosts.yaml", "- skew_tick=0", "- skew_tick=1")
    assert fleet_project.deploy("--limit", _FIRST).ok
