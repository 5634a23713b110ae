"""What the `preflight` role does to a bare real-time host: every command, every file, against a stored text.

After an intended change: `pytest tests/golden --update-golden`, then read the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pyinfra.api.operation import add_op
from pyinfra.api.state import State

from roles.preflight import role as preflight
from rtinfra.operations import environments, files, units
from rtinfra.operations.environments import _SCRIPT
from rtinfra.operations.resources import File
from tests.golden.plan import commands, path_lines
from tests.unit.telemetry_site import at, here, shipped, view
from tests.unit.test_wheelhouse import house

EXPECTED = Path(__file__).parent / "expected" / "preflight.txt"
SETTINGS = {
    "environment": "prod",
    "checks": {
        "guards": [{"name": "live", "file": "/etc/mxrc/live", "prod": "on"}],
        "redis": {"url": "redis://127.0.0.1:6379/0", "password_secret": "redis_password", "slow": "20ms"},
    },
    "notify": {"telegram": {"token_secret": "telegram_token", "chat_id": -1001}},
}


def plan(directory: Path) -> str:
    where = view(
        is_rt=True,
        agents=here(),
        rt_app=here(),
        gateways=at("ops", "192.0.2.20"),
        alertmanager=at("ops", "192.0.2.20"),
    )
    part = preflight.state(shipped("preflight", **SETTINGS), where)
    wheels = house(directory)

    def steps(state: State) -> None:
        for environment in part.environments:
            add_op(state, environments.installed, name="environment", environment=environment, wheelhouse=wheels)
        add_op(state, files.sync, name="accounts", paths=part.accounts)
        add_op(state, files.sync, name="files", paths=part.files)
        add_op(state, units.ensure, name="units", units=part.units)

    answer = "@@python\n3.13\n@@current\n@@wheels\n"
    lines = ["# Commands on a bare host, without those that only look", ""]
    lines += commands(steps, {"echo @@": answer.splitlines()})
    lines += ["", "# Paths", ""]
    for path in (*part.accounts, *part.files):
        if isinstance(path, File) and path.secret:
            lines += [f"secret file {path.path} {path.mode} {path.owner}:{path.group}", ""]
        else:
            lines += path_lines(path)
    text = "\n".join(lines).replace("'" + _SCRIPT.replace("'", "'\"'\"'") + "'", "<environment.sh>")
    # What depends on the text of our own modules.
    text = re.sub(r"0\.1\.0\+[0-9a-f]{12}", "0.1.0+MODULES", text)
    return re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b", "HASH", text) + "\n"


def test_plan(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    actual = plan(tmp_path)
    if request.config.getoption("--update-golden"):
        EXPECTED.write_text(actual, encoding="utf-8")
    assert actual == EXPECTED.read_text(encoding="utf-8")
    assert "value-of-" not in actual
