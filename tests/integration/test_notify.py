"""Notifications through every channel, against servers that speak the real services' requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from pydantic import SecretStr
from typer.testing import CliRunner

from rtinfra.cli import app
from rtinfra.notify.errors import NotifyError
from rtinfra.notify.message import Notification, Priority, Problem
from rtinfra.notify.notifier import Notifier
from rtinfra.notify.settings import NotifySettings
from rtinfra.paths import PROJECT
from rtinfra.secrets import SecretError
from tests.integration.http_services import (
    GENIE_KEY,
    SLACK_PATH,
    TEAMS_PATH,
    TELEGRAM_TOKEN,
    WEBHOOK_PATH,
    Services,
    serving,
)
from tests.integration.servers import Postgres, free_port, postgres

PASSWORD = "planted-record-password-31"


class Vault:
    """Secrets of a test."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def get(self, name: str) -> SecretStr:
        if name not in self.values:
            raise SecretError(f"the secret {name} is not defined", "define it")
        return SecretStr(self.values[name])


@pytest.fixture
def services() -> Iterator[Services]:
    with serving(Services()) as running:
        yield running


def vault(services: Services) -> Vault:
    return Vault(
        token=TELEGRAM_TOKEN,
        slack=services.url + SLACK_PATH,
        teams=services.url + TEAMS_PATH,
        key=GENIE_KEY,
        own=services.url + WEBHOOK_PATH,
        password=PASSWORD,
    )


def settings(services: Services, **changes: Any) -> NotifySettings:
    return NotifySettings.model_validate(
        {
            "p1_interval": "5min",
            "timeout": "2s",
            "attempts": 3,
            "runbooks_url": "http://alerts.example:9095/runbooks",
            "telegram": {"token_secret": "token", "chat_id": -1001, "api_url": services.url},
            "slack": {"url_secret": "slack"},
            "teams": {"url_secret": "teams"},
            "on_call": {"key_secret": "key", "api_url": services.url},
            "webhook": {"url_secret": "own"},
            "record": None,
        }
        | changes
    )


def notification(priority: Priority = Priority.P0, **changes: Any) -> Notification:
    values: dict[str, Any] = {
        "source": "preflight",
        "host": "robot-1",
        "environment": "prod",
        "title": "robot-1 (prod) is not ready for live: redis failed",
        "problems": (Problem("FAIL redis", "no answer to <PING> & co", "start redis-server"),),
        "runbook": "http://alerts.example:9095/runbooks/PreflightNotReady",
    }
    return Notification(priority=priority, **(values | changes))


def notifier(services: Services, state: Path, **more: Any) -> Notifier:
    chosen = more.pop("settings", settings(services))
    return Notifier(chosen, vault(services), state, sleep=lambda _: None, **more)


ALL = ("telegram", "slack", "teams", "on_call", "webhook")


def test_every_channel_gets_what_when_where_and_what_to_do(services: Services, tmp_path: Path) -> None:
    sent = notifier(services, tmp_path).notify(notification())
    assert {one.channel: (one.ok, one.error) for one in sent.deliveries} == dict.fromkeys(ALL, (True, ""))
    for channel in ALL:
        (request,) = services.taken(channel)
        text = str(request.body)
        for part in ("robot-1", "prod", "20", "redis", "start redis-server", "/runbooks/PreflightNotReady"):
            assert part in text, channel
    # Slack has three characters of its own; Telegram gets plain text.
    assert "&lt;PING&gt; &amp; co" in services.taken("slack")[0].body["blocks"][1]["text"]["text"]
    assert "<PING> & co" in services.taken("telegram")[0].body["text"]


def test_a_channel_that_fails_is_retried_logged_and_stops_no_other(
    services: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    services.down = {"slack"}
    services.busy = {"telegram", "teams"}
    pauses: list[float] = []
    with caplog.at_level(logging.DEBUG):
        sent = Notifier(settings(services), vault(services), tmp_path, sleep=pauses.append).notify(notification())
    found = {one.channel: (one.ok, one.attempts) for one in sent.deliveries}
    assert found["slack"] == (False, 3)
    assert found["telegram"] == found["teams"] == (True, 2)
    assert all(ok for channel, (ok, _) in found.items() if channel != "slack")
    assert 0.1 in pauses  # what Telegram asked for
    assert "slack: answered 503: unavailable, tried 3 times" in caplog.text
    for secret in vault(services).values.values():
        assert secret not in caplog.text


def test_what_is_refused_for_good_is_not_tried_again(services: Services, tmp_path: Path) -> None:
    wrong = Vault(**vault(services).values | {"token": "0000:wrong-planted-token"})
    sent = Notifier(settings(services), wrong, tmp_path, sleep=lambda _: None).notify(notification())
    (telegram,) = [one for one in sent.deliveries if one.channel == "telegram"]
    assert (telegram.ok, telegram.attempts) == (False, 1)
    assert "401" in telegram.error and "wrong-planted-token" not in telegram.error


@pytest.mark.parametrize("channel", ALL)
def test_a_channel_without_its_credential_is_an_error_at_the_start(
    services: Services, tmp_path: Path, channel: str
) -> None:
    names = {"telegram": "token", "on_call": "key", "webhook": "own"}
    values = vault(services).values
    del values[names.get(channel, channel)]
    with pytest.raises(NotifyError, match=f"the channel {channel} is configured and has no credential"):
        Notifier(settings(services), Vault(**values), tmp_path)


def test_warnings_go_out_once_in_the_interval_and_failures_always(services: Services, tmp_path: Path) -> None:
    now = 1_800_000_000.0
    for offset in (0, 1, 299.9, 300, 301):
        # A process each: what counts is on the disk.
        notifier(services, tmp_path, clock=lambda offset=offset: now + offset).notify(notification(Priority.P1))
        notifier(services, tmp_path, clock=lambda offset=offset: now + offset).notify(notification(Priority.P0))
    texts = [request.body["text"] for request in services.taken("telegram")]
    assert sum(text.startswith("[P0]") for text in texts) == 5
    warnings = [text for text in texts if text.startswith("[P1]")]
    assert len(warnings) == 2
    assert "Held back before: 2 warnings" in warnings[1]
    # Warnings wake nobody up.
    assert len(services.taken("on_call")) == 5


def test_a_warning_that_reached_nobody_does_not_hold_back_the_next(services: Services, tmp_path: Path) -> None:
    services.down = {"telegram", "slack", "teams", "webhook"}
    notifier(services, tmp_path).notify(notification(Priority.P1))
    services.down = set()
    sent = notifier(services, tmp_path).notify(notification(Priority.P1))
    assert not sent.withheld and sent.ok


def test_a_clock_that_was_set_back_silences_nobody(services: Services, tmp_path: Path) -> None:
    notifier(services, tmp_path, clock=lambda: 2_000_000_000.0).notify(notification(Priority.P1))
    sent = notifier(services, tmp_path, clock=lambda: 1_000_000_000.0).notify(notification(Priority.P1))
    assert not sent.withheld


def test_a_damaged_state_is_one_warning_too_many(services: Services, tmp_path: Path) -> None:
    notifier(services, tmp_path).notify(notification(Priority.P1))
    (tmp_path / "throttle.json").write_text('{"sent_at": ')
    assert not notifier(services, tmp_path).notify(notification(Priority.P1)).withheld


def test_a_very_long_message_is_taken_everywhere(services: Services, tmp_path: Path) -> None:
    # Twice as long when escaped, and in UTF-16.
    problems = tuple(Problem(f"FAIL check {number}", "&😀" * 200, "look") for number in range(60))
    sent = notifier(services, tmp_path).notify(notification(title="t" * 5000, problems=problems))
    assert [one for one in sent.deliveries if not one.ok or one.attempts != 1] == []
    assert len(services.requests) == len(ALL)
    assert services.taken("telegram")[0].body["text"].endswith("/runbooks/PreflightNotReady")


def test_what_a_service_refuses_is_told_in_brief(services: Services, tmp_path: Path) -> None:
    """Limits change, and a text may hold what a service does not take: host and runbook reach people all the same."""
    services.picky = {"telegram", "slack", "teams"}
    problems = tuple(Problem(f"FAIL check {number}", "x" * 40, "look") for number in range(20))
    sent = notifier(services, tmp_path).notify(notification(problems=problems))
    assert {one.channel: (one.ok, one.attempts) for one in sent.deliveries} == dict.fromkeys(ALL, (True, 1))
    for channel in services.picky:
        (request,) = services.taken(channel)
        text = str(request.body)
        for part in ("[P0] robot-1 (prod) is not ready", "robot-1", "/runbooks/PreflightNotReady", "... and 20 more"):
            assert part in text, channel
        assert "check 7" not in text
    assert len([one for one in services.requests if one.path.startswith("/bot")]) == 2


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres(PASSWORD) as server:
        yield server


def rows(database: Postgres) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.conninfo(), password=PASSWORD) as connection:
        query = "SELECT priority, withheld, notification->>'title', jsonb_array_length(deliveries)"
        return connection.execute(f"{query} FROM rtinfra_notifications ORDER BY at").fetchall()


def test_everything_is_recorded_also_what_happened_while_the_data_base_was_away(
    services: Services, database: Postgres, tmp_path: Path
) -> None:
    away = f"host=127.0.0.1 port={free_port()} dbname=postgres user=preflight"
    gone = settings(services, record={"conninfo": away, "password_secret": "password"})
    there = settings(services, record={"conninfo": database.conninfo(), "password_secret": "password"})
    sent = notifier(services, tmp_path, settings=gone).notify(notification(title="while away"))
    assert [one.ok for one in sent.deliveries if one.channel == "record"] == [False]
    assert (tmp_path / "unrecorded.jsonl").stat().st_mode & 0o077 == 0
    notifier(services, tmp_path, settings=there).notify(notification(Priority.P1, title="first"))
    notifier(services, tmp_path, settings=there).notify(notification(Priority.P1, title="second"))
    assert rows(database) == [
        ("P0", False, "while away", 5),
        ("P1", False, "first", 4),
        ("P1", True, "second", 0),
    ]
    assert (tmp_path / "unrecorded.jsonl").read_text() == ""


def test_an_entry_that_was_written_before_a_crash_is_not_written_twice(
    services: Services, database: Postgres, tmp_path: Path
) -> None:
    chosen = settings(services, record={"conninfo": database.conninfo(), "password_secret": "password"})
    once = notification(title="exactly once")
    for _ in range(2):
        notifier(services, tmp_path, settings=chosen).notify(once)
    assert [title for _, _, title, _ in rows(database)].count("exactly once") == 1


@pytest.mark.parametrize(("down", "code"), [(set(), 0), ({"webhook"}, 1)])
def test_a_trial_from_the_command_line(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: set[str], code: int
) -> None:
    services.down = down
    shipped = yaml.safe_load((PROJECT / "group_data" / "preflight.yaml").read_text())
    shipped["preflight"]["environment"] = "staging"
    shipped["preflight"]["notify"] |= {"webhook": {"url_secret": "trial_webhook"}, "attempts": 1}
    (tmp_path / "preflight.yaml").write_text(yaml.safe_dump(shipped))
    monkeypatch.setenv("RTINFRA_SECRET_TRIAL_WEBHOOK", services.url + WEBHOOK_PATH)
    result = CliRunner().invoke(app, ["notify", "test", "--settings", str(tmp_path / "preflight.yaml")])
    assert result.exit_code == code, result.output
    assert ("webhook: taken" in result.output) == (code == 0)
    assert WEBHOOK_PATH not in result.output
    assert [request.body["environment"] for request in services.taken("webhook")] == ["trial"] * (code == 0)
