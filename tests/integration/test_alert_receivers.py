"""A real Alertmanager with the configuration we ship: a message arrives at a listener, for each kind of receiver."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roles.alertmanager import role
from roles.shape import RoleState
from tests.integration.servers import Process, free_port, wait_for
from tests.unit.monitoring_tools import SHARE, tool
from tests.unit.telemetry_site import here, shipped, view

SUMMARY = "robot-7 is down"
#: Where the message of each kind goes, below the listener's address.
PLACES = {
    "alert log": "/alerts",
    "Microsoft Teams": "/teams",
    "Slack": "/slack",
    "Telegram": "/botvalue-of-bot/sendMessage",
    "webhook": "/own",
    "on-call service": "/oncall/v2/alerts",
}
TO_PEOPLE = {"Microsoft Teams", "Slack", "Telegram", "webhook"}


@dataclass
class Listener:
    """Takes whatever is posted to it, in place of the outside world."""

    port: int = 0
    messages: list[tuple[str, str]] = field(default_factory=list)

    def arrived(self) -> set[str]:
        """The kinds of receivers whose message about our alert is there."""
        return {
            kind
            for kind, place in PLACES.items()
            if any(path == place and SUMMARY in body for path, body in self.messages)
        }


@contextmanager
def listening() -> Iterator[Listener]:
    """Run a listener on loopback."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # Characters beyond ASCII and in form fields may be escaped; ours are neither.
            listener.messages.append((self.path, body.decode().replace("+", " ")))
            answer = json.dumps(
                {"ok": True, "result": {"message_id": 1, "date": 0, "chat": {"id": 1, "type": "group"}}}
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()


def settled(listener: Listener, port: int, *, channels: bool) -> RoleState:
    """What the role puts on a host whose alert log, chats and on-call service are the listener."""
    outside = f"http://127.0.0.1:{listener.port}"
    chosen = {
        "teams": {"url_secret": "teams"},
        "slack": {"url_secret": "slack", "channel": "#robots"},
        "telegram": {"token_secret": "bot", "chat_id": -1001, "api_url": outside},
        "webhook": {"url_secret": "own"},
        "escalation": {"key_secret": "oncall", "api_url": f"{outside}/oncall/", "after": "1s"},
    }
    settings = shipped("alertmanager", port=port, log_port=listener.port, **(chosen if channels else {}))
    return role.state(settings, view(host="b1", address="127.0.0.1", alertmanager=here(settings)))


@pytest.fixture
def listener() -> Iterator[Listener]:
    """The outside world."""
    with listening() as found:
        yield found


@contextmanager
def alertmanager(found: RoleState, listener: Listener, port: int, directory: Path) -> Iterator[None]:
    """Run Alertmanager with the role's files; secrets that are addresses lead to the listener."""
    (container,) = found.containers
    for file in container.config:
        content = file.content.decode().replace(f"{container.config_mount}/", f"{directory}/")
        if Path(file.path).name in ("teams_url", "slack_url", "webhook_url"):
            content = f"http://127.0.0.1:{listener.port}/{content.removeprefix('value-of-')}"
        # Warnings are collected for half a minute, which a test need not wait for.
        content = content.replace("group_wait: 30s", "group_wait: 1s")
        (directory / Path(file.path).name).write_text(content, encoding="utf-8")
    program = tool("prometheus-alertmanager")
    # Debian's reads its own templates from /usr/share, where this machine has none: there they are for it alone.
    inside = f'mount --bind "{program.parent / SHARE}" /usr/share && exec "$@"'
    process = Process(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh"),
            program,
            f"--config.file={directory}/alertmanager.yml",
            f"--storage.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        port,
        log=directory / "log",
    )
    process.start()
    try:
        yield
    finally:
        process.kill()


def fire(port: int, priority: str, severity: str, summary: str = SUMMARY) -> None:
    """Give the Alertmanager an alert, as Prometheus does."""
    alert = {
        "labels": {"alertname": "HostDown", "host": "robot-7", "priority": priority, "severity": severity},
        "annotations": {"summary": summary, "summary_ko": "", "description": "", "runbook_url": "http://127.0.0.1/"},
        "endsAt": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v2/alerts", json.dumps([alert]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("priority", "severity", "expected"),
    [
        ("P0", "critical", set(PLACES)),
        ("P1", "warning", {"alert log", *TO_PEOPLE}),
        ("P1", "none", {"alert log"}),
    ],
    ids=["failure", "warning", "watchdog"],
)
def test_a_message_arrives_at_every_receiver_it_is_for(
    listener: Listener, tmp_path: Path, priority: str, severity: str, expected: set[str]
) -> None:
    port = free_port()
    with alertmanager(settled(listener, port, channels=True), listener, port, tmp_path):
        fire(port, priority, severity)
        wait_for(lambda: listener.arrived() >= expected, f"messages to {sorted(expected)}")
    assert listener.arrived() == expected, (tmp_path / "log").read_text()


def test_without_channels_the_alert_log_hears_of_it_alone(listener: Listener, tmp_path: Path) -> None:
    port = free_port()
    with alertmanager(settled(listener, port, channels=False), listener, port, tmp_path):
        fire(port, "P0", "critical")
        wait_for(lambda: listener.arrived() >= {"alert log"}, "message to the alert log")
    assert {path for path, _ in listener.messages} == {"/alerts"}


def test_words_of_an_alert_are_no_markup_of_a_chat(listener: Listener, tmp_path: Path) -> None:
    """A name that somebody chose called everybody of the channel, or hid an address behind other words."""
    port = free_port()
    with alertmanager(settled(listener, port, channels=True), listener, port, tmp_path):
        fire(port, "P0", "critical", f"{SUMMARY} <!channel> [all is well](http://192.0.2.66/)")
        wait_for(lambda: listener.arrived() >= TO_PEOPLE, "messages")
    said = {path: json.dumps(json.loads(body)) for path, body in listener.messages if path in ("/slack", "/teams")}
    assert "&lt;!channel&gt; [all is well]" in said["/slack"]
    assert "<!channel>" not in said["/slack"]
    assert "[all is well]" + 2 * "\\" + "(http" in said["/teams"]
    assert "](" not in said["/teams"]
