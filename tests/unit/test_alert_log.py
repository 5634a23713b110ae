"""The alert log: what Alertmanager posts is kept, shown and never trusted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.alertmanager.alert_log import alert_log
from roles.alertmanager.alert_log.alert_log import WATCHDOG_SECONDS, AlertLog, Options, answer_get, answer_post
from roles.alertmanager.alert_log.kept import FORGET_SECONDS, NotAlerts, parse_alerts
from roles.alertmanager.alert_log.pages import render_markdown
from roles.alertmanager.role import _MAIN, _PARTS
from rtinfra.metric_catalogue import exposed, load_catalogue


class Clock:
    """Time that only moves when told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "HostDown.md").write_text("# HostDown\n\nIt is **off** <now>.\n", encoding="utf-8")
    (tmp_path / "secret.md").write_text("secret", encoding="utf-8")
    return Options("127.0.0.1", 0, tmp_path, tmp_path / "runbooks", 10_000, 2)


@pytest.fixture
def log(options: Options, clock: Clock) -> AlertLog:
    return AlertLog(options, clock)


def alert(name: str = "HostDown", status: str = "firing", **changes: Any) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "critical", "host": "robot-1"},
        "annotations": {"summary": "It is off", "runbook_url": f"http://192.0.2.1:9095/runbooks/{name}"},
        "startsAt": "2026-01-02T03:04:05Z",
        "fingerprint": f"print-of-{name}",
        **changes,
    }


def message(*alerts: Any) -> bytes:
    return json.dumps({"version": "4", "alerts": alerts}).encode()


def lines(options: Options) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (options.directory / "alerts.jsonl").read_text("utf-8").splitlines()]


# ---- what is kept -----------------------------------------------------------------------------------------


def test_each_alert_is_a_line_in_the_file_and_in_the_journal(
    log: AlertLog, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log.take(message(alert(), alert("DiskSpaceLow", labels={"alertname": "DiskSpaceLow"}))) == 2
    log.take(message(alert(status="resolved")))
    assert [(line["status"], line["labels"]["alertname"]) for line in lines(options)] == [
        ("firing", "HostDown"),
        ("firing", "DiskSpaceLow"),
        ("resolved", "HostDown"),
    ]
    assert lines(options)[0]["annotations"]["runbook_url"] == "http://192.0.2.1:9095/runbooks/HostDown"
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("<3>firing: HostDown It is off host=robot-1 severity=critical runbook=http://")
    assert second.startswith("<4>firing: DiskSpaceLow")
    assert third.startswith("<5>resolved: HostDown")


def test_what_is_firing_is_the_last_word_on_each_alert(log: AlertLog) -> None:
    log.take(message(alert(), alert("DiskSpaceLow")))
    log.take(message(alert(status="resolved")))
    assert [one["labels"]["alertname"] for one in log.alerts("firing")] == ["DiskSpaceLow"]
    assert [one["labels"]["alertname"] for one in log.alerts("resolved")] == ["HostDown"]
    assert len(log.alerts()) == 2


def test_it_remembers_over_a_restart_and_a_torn_line(log: AlertLog, options: Options, clock: Clock) -> None:
    log.take(message(alert()))
    with (options.directory / "alerts.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"received": "2026-')
    again = AlertLog(options, clock)
    assert [one["labels"]["alertname"] for one in again.alerts("firing")] == ["HostDown"]
    again.take(message(alert("DiskSpaceLow")))
    assert {one["labels"]["alertname"] for one in AlertLog(options, clock).alerts("firing")} == {
        "HostDown",
        "DiskSpaceLow",
    }


def test_an_alert_that_nobody_repeats_is_forgotten(log: AlertLog, clock: Clock) -> None:
    log.take(message(alert()))
    clock.now += FORGET_SECONDS + 1
    assert not log.alerts()


def test_the_file_is_put_aside_and_old_ones_go(log: AlertLog, options: Options) -> None:
    for _ in range(200):
        log.take(message(alert()))
    names = sorted(path.name for path in options.directory.glob("alerts.jsonl*"))
    assert names == ["alerts.jsonl", "alerts.jsonl.1", "alerts.jsonl.2"]
    assert all((options.directory / name).stat().st_size < 11_000 for name in names)


def test_a_disk_that_is_full_makes_alertmanager_try_again(
    log: AlertLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert answer_post(log, "/alerts", message(alert())).status == 500
    assert "No space left" in capsys.readouterr().out
    assert not log.alerts()


# ---- the dead man's switch --------------------------------------------------------------------------------


def test_the_watchdog_is_no_news_but_its_absence_is(
    log: AlertLog, options: Options, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    log.take(message(alert("Watchdog")))
    assert not (options.directory / "alerts.jsonl").exists()
    capsys.readouterr()
    clock.now += WATCHDOG_SECONDS
    log.check_watchdog()
    assert not capsys.readouterr().out
    clock.now += 1
    log.check_watchdog()
    log.check_watchdog()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("<3>Watchdog has not come for 301 s: alerting is broken")
    assert "rtinfra_alert_log_watchdog_missing 1" in log.metrics()
    log.take(message(alert("Watchdog")))
    assert capsys.readouterr().out.startswith("<5>Watchdog has come")
    assert "rtinfra_alert_log_watchdog_missing 0" in log.metrics()


def test_a_watchdog_that_never_came_is_missed_too(
    log: AlertLog, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.now += WATCHDOG_SECONDS + 1
    log.check_watchdog()
    assert "alerting is broken" in capsys.readouterr().out


# ---- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "version 4"),
        (b'{"version": "3"}', "version 4"),
        (b'{"version": "4"}', "list of alerts"),
        (message("text"), "neither firing nor resolved"),
        (message(alert(status="broken")), "neither firing nor resolved"),
        (message(alert(labels={"alertname": 1})), "labels of an alert"),
        (message(alert(annotations=None)), "annotations of an alert"),
        (message(alert(labels={})), "no name"),
    ],
)
def test_anything_else_is_refused_and_counted(log: AlertLog, body: bytes, reason: str) -> None:
    answer = answer_post(log, "/alerts", body)
    assert answer.status == 400
    assert reason in answer.body
    assert "rtinfra_alert_log_refused_total 1" in log.metrics()


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
        lambda value: json.dumps({"version": "4", "alerts": value}).encode()
    )
)
def test_any_message_is_either_taken_or_refused(body: bytes) -> None:
    try:
        found = parse_alerts(body)
    except NotAlerts:
        return
    assert all(one["labels"]["alertname"] for one in found)


def test_an_alert_cannot_write_lines_of_its_own(log: AlertLog, capsys: pytest.CaptureFixture[str]) -> None:
    log.take(message(alert(annotations={"summary": "a\n<0>b\x1b[2J"})))
    (line,) = capsys.readouterr().out.splitlines()
    assert "\x1b" not in line


# ---- pages ------------------------------------------------------------------------------------------------


def get(log: AlertLog, options: Options, target: str) -> alert_log.Answer:
    return answer_get(log, options.runbooks, target)


def test_the_page_shows_what_is_firing_and_trusts_no_text(log: AlertLog, options: Options) -> None:
    assert "Nothing is firing" in get(log, options, "/").body
    evil = "<script>alert(1)</script>"
    log.take(message(alert(evil, annotations={"summary_ko": "꺼졌습니다", "summary": evil})))
    body = get(log, options, "/").body
    assert "꺼졌습니다" in body
    assert "<script" not in body


def test_a_runbook_is_a_page(log: AlertLog, options: Options) -> None:
    answer = get(log, options, "/runbooks/HostDown")
    assert answer.status == 200
    assert "<h1>HostDown</h1>" in answer.body
    assert "<b>off</b> &lt;now&gt;" in answer.body


@pytest.mark.parametrize(
    "path", ["/runbooks/Other", "/runbooks/../secret", "/runbooks/..%2fsecret", "/runbooks/", "/x"]
)
def test_there_is_no_way_out_of_the_runbooks(log: AlertLog, options: Options, path: str) -> None:
    assert get(log, options, path).status == 404


def test_alerts_as_json(log: AlertLog, options: Options) -> None:
    log.take(message(alert(), alert("DiskSpaceLow", "resolved")))
    (one,) = json.loads(get(log, options, "/alerts?status=firing").body)
    assert one["labels"]["alertname"] == "HostDown"
    assert len(json.loads(get(log, options, "/alerts").body)) == 2
    assert get(log, options, "/alerts?status=other").status == 400


def test_its_metrics_are_those_of_the_catalogue(log: AlertLog, options: Options) -> None:
    log.take(message(alert(), alert("Watchdog")))
    page = get(log, options, "/metrics").body
    ours = {metric.name: metric.kind for metric in load_catalogue().values() if metric.program == "alert_log"}
    assert exposed(page) == ours
    assert 'rtinfra_alert_log_received_total{status="firing"} 2' in page
    assert 'rtinfra_alert_log_firing{severity="critical"} 1' in page


def test_markdown() -> None:
    text = "# A\n\nb `c*` & d\ne\n\n- f\n- g\n\n```\n<h> **i**\n\nj\n```\n\n1. k\n2. l\n"
    assert render_markdown(text).split("\n", 2)[0] == "<h1>A</h1>"
    assert "<p>b <code>c*</code> &amp; d\ne</p>" in render_markdown(text)
    assert "<ul><li>f</li><li>g</li></ul>" in render_markdown(text)
    assert "<pre>&lt;h&gt; **i**\n\nj</pre>" in render_markdown(text)
    assert "<ol><li>k</li><li>l</li></ol>" in render_markdown(text)


@settings(deadline=None)
@given(st.text(alphabet="<>&\"'#`*-1. \nab", max_size=80))
def test_markdown_lets_no_markup_through(text: str) -> None:
    tags = {"h1", "h2", "h3", "p", "ul", "ol", "li", "pre", "code", "b"}
    for piece in render_markdown(text).split("<")[1:]:
        assert piece.split(">")[0].lstrip("/") in tags


# ---- over the network -------------------------------------------------------------------------------------


@pytest.fixture
def server(log: AlertLog, options: Options) -> Iterator[str]:
    running = alert_log.Server(options, log)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, body, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_over_http(server: str) -> None:
    assert ask(f"{server}/-/ready") == (200, "ready\n")
    assert ask(f"{server}/alerts", message(alert()))[0] == 200
    assert "HostDown" in ask(f"{server}/")[1]
    assert ask(f"{server}/elsewhere", message(alert()))[0] == 404
    assert ask(f"{server}/alerts", b"x")[0] == 400


def test_a_request_without_or_with_a_huge_length_is_refused(server: str) -> None:
    host, port = server.removeprefix("http://").split(":")
    for header, status in ((b"", b"411"), (b"Content-Length: 999999999\r\n", b"413")):
        with socket.create_connection((host, int(port)), timeout=10) as channel:
            channel.sendall(b"POST /alerts HTTP/1.0\r\n" + header + b"\r\n")
            assert channel.recv(100).split()[1] == status


def installed(tmp_path: Path) -> Path:
    """Put the program where a host would have it; return what Python is started with."""
    place = tmp_path / "alert-log"
    (place / "alert_log").mkdir(parents=True)
    (place / "__main__.py").write_bytes(_MAIN)
    for part in _PARTS:
        (place / "alert_log" / part).write_bytes((Path(alert_log.__file__).parent / part).read_bytes())
    return place


def test_it_tells_systemd_when_it_listens(options: Options, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, socket.socket() as free:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(30)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        words = ["--address", "127.0.0.1", "--port", str(port), "--directory", str(tmp_path)]
        words += ["--runbooks", str(options.runbooks), "--max-bytes", "1000", "--keep", "1"]
        program = subprocess.Popen(
            [sys.executable, "-I", str(installed(tmp_path)), *words], env={"NOTIFY_SOCKET": str(tmp_path / "notify")}
        )
        try:
            assert channel.recv(100) == b"READY=1"
            assert ask(f"http://127.0.0.1:{port}/-/ready")[0] == 200
        finally:
            program.terminate()
            program.wait(30)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /alerts HTTP/1.0\r\n" + b"A: " + b"b" * 60_000 + b"\r\n",
        b"GET " + b"/" * 60_000 + b" HTTP/1.0\r\n\r\n",
        b"\0\xff\r\n" * 1000,
        b"POST /alerts HTTP/1.0\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /alerts HTTP/1.0\r\nContent-Length: 5\r\n\r\n",
        b"GET /%ff%00 HTTP/9.9\r\n\r\n",
        b"GET //[ HTTP/1.0\r\n\r\n",
    ],
)
def test_nonsense_costs_one_request(options: Options, server: str, sent: bytes) -> None:
    host, _, port = server.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 5) as channel:
        channel.sendall(sent)
        channel.shutdown(socket.SHUT_WR)
        channel.settimeout(20)
        try:
            while channel.recv(65536):
                pass
        except OSError:
            pass
    assert ask(f"{server}/-/ready")[0] == 200
