"""`rtinfra check`: settings without a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtinfra.cli import app
from rtinfra.demo import inventory

HOSTS = """hosts:
  robot-1:
    groups: [rt_hosts]
    ssh: {address: 192.0.2.1}
    settings: {cpu: {isolated: "%s"}}
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    return tmp_path / "hosts.yaml"


def test_fine(hosts: Path) -> None:
    hosts.write_text(HOSTS % "2-3")
    done = CliRunner().invoke(app, ["check", "--inventory", str(hosts)])
    assert done.exit_code == 0
    assert "robot-1: settings are fine (rt_hosts)" in done.output
    # The next step works on the same hosts.
    assert f"Next: rtinfra plan --inventory {hosts} " in done.output


def test_errors_end_with_2_and_say_where(hosts: Path) -> None:
    hosts.write_text(HOSTS % "3-2")
    done = CliRunner().invoke(app, ["check", "--inventory", str(hosts)])
    assert done.exit_code == 2
    assert "hosts.yaml:5: cpu.isolated" in done.output


def test_json(hosts: Path) -> None:
    hosts.write_text(HOSTS % "3-2")
    done = CliRunner().invoke(app, ["check", "--inventory", str(hosts), "--json"])
    assert done.exit_code == 2
    found = json.loads(done.output)
    assert found["ok"] is False
    assert found["problems"][0]["line"] == 5


def test_no_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(tmp_path))
    done = CliRunner().invoke(app, ["check", "--inventory", str(tmp_path)])
    assert done.exit_code == 2
    assert "there are no hosts yet" in done.output


def test_the_demonstration_never_takes_an_operators_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtinfra.demo.PROJECT", tmp_path)
    (tmp_path / "inventory").mkdir()
    assert inventory() == "inventory"
    (tmp_path / "inventory" / "hosts.yaml").write_text("hosts: {}\n")
    assert inventory() == "inventory/lab.py"
