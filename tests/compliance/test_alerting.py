"""Alerts: rules are loaded, lead to a page that helps, and reach somebody."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from roles.alertmanager import model as alertmanager_model
from roles.alertmanager.model import ALERTMANAGER, AlertmanagerSettings
from roles.alertmanager.role import ALERT_LOG_UNIT
from roles.host import HostConfig
from roles.prometheus import model as prometheus_model
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView
from rtinfra.facts.http import HttpAnswer, Request
from rtinfra.paths import PROJECT
from rtinfra.verify import expect, telemetry
from rtinfra.verify.asking import Asker
from rtinfra.verify.look.answers import Answers, samples
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.units import Units

_TEST_ALERT = "RtinfraVerifyTestAlert"
_ARRIVAL_S = 60
# What the Alertmanager shows in place of an address that may hold a secret.
_MASKED = "<secret>"
# Until Prometheus has judged its rules for the first time and the alert has come: longer on a busy emulated machine.
_FIRST_ALERT_SECONDS = 180
# Kinds of channel in Alertmanager's configuration by the setting that switches them on (AL-1). A generic webhook is
# also what the alert log is, so that one more is expected with the setting than without.
_CHANNELS = {
    "slack": "slack_configs",
    "teams": "msteamsv2_configs",
    "telegram": "telegram_configs",
    "escalation": "opsgenie_configs",
}


def _json(answer: HttpAnswer) -> Any:
    return expect.found(answer.json, f"JSON from {answer.url}", f"HTTP status {answer.status}")


# --- the Alertmanager (AL-1, AL-3)


@pytest.fixture
def settings(config: HostConfig) -> AlertmanagerSettings:
    """Settings of the Alertmanager."""
    return expect.found(config[ALERTMANAGER], "settings of the Alertmanager", "none")


@pytest.fixture
def effective(answers: Answers, view: FleetView, settings: AlertmanagerSettings) -> Mapping[str, Any]:
    """The configuration the Alertmanager works with; secrets in it are masked by the program itself."""
    status = _json(answers.last(view.url(settings.port, alertmanager_model.STATUS_PAGE)))
    document: Mapping[str, Any] = yaml.safe_load(status["config"]["original"])
    return document


def _routes(route: Mapping[str, Any], above: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield every route with the times that it takes over from the one above."""
    whole = {**(above or {}), **route}
    yield whole
    for inner in route.get("routes") or ():
        yield from _routes(inner, {key: value for key, value in whole.items() if key not in ("routes", "matchers")})


def _needs_people(settings: AlertmanagerSettings) -> None:
    """Routes by priority are for channels to people; the alert log takes everything at once."""
    if not any((settings.teams, settings.slack, settings.telegram, settings.webhook)):
        expect.not_applicable("no channel besides the alert log is set")


def _is_for(route: Mapping[str, Any], priority: str) -> bool:
    matchers = route.get("matchers") or ()
    return any("priority" in str(matcher) and priority in str(matcher) for matcher in matchers)


@pytest.mark.on("alertmanager")
@pytest.mark.control(id="AL-1.1", severity="high", title="Every channel that is set is known to the Alertmanager")
def test_channels(effective: Mapping[str, Any], settings: AlertmanagerSettings) -> None:
    kinds = [kind for receiver in effective["receivers"] for kind, entries in receiver.items() if entries]
    required = [kind for name, kind in _CHANNELS.items() if getattr(settings, name) is not None]
    expect.nothing((kind for kind in required if kind not in kinds), "channels that are missing")
    webhooks = 1 + (settings.webhook is not None)
    expect.at_least(kinds.count("webhook_configs"), webhooks, "webhooks, the alert log among them")
    others = [kind for kind in _CHANNELS.values() if kind in kinds and kind not in required]
    expect.nothing(others, "channels that are not set")


@pytest.mark.on("alertmanager")
@pytest.mark.control(id="AL-1.2", severity="critical", title="Every alert goes to every alert log, whatever else")
def test_alert_log_gets_all(
    effective: Mapping[str, Any], asker: Asker, view: FleetView, settings: AlertmanagerSettings
) -> None:
    name = expect.found(effective["route"].get("receiver"), "receiver of what no route is for", "nothing", "a receiver")
    hooks = [
        str(hook.get("url"))
        for receiver in effective["receivers"]
        if receiver["name"] == name
        for hook in receiver.get("webhook_configs") or ()
    ]
    logs = [member.url(member.settings.log_port, "/alerts") for member in view.members(ALERTMANAGER)]
    if not any(_MASKED in hook for hook in hooks):
        expect.nothing((log for log in logs if log not in hooks), "alert logs that are not told")
        return
    # Newer programs mask the URLs of webhooks. What arrives cannot be masked.
    mark = _raise_test_alert(asker, view, settings)
    expect.nothing(
        (log for log in logs if not _arrives(asker, log, mark)), "alert logs that a test alert does not reach"
    )


@pytest.mark.on("alertmanager")
@pytest.mark.control(id="AL-1.3", severity="critical", title="A test alert is in the alert log within a minute")
def test_alert_arrives(asker: Asker, view: FleetView, settings: AlertmanagerSettings) -> None:
    mark = _raise_test_alert(asker, view, settings)
    arrived = _arrives(asker, view.url(settings.log_port, "/alerts"), mark)
    there = f"there within {_ARRIVAL_S} s"
    expect.that(arrived, there if arrived else "not there", there, "test alert in the alert log")


def _raise_test_alert(asker: Asker, view: FleetView, settings: AlertmanagerSettings) -> str:
    """Give the Alertmanager an alert that people are told of as a test; return the word it is known by."""
    mark, now = secrets.token_hex(8), time.time()
    alert = {
        "labels": {
            "alertname": _TEST_ALERT,
            "severity": "warning",
            "priority": "P1",
            "host": view.host,
            "verification": mark,
        },
        "annotations": {"summary": "A test of rtinfra verify: nothing is wrong, nothing has to be done"},
        "startsAt": _time(now),
        # It ends by itself, so that nobody looks for it later.
        "endsAt": _time(now + 2 * _ARRIVAL_S),
    }
    answer = asker.post(view.url(settings.port, alertmanager_model.ALERTS_PAGE), [alert])
    expect.equal(answer.status, 200, "answer of the Alertmanager to the test alert")
    return mark


def _arrives(asker: Asker, log: str, mark: str) -> bool:
    return asker.until(lambda: asker.get(log), lambda said: mark in said.body, _ARRIVAL_S) is not None


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@pytest.mark.on("alertmanager")
@pytest.mark.control(id="AL-1.4", severity="high", title="All Alertmanagers of the fleet know each other")
def test_cluster(answers: Answers, view: FleetView, settings: AlertmanagerSettings) -> None:
    cluster = _json(answers.last(view.url(settings.port, alertmanager_model.STATUS_PAGE)))["cluster"]
    members = len(view.members(ALERTMANAGER))
    if members == 1:
        expect.not_applicable("there is one Alertmanager")
    expect.equal(cluster.get("status"), "ready", "state of the cluster")
    expect.equal(len(cluster.get("peers") or ()), members, "members of the cluster")


@pytest.mark.on("alertmanager")
@pytest.mark.control(id="AL-3.1", severity="high", title="Warnings are sent at most as often as it is set")
def test_warnings_are_throttled(effective: Mapping[str, Any], settings: AlertmanagerSettings) -> None:
    _needs_people(settings)
    routes = [route for route in _routes(effective["route"]) if _is_for(route, "P1")]
    expect.at_least(len(routes), 1, "routes for warnings (P1)")
    # Between two messages of a group lie at least `group_interval`, whatever happens in it.
    for route in routes:
        found = telemetry.duration(route.get("group_interval", ""))
        expect.that(
            found is not None and found >= settings.p1_interval,
            route.get("group_interval"),
            f"{settings.p1_interval} or more",
            f"time between two messages of {route['receiver']}",
        )


@pytest.mark.on("alertmanager")
@pytest.mark.control(id="AL-3.2", severity="critical", title="Failures are sent at once and never held back")
def test_failures_are_not_throttled(effective: Mapping[str, Any], settings: AlertmanagerSettings) -> None:
    _needs_people(settings)
    escalation = settings.escalation.after if settings.escalation else None
    routes = [route for route in _routes(effective["route"]) if _is_for(route, "P0")]
    expect.at_least(len(routes), 1, "routes for failures (P0)")
    # The on-call service is called later on purpose: its wait is the escalation's.
    waits = [telemetry.duration(route.get("group_wait", "30s")) for route in routes]
    prompt = [wait for wait in waits if wait is not None and wait != escalation]
    expect.at_least(len(prompt), 1, "routes that do not wait for the escalation")
    expect.nothing((wait for wait in prompt if wait.seconds > 1), "waits before a failure is sent")
    if escalation is not None:
        expect.that(escalation in waits, ", ".join(map(str, waits)), str(escalation), "wait of the escalation")


@pytest.mark.on("alertmanager")
@pytest.mark.control(
    id="AL-2.1", severity="critical", title="The alert that is always on has arrived: alerting is alive"
)
def test_watchdog(
    computer: Computer, units: Units, answers: Answers, asker: Asker, view: FleetView, settings: AlertmanagerSettings
) -> None:
    if not view.members(PROMETHEUS):
        expect.not_applicable("no host of the inventory runs Prometheus, which raises it")

    def said(answer: HttpAnswer) -> dict[str, float]:
        return {sample.name.removeprefix("rtinfra_alert_log_"): sample.value for sample in samples(answer)}

    url = view.url(settings.log_port, alertmanager_model.LOG_METRICS_PAGE)

    def has_come(answer: HttpAnswer) -> bool:
        return said(answer).get("watchdog_timestamp_seconds", 0) >= 1

    age = units.seconds_active(ALERT_LOG_UNIT, computer.uptime)
    answer = telemetry.settled(answers.last(url), age, asker, has_come, _FIRST_ALERT_SECONDS)
    expect.at_least(said(answer).get("watchdog_timestamp_seconds", 0), 1, "last time it came, in seconds since 1970")
    expect.entries(said(answer), {"watchdog_missing": 0.0}, "alert log")


# --- rules (AL-2)


@pytest.fixture
def rules(answers: Answers, config: HostConfig, view: FleetView) -> Sequence[Mapping[str, Any]]:
    """The alert rules that Prometheus has loaded."""
    groups = _json(answers.last(view.url(config[PROMETHEUS].port, prometheus_model.RULES_PAGE)))["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"]
    expect.at_least(len(found), 1, "alert rules")
    return found


@pytest.mark.on("prometheus")
@pytest.mark.control(id="AL-2.2", severity="critical", title="Every alert rule can be judged")
def test_rules_work(rules: Sequence[Mapping[str, Any]]) -> None:
    broken = [f"{rule['name']}: {rule.get('lastError', '')}" for rule in rules if rule["health"] == "err"]
    expect.nothing(broken, "rules with an error")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="AL-2.3", severity="high", title="Prometheus judges exactly the alert rules that are shipped")
def test_rules_are_loaded(rules: Sequence[Mapping[str, Any]]) -> None:
    files = (PROJECT / "templates" / "prometheus" / "rules").glob("*.yml")
    shipped = {
        rule["alert"]
        for path in files
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    loaded = {rule["name"] for rule in rules}
    expect.nothing(sorted(shipped - loaded), "rules that are not loaded")
    expect.nothing(sorted(loaded - shipped), "rules that are not ours")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="AL-2.4", severity="high", title="Every alert leads to a page that says what to do")
def test_runbooks_answer(rules: Sequence[Mapping[str, Any]], asker: Asker, view: FleetView) -> None:
    links = {rule["name"]: rule["annotations"].get("runbook_url", "") for rule in rules}
    expect.nothing((name for name, link in links.items() if not link), "alerts without a link")
    if not view.members(ALERTMANAGER):
        expect.not_applicable("no host of the inventory serves the pages (group alertmanager)")
    answers = asker.ask_all([Request(link) for link in dict.fromkeys(links.values())])
    dead = [f"{answer.url}: {answer.status}" for answer in answers if answer.status != 200]
    expect.nothing(dead, "pages that do not answer, with their HTTP status")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="AL-2.5", severity="high", title="Every alert says how urgent it is")
def test_priorities(rules: Sequence[Mapping[str, Any]]) -> None:
    without = [rule["name"] for rule in rules if rule["labels"].get("priority") not in ("P0", "P1")]
    expect.nothing(without, "alerts without a priority")
