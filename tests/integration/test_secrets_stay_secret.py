"""Secrets are planted everywhere one can be; then everything that anybody else could read is searched for them."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.context import ctx_state

from roles.preflight import role as role
from rtinfra.operations import files
from tests.fake_hosts import known_marker
from tests.integration.http_services import (
    GENIE_KEY,
    SLACK_PATH,
    TEAMS_PATH,
    TELEGRAM_TOKEN,
    WEBHOOK_PATH,
    Services,
    serving,
)
from tests.integration.servers import Process, free_port, redis
from tests.unit.telemetry_site import at, here, shipped, view

DATABASE_PASSWORD = "planted-database-password-5d21"
REDIS_PASSWORD = "planted-redis-password-8841"
API_TOKEN = "planted-api-token-0c9e"
VARIABLE = "planted-variable-value-73b0"


def planted(services: Services) -> dict[str, str]:
    """Every secret by its name."""
    return {
        "telegram_token": TELEGRAM_TOKEN,
        "slack_webhook": services.url + SLACK_PATH,
        "teams_webhook": services.url + TEAMS_PATH,
        "on_call_key": GENIE_KEY,
        "own_webhook": services.url + WEBHOOK_PATH,
        "database_password": DATABASE_PASSWORD,
        "redis_password": REDIS_PASSWORD,
        "orders_token": API_TOKEN,
    }


def needles(services: Services) -> list[str]:
    """What must be nowhere: values, their telling parts, and both in base64."""
    words = [
        *planted(services).values(),
        *(SLACK_PATH, TEAMS_PATH, WEBHOOK_PATH, VARIABLE),
        TELEGRAM_TOKEN.partition(":")[2],
    ]
    return [*words, *(base64.b64encode(word.encode()).decode().rstrip("=")[:-2] for word in words)]


def leaks(text: str, services: Services) -> list[str]:
    return [word for word in needles(services) if word in text]


@pytest.fixture
def services() -> Iterator[Services]:
    with serving(Services()) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Process]:
    with redis(tmp_path, password=REDIS_PASSWORD) as server:
        yield server


def settings(services: Services, cache: Process, root: Path) -> dict[str, Any]:
    gone = f"host=127.0.0.1 port={free_port()} dbname=x user=y"
    return {
        "environment": "prod",
        "namespace": "rtinfra",
        "timeout": "3s",
        "state_directory": str(root / "state"),
        "textfile_directory": str(root / "textfiles"),
        "evidence": {"keep": 5},
        "checks": {
            "variables": [{"name": "PLANTED", "pattern": "[0-9]+"}],
            "required_secrets": sorted(planted(services)),
            "guards": [],
            "redis": {
                "url": f"redis://127.0.0.1:{cache.port}/0",
                "password_secret": "redis_password",
                "slow": "500ms",
            },
            "postgres": {"conninfo": gone, "password_secret": "database_password", "slow": "1s"},
            "apis": [
                {"name": "orders", "url": f"{services.url}/health", "token_secret": "orders_token", "slow": "1s"},
                # A redirect must not carry the token anywhere.
                {
                    "name": "away",
                    "url": f"http://127.0.0.1:{free_port()}/",
                    "token_secret": "orders_token",
                    "slow": "1s",
                },
            ],
            "application": {"url": None, "command": ["/bin/sh", "-c", "sleep 0.3; exit 2"], "slow": "1s"},
            "deployed_tree": None,
            "realtime": None,
        },
        "notify": {
            "p1_interval": "5min",
            "timeout": "2s",
            "attempts": 2,
            "runbooks_url": None,
            "telegram": {"token_secret": "telegram_token", "chat_id": 1, "api_url": services.url},
            "slack": {"url_secret": "slack_webhook"},
            "teams": {"url_secret": "teams_webhook"},
            "on_call": {"key_secret": "on_call_key", "api_url": services.url},
            "webhook": {"url_secret": "own_webhook"},
            "record": {"conninfo": gone, "password_secret": "database_password"},
        },
    }


class ProcessList:
    """Looks at the arguments of every process, again and again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._end = threading.Event()

    def __enter__(self) -> ProcessList:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
            time.sleep(0.02)


@pytest.mark.parametrize("down", [set(), {"telegram", "slack", "teams", "on_call", "webhook"}])
def test_a_run_shows_none(services: Services, cache: Process, tmp_path: Path, down: set[str]) -> None:
    """With channels that work, and with channels that fail and are tried again."""
    services.down = down
    vault = tmp_path / "secrets"
    vault.mkdir(mode=0o700)
    for name, value in planted(services).items():
        (vault / name).write_text(value)
        (vault / name).chmod(0o600)
    (tmp_path / "textfiles").mkdir()
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings(services, cache, tmp_path)))
    # The program of the unit, with the folder of this test in place of the host's; every library may log all it wants.
    program = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG); from pathlib import Path; "
        "from rtinfra.preflight.main import Defaults, load_json, start; from rtinfra.secrets import LocalSecrets; "
        f"start(Defaults('x', Path({str(path)!r}), load_json, lambda: LocalSecrets(Path({str(vault)!r}), {{}})))"
    )
    before = os.umask(0o022)
    try:
        with ProcessList() as processes:
            result = subprocess.run(
                [sys.executable, "-I", "-c", program, "--output-json", str(tmp_path / "report.json")],
                capture_output=True,
                text=True,
                env={"PATH": "/usr/bin:/bin", "PLANTED": VARIABLE},
                timeout=60,
                check=False,
            )
    finally:
        os.umask(before)
    assert result.returncode == 2, result.stderr
    assert "PASS  redis" in result.stdout and "PASS  secrets" in result.stdout and "PASS  api:orders" in result.stdout
    assert bool(services.taken("telegram")) == (not down)
    assert any("rtinfra.preflight.main" in line for line in processes.seen)
    texts = {"stdout": result.stdout, "stderr": result.stderr, "arguments": "\n".join(processes.seen)}
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.parent != vault and file.name != "redis.conf":
            texts[str(file)] = file.read_text(errors="replace")
    assert len(texts) > 8
    assert {name: found for name, text in texts.items() if (found := leaks(text, services))} == {}
    # Nobody else reads what is kept, but for the metrics.
    modes = {file.name: file.stat().st_mode & 0o077 for file in (tmp_path / "state").rglob("*") if file.is_file()}
    assert {name for name, mode in modes.items() if mode & 0o007} <= {
        name for name in modes if name.endswith((".prom", ".lock"))
    }
    assert modes["unrecorded.jsonl"] == 0


def test_a_deploy_shows_none(services: Services, cache: Process, tmp_path: Path, caplog: Any, capfd: Any) -> None:
    """The role's files, with --diff and every log there is: commands, logs, labels, diffs."""

    class Vault:
        def read(self, name: str) -> bytes:
            return planted(services)[name].encode()

    where = view(agents=here(), gateways=at("gw", "192.0.2.10"))
    object.__setattr__(where, "secrets", Vault())
    chosen = settings(services, cache, tmp_path)
    # The role knows where node_exporter looks, and systemd makes the directory for results.
    del chosen["state_directory"], chosen["textfile_directory"]
    part = role.state(shipped("preflight", **chosen), where)
    secret_files = [path for path in part.files if getattr(path, "secret", False)]
    assert len(secret_files) == len(planted(services))
    data = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": {"echo @@": "@@nothing"}}
    inventory = Inventory(([("@fake/one", data)], {}))
    state = State(inventory, Config(DIFF=True))
    with caplog.at_level(logging.DEBUG), known_marker(), ctx_state.use(state):
        connect_all(state)
        add_op(state, files.sync, name="files", paths=[*part.accounts, *part.files])
        run_ops(state)
    (fake,) = inventory
    shown = capfd.readouterr()
    labels = " ".join(str(meta.names) for meta in state.op_meta.values())
    texts = {
        "commands": "\n".join(map(str, fake.connector.executed_commands)),
        "log": caplog.text,
        "output": shown.out + shown.err,
        "labels": labels,
        "values": repr(part) + repr(state.op_meta),
    }
    assert len(fake.connector.executed_commands) >= 2
    assert "settings.json" in caplog.text
    assert {name: found for name, text in texts.items() if (found := leaks(text, services))} == {}
    for path in part.files:
        if path not in secret_files:
            assert not leaks(getattr(path, "content", b"").decode(), services), path.path
