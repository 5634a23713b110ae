"""A program that falls silent becomes an alert that is heard, with the page that says what to do; its return as well.

Prometheus, Alertmanager and the alert log as the roles have them. Only how long an alert has to hold is shorter: what
follows from its real length is tested with `promtool test rules` (tests/rules).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.native.fleet import containers, files, in_room
from tests.native.room import Network, eventually, put

_UNIT = "/etc/systemd/system/rtinfra-alert-log.service"
_RT_PROCESS = "192.0.2.1"
# Stands for the process that is back.
_METRICS = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Metrics(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"back 1\\n")

    def log_message(self, *words):
        pass

HTTPServer((sys.argv[1], int(sys.argv[2])), Metrics).serve_forever()
"""


@pytest.fixture
def alert_log(network: Network, tmp_path: Path) -> Iterator[Path]:
    """The file that the alert log writes."""
    root = tmp_path / "alert-log"
    unit = ""
    for file in files("alertmanager"):
        put(root, file.path, file.content, file.mode)
        if file.path == _UNIT:
            unit = file.content.decode()
    (command,) = re.findall(r"^ExecStart=/usr/bin/python3 (.*)$", unit, re.MULTILINE)
    words = [f"{root}{word}" if word.startswith("/") else word for word in shlex.split(command)]
    directory = Path(words[words.index("--directory") + 1])
    directory.mkdir(parents=True)
    with subprocess.Popen(network.inside(sys.executable, *words)) as process:
        try:
            yield directory / "alerts.jsonl"
        finally:
            process.kill()


@pytest.fixture
def alerting(network: Network, alert_log: Path, tmp_path: Path) -> Iterator[None]:
    """Prometheus and Alertmanager."""
    prometheus = containers("prometheus")["prometheus"]
    config = tuple(
        replace(file, content=re.sub(rb"for: \d+[smh]", b"for: 1s", file.content))
        if file.path.endswith("/services.rules.yml")
        else file
        for file in prometheus.config
    )
    programs = [
        in_room(containers("alertmanager")["alertmanager"], network, tmp_path),
        in_room(replace(prometheus, config=config), network, tmp_path),
    ]
    try:
        for program in programs:
            program.start()
        yield
    finally:
        for program in programs:
            program.kill()


def heard(alert_log: Path, status: str) -> list[dict[str, Any]]:
    """Return what the alert log has heard of the real-time process."""
    lines = alert_log.read_text().splitlines() if alert_log.exists() else []
    alerts = [json.loads(line) for line in lines]
    return [
        alert
        for alert in alerts
        if alert.get("status") == status
        and alert["labels"].get("alertname") == "ServiceDown"
        and alert["labels"].get("job") == "rt_process"
    ]


def test_silence_is_heard_and_so_is_the_return(network: Network, alerting: None, alert_log: Path) -> None:
    (alert, *_) = eventually("the alert in the alert log", 60, lambda: heard(alert_log, "firing"))
    assert (alert["labels"]["host"], alert["labels"]["severity"]) == ("rt1", "critical")
    page = network.text(alert["annotations"]["runbook_url"])
    assert page is not None and "ServiceDown" in page

    port = _port(network)
    with subprocess.Popen(network.inside(sys.executable, "-c", _METRICS, _RT_PROCESS, port)) as process:
        try:
            eventually("the end of the alert in the alert log", 90, lambda: heard(alert_log, "resolved"))
        finally:
            process.kill()


def _port(network: Network) -> str:
    """Where Prometheus looks for the metrics of the real-time process."""
    targets = network.get("http://192.0.2.20:9090/api/v1/targets")["data"]["activeTargets"]
    (url,) = (target["scrapeUrl"] for target in targets if target["labels"]["job"] == "rt_process")
    found = re.search(r":(\d+)/", url)
    assert found is not None
    return found[1]
