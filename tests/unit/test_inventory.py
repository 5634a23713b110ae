"""Where `pyinfra inventory deploy.py` finds its hosts, and what pyinfra gets of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyinfra.api import Inventory
from pyinfra.api.exceptions import InventoryError

from roles.fleet import load_hosts
from roles.shared import CPU
from rtinfra.inventory import fleet_host_of, groups, make_inventory, source
from rtinfra.paths import PROJECT

HOSTS = """hosts:
  robot-1:
    groups: [rt_hosts]
    ssh: {address: 192.0.2.1, port: 2222}
  store-1:
    groups: []
    ssh: {address: 192.0.2.2}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "hosts.example.yaml").write_text(HOSTS)
    return tmp_path


def test_the_operators_file_wins_over_the_lab(directory: Path, tmp_path: Path) -> None:
    lab = tmp_path / "lab.yml"
    lab.write_text(HOSTS)
    assert source(directory, lab) == lab
    (directory / "hosts.yaml").write_text(HOSTS)
    assert source(directory, lab) == directory


def test_no_hosts_says_what_to_create(directory: Path) -> None:
    with pytest.raises(InventoryError, match=r"Copy .*hosts.example.yaml to .*hosts.yaml.*make demo"):
        source(directory, directory / "no-lab")


def test_pyinfra_gets_hosts_groups_and_strict_keys(directory: Path) -> None:
    (directory / "hosts.yaml").write_text(HOSTS)
    fleet = load_hosts(PROJECT, directory / "hosts.yaml")
    inventory = make_inventory(fleet)
    robot = inventory.get_host("robot-1")
    assert robot.data.ssh_hostname == "192.0.2.1"
    assert robot.data.ssh_port == 2222
    assert robot.data.ssh_strict_host_key_checking == "yes"
    assert [host.name for host in inventory.get_group("rt_hosts")] == ["robot-1"]
    assert fleet_host_of(robot).config[CPU].isolated == "2-3"
    assert set(groups(fleet)) == {"rt_hosts", "ungrouped"}


def test_a_host_from_elsewhere_is_refused() -> None:
    (stranger,) = Inventory((["192.0.2.9"], {}))
    with pytest.raises(InventoryError, match="has no settings"):
        fleet_host_of(stranger)
