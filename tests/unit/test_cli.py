"""The `rtinfra` command itself, and `rtinfra check`: settings without a host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtinfra.cli import COMMANDS, app, load
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


def test_the_list_of_commands_imports_none_of_them() -> None:
    program = "import sys; from rtinfra.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *shown, modules = done.stdout.splitlines()
    assert any("verify" in line for line in shown)
    loaded = {name.partition(".")[0] for name in modules.split()}
    assert "rich" in loaded, "the list of modules is not what was asked for"
    assert not loaded & {"pyinfra", "gevent", "paramiko", "pydantic", "jinja2", "httpx", "pytest", "roles"}
    assert {name for name in modules.split() if name.startswith("rtinfra")} == {"rtinfra", "rtinfra.cli"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert (command.help or "").partition("\n\n")[0].replace("\n", " ") == COMMANDS[name].help


def test_a_mistyped_command_is_guessed() -> None:
    done = CliRunner().invoke(app, ["verfy"])
    assert done.exit_code == 2
    assert "Did you mean 'verify'?" in done.output
