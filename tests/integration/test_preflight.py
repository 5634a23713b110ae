"""The preflight against real servers: what people hear, what is kept, what Prometheus gets."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.http_services import TELEGRAM_TOKEN, Services, serving
from tests.integration.servers import Postgres, Process, Relay, node_exporter, postgres, redis

PASSWORD = "planted-postgres-password-77"


@dataclass
class Place:
    """A host with everything a preflight looks at."""

    root: Path
    redis: Process
    postgres: Postgres
    relay: Relay
    services: Services

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for all checks that can be well on any computer."""
        conninfo = self.postgres.conninfo(self.relay.port)
        return {
            "environment": "paper",
            "namespace": "rtinfra",
            "timeout": "3s",
            "state_directory": str(self.root / "state"),
            "textfile_directory": str(self.root / "textfiles"),
            "evidence": {"keep": 50},
            "checks": {
                "variables": [{"name": "PATH"}],
                "required_secrets": ["telegram_token"],
                "guards": [{"name": "live", "variable": "LIVE", "paper": ""}],
                "redis": {"url": f"redis://127.0.0.1:{self.redis.port}/0", "slow": "500ms"},
                "postgres": {"conninfo": conninfo, "password_secret": "postgres_password", "slow": "700ms"},
                "apis": [{"name": "orders", "url": f"{self.services.url}/health", "slow": "900ms"}],
                "application": {"url": f"{self.services.url}/health/ready", "command": [], "slow": "900ms"},
                "deployed_tree": str(self.root / "tree"),
                "realtime": None,
            },
            "notify": {
                "p1_interval": "5min",
                "timeout": "3s",
                "attempts": 2,
                "runbooks_url": "http://alerts.example:9095/runbooks",
                "telegram": {"token_secret": "telegram_token", "chat_id": -100123, "api_url": self.services.url},
                "slack": None,
                "teams": None,
                "on_call": None,
                "webhook": None,
                "record": {"conninfo": self.postgres.conninfo(), "password_secret": "postgres_password"},
            },
        }

    def run(self, *arguments: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Run it the way the unit does; returns exit code and report."""
        result = self.process(*arguments, "--json", **changes)
        return result.returncode, json.loads(result.stdout) if result.stdout else {"error": result.stderr}

    def process(self, *arguments: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        path = self.root / "settings.json"
        path.write_text(json.dumps(self.settings | changes))
        environment = {
            "PATH": "/usr/bin:/bin",
            "RTINFRA_SECRET_POSTGRES_PASSWORD": PASSWORD,
            "RTINFRA_SECRET_TELEGRAM_TOKEN": TELEGRAM_TOKEN,
        }
        command = [sys.executable, "-I", "-m", "rtinfra.preflight", "--settings", str(path), "--host", "robot-1"]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    def metric(self, name: str, **labels: str) -> float:
        """Return a value of the textfile."""
        return _value((self.root / "textfiles" / "rtinfra_preflight.prom").read_text(), name, **labels)

    def messages(self) -> list[str]:
        return [request.body["text"] for request in self.services.taken("telegram")]

    def recorded(self) -> list[tuple[str, bool, str]]:
        with psycopg.connect(self.postgres.conninfo(), password=PASSWORD) as connection:
            rows = connection.execute("SELECT priority, withheld, title FROM rtinfra_notifications ORDER BY at")
            return rows.fetchall()


def _value(text: str, name: str, **labels: str) -> float:
    found = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items())
    ]
    assert len(found) == 1, (name, labels, text)
    return found[0]


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres(PASSWORD) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, database: Postgres) -> Iterator[Place]:
    (tmp_path / "textfiles").mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    git = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    (tree / "application.py").write_text("pass\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    with psycopg.connect(database.conninfo(), password=PASSWORD) as connection:
        connection.execute("DROP TABLE IF EXISTS rtinfra_notifications")
    with (
        redis(tmp_path) as cache,
        serving(Services()) as services,
        Relay(database.process.port).running() as relay,
    ):
        yield Place(tmp_path, cache, database, relay, services)


def status(report: dict[str, Any], name: str) -> str:
    return next(str(check["status"]) for check in report["checks"] if check["check"] == name)


def test_all_is_well(place: Place) -> None:
    code, report = place.run()
    assert {check["check"]: check["status"] for check in report["checks"]} == dict.fromkeys(
        (
            *("variables", "secrets", "guard:live", "redis", "postgres"),
            *("api:orders", "application", "git"),
        ),
        "PASS",
    )
    assert (code, report["verdict"], report["ready_for_live"]) == (0, "PASS", True)
    assert place.messages() == []
    assert place.metric("rtinfra_preflight_ready_for_live", env="paper") == 1
    assert place.metric("rtinfra_preflight_last_success", env="paper") > 1.7e9
    assert place.metric("rtinfra_preflight_realcheck_redis_latency_seconds_count", env="paper") == 1
    assert place.metric("rtinfra_preflight_realcheck_postgres_latency_seconds_count", env="paper") == 1


def test_killing_redis_is_heard_within_one_run(place: Place) -> None:
    place.run()
    place.redis.kill()
    code, report = place.run()
    assert (code, status(report, "redis"), report["ready_for_live"]) == (2, "FAIL", False)
    (message,) = place.messages()
    # What, when, where, what to do, where to read on.
    assert message.startswith("[P0] robot-1 (paper) is not ready for live: redis failed")
    for part in (
        "Host: robot-1",
        "Time: 20",
        "FAIL redis: redis://",
        "What to do: see `systemctl status redis-server`",
    ):
        assert part in message
    assert message.endswith("Runbook: http://alerts.example:9095/runbooks/PreflightNotReady")
    assert [(priority, withheld) for priority, withheld, _ in place.recorded()] == [("P0", False)]
    assert place.metric("rtinfra_preflight_ready_for_live", env="paper") == 0
    assert place.metric("rtinfra_preflight_checks_total", check="redis", status="fail", env="paper") == 1
    kept = sorted((place.root / "state" / "evidence").glob("*.json"))
    assert len(kept) == 2
    evidence = json.loads(kept[-1].read_text())
    assert evidence["run"] == report["run"] and status(evidence, "redis") == "FAIL"
    assert {one["channel"]: one["ok"] for one in evidence["notifications"][0]["deliveries"]} == {
        "telegram": True,
        "record": True,
    }
    # P0 is never held back.
    place.run()
    assert len(place.messages()) == 2


def test_a_slow_postgres_is_one_warning_in_five_minutes(place: Place) -> None:
    place.run()
    place.relay.delay = 0.35
    for _ in range(2):
        code, report = place.run()
        assert (code, status(report, "postgres"), report["ready_for_live"]) == (1, "WARN", True)
    (message,) = place.messages()
    assert message.startswith("[P1] robot-1 (paper) has warnings: postgres")
    assert "PreflightWarns" in message
    # Both are written down; the second was held back.
    assert [(priority, withheld) for priority, withheld, _ in place.recorded()] == [("P1", False), ("P1", True)]
    assert place.metric("rtinfra_preflight_checks_total", check="postgres", status="warn", env="paper") == 2
    assert place.metric("rtinfra_preflight_realcheck_postgres_latency_seconds_bucket", le="0.25", env="paper") == 1


def test_a_postgres_that_is_away_is_reported_and_recorded_once_it_is_back(place: Place) -> None:
    settings = place.settings
    away = settings["checks"] | {"postgres": settings["checks"]["postgres"] | {"conninfo": "host=127.0.0.1 port=1"}}
    notify = settings["notify"] | {"record": settings["notify"]["record"] | {"conninfo": "host=127.0.0.1 port=1"}}
    code, report = place.run(checks=away, notify=notify)
    assert (code, status(report, "postgres")) == (2, "FAIL")
    assert len(place.messages()) == 1
    assert not next(one["ok"] for one in report["notifications"][0]["deliveries"] if one["channel"] == "record")
    place.redis.kill()
    place.run()
    assert [title.rpartition(": ")[2] for _, _, title in place.recorded()] == ["postgres failed", "redis failed"]


def test_what_hangs_costs_its_timeout_and_no_other_check(place: Place) -> None:
    place.relay.delay = 30
    code, report = place.run(timeout="1s")
    assert (code, status(report, "postgres"), status(report, "redis")) == (2, "FAIL", "PASS")
    # The run does not wait for the answer, which would come then.
    assert report["duration_seconds"] < place.relay.delay / 2


def test_a_wrong_password_is_named_and_not_shown(place: Place) -> None:
    place.redis.kill()
    with redis(place.root, password="planted-redis-password") as guarded:
        checks = place.settings["checks"] | {
            "redis": {"url": f"redis://127.0.0.1:{guarded.port}/0", "password_secret": "telegram_token", "slow": "1s"}
        }
        _, report = place.run(checks=checks)
    assert status(report, "redis") == "FAIL"
    assert "telegram_token" in json.dumps(report) and TELEGRAM_TOKEN not in json.dumps(report)


def test_a_tree_changed_by_hand_is_a_warning_on_paper_and_a_failure_in_production(place: Place) -> None:
    (place.root / "tree" / "application.py").write_text("changed\n")
    (place.root / "tree" / "new file").write_text("")
    assert status(place.run()[1], "git") == "WARN"
    checks = place.settings["checks"] | {"guards": []}
    code, report = place.run(environment="prod", checks=checks)
    assert (code, status(report, "git")) == (2, "FAIL")
    assert "application.py" in json.dumps(report)
    assert place.metric("rtinfra_preflight_runs_total", env="prod") == 1


def test_a_missing_credential_ends_the_run_loudly(place: Place) -> None:
    notify = place.settings["notify"] | {"slack": {"url_secret": "slack_webhook"}}
    result = place.process(notify=notify)
    assert result.returncode == 3 and result.stdout == ""
    assert "the channel slack is configured and has no credential" in result.stderr
    # Who asks for no alerts needs none.
    assert place.process("--no-alerts", notify=notify).returncode == 0


def test_flags(place: Place) -> None:
    report, prom = place.root / "here.json", place.root / "here.prom"
    place.redis.kill()
    code, _ = place.run("--no-alerts", "--output-json", str(report), "--output-prom", str(prom))
    assert code == 2 and place.messages() == []
    assert json.loads(report.read_text())["exit_code"] == 2
    assert "rtinfra_preflight_runs_total" in prom.read_text()
    assert not list((place.root / "textfiles").iterdir())
    place.run("--no-metrics", "--state", str(place.root / "other"))
    assert not list((place.root / "textfiles").iterdir())
    assert [path.suffix for path in (place.root / "other" / "evidence").iterdir()] == [".json"]


def test_a_directory_that_is_not_there_is_a_finding_that_people_hear_of(place: Place) -> None:
    code, report = place.run(textfile_directory=str(place.root / "nowhere"))
    assert (code, status(report, "evidence")) == (2, "FAIL")
    assert "nowhere" in place.messages()[0]


def test_runs_at_the_same_time_lose_no_count(place: Place) -> None:
    path = place.root / "settings.json"
    checks = dict.fromkeys(place.settings["checks"]) | {
        **{name: [] for name in ("variables", "required_secrets", "guards", "apis")},
        # A busy computer is no reason for a warning here.
        "redis": place.settings["checks"]["redis"] | {"slow": "20s"},
        "application": {"url": None, "command": [], "slow": "1s"},
    }
    path.write_text(json.dumps(place.settings | {"checks": checks}))
    command = [sys.executable, "-I", "-m", "rtinfra.preflight", "--settings", str(path), "--no-alerts"]
    for _ in range(3):
        runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
        assert [run.wait(timeout=60) for run in runs] == [0] * 4
    assert place.metric("rtinfra_preflight_runs_total", env="paper") == 12
    assert place.metric("rtinfra_preflight_duration_seconds_count", env="paper") == 12
    assert place.metric("rtinfra_preflight_checks_total", check="redis", status="pass", env="paper") == 12
    assert len(list((place.root / "state" / "evidence").glob("*.prom"))) == 12


def test_node_exporter_reads_all_seven_metrics(place: Place) -> None:
    place.run()
    with node_exporter(place.root / "textfiles") as address, urllib.request.urlopen(address) as answer:
        text = answer.read().decode()
    assert "node_textfile_scrape_error 0" in text
    assert 'rtinfra_preflight.prom"} ' in text
    kinds = {
        "runs_total": "counter",
        "last_success": "gauge",
        "duration_seconds": "histogram",
        "checks_total": "counter",
        "realcheck_redis_latency_seconds": "histogram",
        "realcheck_postgres_latency_seconds": "histogram",
        "ready_for_live": "gauge",
    }
    for name, kind in kinds.items():
        assert f"# TYPE rtinfra_preflight_{name} {kind}" in text
    assert _value(text, "rtinfra_preflight_ready_for_live", env="paper") == 1
