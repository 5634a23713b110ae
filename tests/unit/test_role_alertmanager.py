"""What the role alertmanager puts on a host, and which alert goes where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roles.alertmanager import role
from roles.shape import RoleState
from rtinfra.operations.resources import File
from tests.unit.monitoring_tools import run
from tests.unit.telemetry_site import at, document, here, resource, shipped, text, view

CONFIG = "/etc/rtinfra/alertmanager/alertmanager.yml"
CHANNELS: dict[str, Any] = {
    "teams": {"url_secret": "teams_hook"},
    "slack": {"url_secret": "slack_hook", "channel": "#robots"},
    "telegram": {"token_secret": "bot", "chat_id": -1001, "api_url": "http://192.0.2.9:8000"},
    "webhook": {"url_secret": "own_hook"},
    "escalation": {"key_secret": "oncall", "api_url": "http://192.0.2.9:8000/", "after": "15min"},
}


def state(**changes: Any) -> RoleState:
    settings = shipped("alertmanager", **changes)
    return role.state(settings, view(host="b1", address="192.0.2.1", alertmanager=here(settings)))


def routes(found: RoleState) -> dict[str, dict[str, Any]]:
    """Routes by receiver, with what they take over from the root."""
    root = document(found, CONFIG)["route"]
    inherited = {key: value for key, value in root.items() if key != "routes"}
    return {route["receiver"]: {**inherited, **route} for route in root["routes"]}


@pytest.fixture(params=[{}, CHANNELS], ids=["no channels", "all channels"])
def anyhow(request: pytest.FixtureRequest) -> RoleState:
    return state(**request.param)


def stored(found: RoleState, directory: Path) -> Path:
    """Write the configuration to a file, for the program's own checker."""
    path = directory / "alertmanager.yml"
    path.write_text(text(found, CONFIG), encoding="utf-8")
    return path


def receivers(found: RoleState, directory: Path, **labels: str) -> list[str]:
    """Return who hears of an alert, as amtool says it."""
    words = [f"{name}={value}" for name, value in labels.items()]
    result = run("amtool", "config", "routes", "test", f"--config.file={stored(found, directory)}", *words)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().split(",")


# ---- routes -----------------------------------------------------------------------------------------------


def test_alertmanager_takes_the_configuration(anyhow: RoleState, tmp_path: Path) -> None:
    result = run("amtool", "check-config", stored(anyhow, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_everything_goes_to_the_alert_log_whatever_else(anyhow: RoleState, tmp_path: Path) -> None:
    for severity, priority in (("critical", "P0"), ("warning", "P1"), ("other", "P7")):
        assert "alert-log" in receivers(anyhow, tmp_path, alertname="A", severity=severity, priority=priority)


def test_failures_go_to_people_and_to_the_on_call_service(tmp_path: Path) -> None:
    found = receivers(state(**CHANNELS), tmp_path, alertname="HostDown", severity="critical", priority="P0")
    assert found == ["alert-log", "escalation", "urgent"]


def test_warnings_go_to_people_only(tmp_path: Path) -> None:
    found = receivers(state(**CHANNELS), tmp_path, alertname="DiskSpaceLow", severity="warning", priority="P1")
    assert found == ["alert-log", "warnings"]


def test_the_watchdog_bothers_nobody(anyhow: RoleState, tmp_path: Path) -> None:
    assert receivers(anyhow, tmp_path, alertname="Watchdog", severity="none", priority="P1") == ["alert-log"]


def test_the_watchdog_comes_often_enough_for_the_dead_mans_switch(anyhow: RoleState) -> None:
    first = document(anyhow, CONFIG)["route"]["routes"][0]
    assert first["matchers"] == ['severity="none"']
    assert (first["group_interval"], first["repeat_interval"]) == ("30s", "1m")


def test_without_channels_only_the_alert_log_is_left(tmp_path: Path) -> None:
    assert receivers(state(), tmp_path, alertname="A", severity="critical", priority="P0") == ["alert-log"]


def test_a_failure_is_never_held_back() -> None:
    urgent = routes(state(**CHANNELS))["urgent"]
    # Each alert is a group of its own and is sent at once.
    assert urgent["group_by"] == ["..."]
    assert urgent["group_wait"] == "0s"


def test_warnings_are_one_message_in_the_time_that_is_set() -> None:
    warnings = routes(state(**CHANNELS, p1_interval="7min"))["warnings"]
    # All of them are one group: they have the same priority.
    assert warnings["group_by"] == ["priority"]
    assert warnings["group_interval"] == "7m"
    (receiver,) = [one for one in document(state(**CHANNELS), CONFIG)["receivers"] if one["name"] == "warnings"]
    settings = [entry for kind in receiver.values() if isinstance(kind, list) for entry in kind]
    # A message about the end would let the next group begin too early.
    assert len(settings) == 4
    assert not any(entry["send_resolved"] for entry in settings)


def test_the_on_call_service_is_called_when_it_is_still_firing_later() -> None:
    escalation = routes(state(**CHANNELS))["escalation"]
    assert escalation["group_by"] == ["..."]
    assert escalation["group_wait"] == "15m"
    # The channels to people come after it and have to be reached too.
    assert escalation["continue"] is True


def test_a_dead_host_is_one_message() -> None:
    (rule,) = [
        rule
        for rule in document(state(), CONFIG)["inhibit_rules"]
        if rule["source_matchers"] == ['alertname="HostDown"']
    ]
    assert rule == {
        "source_matchers": ['alertname="HostDown"'],
        "target_matchers": ['alertname!="HostDown"'],
        "equal": ["host"],
    }


# ---- channels and secrets ---------------------------------------------------------------------------------


def test_secrets_are_files_of_the_account_and_nowhere_else() -> None:
    found = state(**CHANNELS)
    (container,) = found.containers
    secrets = {Path(file.path).name: file for file in container.config if file.secret}
    assert {name: file.content.decode() for name, file in secrets.items()} == {
        "teams_url": "value-of-teams_hook",
        "slack_url": "value-of-slack_hook",
        "telegram_token": "value-of-bot",
        "webhook_url": "value-of-own_hook",
        "escalation_key": "value-of-oncall",
    }
    assert {(file.mode, file.owner) for file in secrets.values()} == {("0600", "rtinfra-alertmanager")}
    for name in secrets:
        assert f"/etc/alertmanager/{name}" in text(found, CONFIG)
    assert "value-of" not in text(found, CONFIG)


def test_no_channel_no_secret() -> None:
    (container,) = state().containers
    assert not [file for file in container.config if file.secret]
    assert [one["name"] for one in document(state(), CONFIG)["receivers"]] == ["alert-log"]


@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_a_message_says_what_when_where_and_what_to_do(tmp_path: Path, status: str) -> None:
    alert = {
        "status": status,
        "startsAt": "2026-01-02T03:04:05Z",
        "endsAt": "2026-01-02T04:04:05Z",
        "labels": {"alertname": "HostDown", "host": "robot-1", "priority": "P0"},
        "annotations": {
            "summary": "Nothing answers",
            "summary_ko": "응답 없음",
            "description": "It is off.",
            "runbook_url": "http://192.0.2.1:9095/runbooks/HostDown",
        },
    }
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"status": status, "alerts": [alert], "commonLabels": {"priority": "P0"}}))
    result = run(
        "amtool",
        "template",
        "render",
        f"--template.glob={role.MESSAGES}",
        f"--template.data={data}",
        '--template.text={{ template "rtinfra.message" . }}',
    )
    assert result.returncode == 0, result.stderr
    words = (
        "Nothing answers",
        "응답 없음",
        "It is off.",
        "2026-01-02 03:04:05 UTC",
        "robot-1",
        "9095/runbooks/HostDown",
    )
    assert not [word for word in words if word not in result.stdout]
    assert ("RESOLVED" in result.stdout) == (status == "resolved")
    assert "<no value>" not in result.stdout


# ---- several hosts ----------------------------------------------------------------------------------------


def clustered() -> RoleState:
    settings = shipped("alertmanager")
    fleet = view(host="b1", address="192.0.2.1", alertmanager=(here(settings), at("b2", "192.0.2.2")))
    return role.state(settings, fleet)


def test_alone_it_opens_no_port_for_others() -> None:
    (container,) = state().containers
    assert "--cluster.listen-address=" in container.command
    assert not [word for word in container.command if word.startswith("--cluster.peer")]


def test_several_know_each_other() -> None:
    (container,) = clustered().containers
    assert "--cluster.listen-address=192.0.2.1:9094" in container.command
    assert [word for word in container.command if word.startswith("--cluster.peer")] == [
        "--cluster.peer=192.0.2.2:9094"
    ]


def test_every_alert_log_hears_of_everything_whichever_of_several_sends() -> None:
    (receiver,) = document(clustered(), CONFIG)["receivers"]
    assert [one["url"] for one in receiver["webhook_configs"]] == [
        "http://192.0.2.1:9095/alerts",
        "http://192.0.2.2:9095/alerts",
    ]


# ---- the alert log ----------------------------------------------------------------------------------------


def test_the_alert_log_is_a_service_of_its_own() -> None:
    found = state(log_port=9999, log_file_mb=3, log_files=2)
    unit = text(found, "/etc/systemd/system/rtinfra-alert-log.service")
    assert "--address 192.0.2.1 --port 9999 --directory /var/lib/rtinfra-alert-log" in unit
    assert "--max-bytes 3145728 --keep 2" in unit
    assert "StateDirectory=rtinfra-alert-log\n" in unit
    assert [unit.name for unit in found.units] == ["rtinfra-alert-log.service"]
    assert found.packages == ("python3",)


def test_a_changed_program_restarts_the_alert_log_and_a_changed_page_nothing() -> None:
    found = state()
    for part in ("__main__.py", "alert_log/alert_log.py", "alert_log/kept.py", "alert_log/pages.py"):
        assert resource(found, f"/usr/local/lib/rtinfra/alert-log/{part}").restarts == ("rtinfra-alert-log.service",)
    page = resource(found, "/usr/share/rtinfra/runbooks/HostDown.md")
    assert isinstance(page, File)
    assert not page.restarts
