"""deploy.py as a whole, for a fleet of pyinfra's @fake hosts: in which order its operations come."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pyinfra
import pyinfra.api.util
import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_inventory, ctx_state
from pyinfra_cli.util import load_deploy_file

from roles.fleet import load_hosts
from rtinfra import adapters
from rtinfra.config import Fleet
from rtinfra.inventory import FLEET_DATA_KEY, HOST_DATA_KEY
from rtinfra.paths import PROJECT
from tests.fake_hosts import known_marker
from tests.unit.mirror_fleet import served_answer

# Clients first, as an operator may list them.
HOSTS = """hosts:
  robot: {groups: [mirror_client], ssh: {address: 192.0.2.1}}
  mirror: {groups: [mirror_server], ssh: {address: 192.0.2.5}}
"""
GOOD_HOST = [
    *("@@os", "debian-13", "@@codename", "trixie", "@@architecture", "amd64", "@@online", "0-3"),
    *("@@systemd", "yes", "@@uid", "0"),
]


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return order_of(tmp_path, monkeypatch)


def order_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all operations in the order pyinfra would carry them out."""
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    loaded = load_hosts(PROJECT, tmp_path / "hosts.yaml").hosts
    # A connector is chosen by the name of the host.
    fleet = Fleet({f"@fake/{name}": replace(host, name=f"@fake/{name}") for name, host in loaded.items()})
    answer = [*GOOD_HOST, *served_answer(has_certificates=False)]
    hosts = [
        (
            name,
            {
                "fake_delay": 0,
                "fake_delay_jitter": 0,
                "fake_responses": {"echo @@": answer},
                HOST_DATA_KEY: host,
                FLEET_DATA_KEY: fleet,
            },
        )
        for name, host in fleet.hosts.items()
    ]
    inventory = Inventory((hosts, {}))
    state = State(inventory, Config())
    state.cwd = str(PROJECT)
    monkeypatch.setattr(pyinfra, "is_cli", True)
    monkeypatch.chdir(PROJECT)
    logging.disable(logging.CRITICAL)
    try:
        with known_marker(), ctx_state.use(state), ctx_inventory.use(inventory):
            connect_all(state)
            state.set_stage(StateStage.Prepare)
            load_deploy_file(state, os.fspath(PROJECT / "deploy.py"))
            return [name for operation in state.get_op_order() for name in state.get_op_meta(operation).names]
    finally:
        logging.disable(logging.NOTSET)


def test_the_mirror_serves_before_its_clients_are_pointed_at_it(order: list[str]) -> None:
    served = max(index for index, name in enumerate(order) if name.startswith("mirror_server |"))
    pointed = order.index("mirror_client | pointed")
    assert order.index("mirror_server | certificates") < order.index("mirror_server | files") <= served < pointed
    assert pointed < order.index("packages") < order.index("units")


def test_hosts_share_their_operations(order: list[str]) -> None:
    assert len(order) == len(set(order))


def test_callers_that_are_not_read_are_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    for name in ("stack", "getframeinfo"):
        monkeypatch.setattr(pyinfra.api.util, name, getattr(pyinfra.api.util, name))
    adapters.read_no_sources()
    frame = pyinfra.api.util.get_caller_frameinfo(-1)
    assert (Path(frame.filename).name, frame.code_context) == (Path(__file__).name, None)
    assert order_of(tmp_path, monkeypatch) == order
