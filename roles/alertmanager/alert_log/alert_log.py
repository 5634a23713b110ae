"""The alert log: what hears every alert, on the host itself, with nothing but Python's standard library.

Alertmanager posts all alerts here, whatever else it sends them to. They are appended to a file and written to the
journal, so that nothing is silent on a closed network. A page shows what is firing, in Korean and English, and serves
the runbook of each alert. The alert Watchdog is always on: when it stops coming, alerting is broken, and this program
says so in the journal (dead man's switch).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from .kept import FORGET_SECONDS, Journal, Kept, Memory, NotAlerts, parse_alerts
from .pages import NAME, page, render_markdown, row

WATCHDOG: Final = "Watchdog"
# Alertmanager repeats it every minute or two.
WATCHDOG_SECONDS: Final = 300
# Anybody on the network can send: what a request may cost is bounded, so that all together stay below MemoryMax= of the
# unit, whoever sends whatever. A message of Alertmanager has about 1 KiB for each alert.
MAX_BODY_BYTES: Final = 2**20
MAX_HEAD_BYTES: Final = 16 * 2**10
# Alertmanagers, Prometheus and some people; of more, the one that is open longest is closed.
MAX_OPEN: Final = 12
OPEN_SECONDS: Final = 15
# A page with more is of no use to anybody; /alerts has all of them.
MAX_ROWS: Final = 300
# Priorities of sd-daemon(3) at the beginning of a line.
ERROR, WARNING, NOTICE = "<3>", "<4>", "<5>"
_LONGEST_LINE: Final = 1000


def say(priority: str, text: str) -> None:
    """Write one line to the journal. Texts of alerts are others' words: they cannot begin a line of their own."""
    print(priority + "".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST_LINE]), flush=True)


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    address: str
    port: int
    directory: Path
    runbooks: Path
    max_bytes: int
    keep: int


class AlertLog:
    """All that is known of alerts. Used by the threads of several requests."""

    def __init__(self, options: Options, clock: Any = time.time) -> None:
        self._journal = Journal(options.directory, options.max_bytes, options.keep)
        self._clock = clock
        self._lock = threading.Lock()
        self._parsing = threading.Lock()
        self._memory = Memory()
        self._received: Counter[str] = Counter(firing=0, resolved=0)
        self._refused = 0
        self._watchdog_at: float | None = None
        self._started_at: float = clock()
        self._reported_missing = False
        for fingerprint, kept in self._journal.read():
            if kept.received > clock() - FORGET_SECONDS:
                self._memory.put(fingerprint, kept)

    def take(self, body: bytes) -> int:
        """Note down a message of Alertmanager; return how many alerts it had.

        Raises:
            NotAlerts: it is no such message; nothing was noted.
            OSError: the disk did not take it; Alertmanager sends it again.
        """
        # One after the other: what a message becomes while it is read is many times its size.
        with self._parsing:
            try:
                alerts = parse_alerts(body)
            except NotAlerts:
                self._refused += 1
                raise
            now = self._clock()
            real = [(alert, Kept.of(alert, now)) for alert in alerts if alert["labels"]["alertname"] != WATCHDOG]
            with self._lock:
                self._journal.append([kept.line for _, kept in real])
                for alert in alerts:
                    self._received[alert["status"]] += 1
                    if alert["labels"]["alertname"] == WATCHDOG and alert["status"] == "firing":
                        self._hear_watchdog(now)
                for alert, kept in real:
                    self._memory.put(alert["fingerprint"], kept)
                    self._tell(alert)
            return len(alerts)

    def _hear_watchdog(self, now: float) -> None:
        if self._watchdog_at is None or self._reported_missing:
            say(NOTICE, f"{WATCHDOG} has come: alerts arrive here")
        self._watchdog_at, self._reported_missing = now, False

    @staticmethod
    def _tell(alert: Mapping[str, Any]) -> None:
        labels, annotations = alert["labels"], alert["annotations"]
        urgent = ERROR if labels.get("severity") == "critical" else WARNING
        say(
            urgent if alert["status"] == "firing" else NOTICE,
            f"{alert['status']}: {labels['alertname']} {annotations.get('summary', '')} "
            f"host={labels.get('host', '-')} severity={labels.get('severity', '-')} "
            f"runbook={annotations.get('runbook_url', '-')}",
        )

    def seconds_since_watchdog(self) -> float:
        """Return how long the Watchdog has not come; from the start of this program, while it has never come."""
        since = self._started_at if self._watchdog_at is None else self._watchdog_at
        return max(0.0, float(self._clock()) - since)

    def watchdog_missing(self) -> bool:
        """Return whether alerting is broken somewhere between the rules and here."""
        return self.seconds_since_watchdog() > WATCHDOG_SECONDS

    def check_watchdog(self) -> None:
        """Say it once when the Watchdog stops coming."""
        with self._lock:
            if self.watchdog_missing() and not self._reported_missing:
                self._reported_missing = True
                say(
                    ERROR,
                    f"{WATCHDOG} has not come for {self.seconds_since_watchdog():.0f} s: alerting is broken between "
                    "Prometheus, Alertmanager and this host; alerts may not reach anybody",
                )

    def kept(self, status: str | None = None) -> list[Kept]:
        """Return the last word on each alert, newest first; only those with a status, when one is given."""
        with self._lock:
            found = self._memory.since(float(self._clock()) - FORGET_SECONDS)
        return [kept for kept in found if status in (None, kept.status)]

    def alerts(self, status: str | None = None) -> list[dict[str, Any]]:
        """Return what `kept` returns as alerts."""
        return [kept.alert for kept in self.kept(status)]

    def metrics(self) -> str:
        """Return what Prometheus scrapes."""
        firing = Counter(kept.severity for kept in self.kept("firing"))
        text = _family("received_total", "counter", "Alerts written down.")
        text += [
            f'rtinfra_alert_log_received_total{{status="{status}"}} {count}'
            for status, count in sorted(self._received.items())
        ]
        text += _family("refused_total", "counter", "Requests that were no alerts.")
        text += [f"rtinfra_alert_log_refused_total {self._refused}"]
        text += _family("firing", "gauge", "Alerts that are firing.")
        text += [
            f'rtinfra_alert_log_firing{{severity="{severity}"}} {firing[severity]}'
            for severity in ("critical", "warning")
        ]
        text += _family("watchdog_timestamp_seconds", "gauge", "When the last Watchdog alert came; 0: never.")
        text += [f"rtinfra_alert_log_watchdog_timestamp_seconds {self._watchdog_at or 0:.3f}"]
        text += _family("seconds_since_watchdog", "gauge", "Time since the last Watchdog alert.")
        text += [f"rtinfra_alert_log_seconds_since_watchdog {self.seconds_since_watchdog():.3f}"]
        text += _family("watchdog_missing", "gauge", "1: the Watchdog alert has not come for too long.")
        text += [f"rtinfra_alert_log_watchdog_missing {int(self.watchdog_missing())}"]
        return "\n".join(text) + "\n"


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP rtinfra_alert_log_{name} {text}", f"# TYPE rtinfra_alert_log_{name} {kind}"]


def overview(log: AlertLog) -> str:
    """Return the page with what is firing."""
    firing = log.kept("firing")
    rows = "".join(row(kept.alert) for kept in firing[:MAX_ROWS])
    more = len(firing) - MAX_ROWS
    state = (
        f"<table><tr><th>알림 / Alert</th><th>호스트 / Host</th><th>시작 / Since</th></tr>{rows}</table>"
        if firing
        else '<p class="good">현재 발생한 알림이 없습니다. / Nothing is firing.</p>'
    )
    watchdog = (
        '<p class="bad">알림 기능이 동작하지 않습니다. / Alerting is broken: '
        '<a href="/runbooks/WatchdogNotArriving">what to do</a></p>'
        if log.watchdog_missing()
        else '<p class="good">알림 기능이 정상입니다. / Alerting works.</p>'
    )
    rest = f'<p class="bad">그 외 {more}개 / and {more} more: <a href="/alerts">/alerts</a></p>' if more > 0 else ""
    return page("Alerts", f"<h1>알림 / Alerts</h1>{watchdog}{state}{rest}", refresh=True)


# --- HTTP --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    status: int
    body: str | bytes
    kind: str = "text/plain; charset=utf-8"


_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"


def answer_get(log: AlertLog, runbooks: Path, target: str) -> Answer:
    """Answer a GET request."""
    parts = urlsplit(target)
    path = unquote(parts.path)
    if path == "/":
        return Answer(200, overview(log), _HTML)
    if path == "/-/ready":
        return Answer(200, "ready\n")
    if path == "/metrics":
        return Answer(200, log.metrics(), "text/plain; version=0.0.4; charset=utf-8")
    if path == "/alerts":
        status = parse_qs(parts.query).get("status", [None])[0]
        if status not in (None, "firing", "resolved"):
            return Answer(400, "status is firing or resolved\n")
        return Answer(200, b"[\n%b\n]\n" % b",\n".join(kept.line for kept in log.kept(status)), _JSON)
    if path.startswith("/runbooks/"):
        name = path.removeprefix("/runbooks/")
        # Only letters and digits: no way out of the directory.
        file = runbooks / f"{name}.md"
        if NAME.fullmatch(name) and file.is_file():
            back = '<p><a href="/">← 알림 / Alerts</a></p>'
            return Answer(200, page(name, back + render_markdown(file.read_text(encoding="utf-8"))), _HTML)
    return Answer(404, "there is no such page\n")


def answer_post(log: AlertLog, target: str, body: bytes) -> Answer:
    """Answer a POST request."""
    if urlsplit(target).path != "/alerts":
        return Answer(404, "alerts go to /alerts\n")
    try:
        return Answer(200, f"{log.take(body)}\n")
    except NotAlerts as error:
        return Answer(400, f"{error}\n")
    except OSError as error:
        say(ERROR, f"alerts could not be written to the disk: {error.strerror}")
        return Answer(500, "not written, send it again\n")


class Server(ThreadingHTTPServer):
    """The web server. Few requests are open at a time, each for some seconds; none keeps it from ending."""

    daemon_threads = True

    def __init__(self, options: Options, log: AlertLog) -> None:
        self.log, self.runbooks = log, options.runbooks
        # Open requests in the order in which they came, each with its time.
        self._open: dict[socket.socket, float] = {}
        self._open_lock = threading.Lock()
        if ":" in options.address:
            self.address_family = socket.AF_INET6
        super().__init__((options.address, options.port), Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, which HTTPServer does: on a closed network none answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, in the place of the longest open one when there are too many.

        So somebody who keeps requests open shuts nobody out.
        """
        with self._open_lock:
            crowd = len(self._open)
            if crowd < 2 * MAX_OPEN:
                self._open[request] = time.monotonic()
            if crowd >= MAX_OPEN:
                _hang_up(next(iter(self._open)))
        if crowd >= 2 * MAX_OPEN:
            # Those that were hung up on have not gone yet.
            super().shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a request that is done."""
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: hang up on who sends or reads drop by drop."""
        oldest = time.monotonic() - OPEN_SECONDS
        with self._open_lock:
            for request in [request for request, since in self._open.items() if since < oldest]:
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say a mistake of ours in a line; who hangs up is none, and nobody fills the journal with it."""
        error = sys.exception()
        if not isinstance(error, OSError):
            say(WARNING, f"a request was not answered: {error!r}")


def _hang_up(request: socket.socket) -> None:
    # One may be gone already.
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Head:
    """The first lines of a request, as http.server reads them: of 100 with 64 KiB each, it would take all."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        """Read a line, as long as there are not too many."""
        line: bytes = self._stream.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise ConnectionError("too many headers")
        return line

    def read(self, count: int) -> bytes:
        """Read the body."""
        found: bytes = self._stream.read(count)
        return found

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 10
    server_version = "alert-log"
    sys_version = ""

    def setup(self) -> None:
        """Read the head within bounds."""
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._send(answer_get(self.server.log, self.server.runbooks, self.path))

    def do_POST(self) -> None:
        """Answer a POST request."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 12:
            self._send(Answer(411, "Content-Length is missing\n"))
        elif int(length) > MAX_BODY_BYTES:
            self._send(Answer(413, "too large\n"))
        else:
            self._send(answer_post(self.server.log, self.path, self.rfile.read(int(length))))

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode("utf-8", "replace") if isinstance(answer.body, str) else answer.body
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(body)))
        # Texts of alerts are others' words: nothing in a page may run or load anything.
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: Alertmanager and Prometheus ask several times a minute."""


def notify(state: str) -> None:
    """Tell systemd, sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)


def parse_options(arguments: Sequence[str]) -> Options:
    """Return what the command line says; ends the program when it is wrong."""
    parser = argparse.ArgumentParser(description="The alert log.")
    parser.add_argument("--address", required=True, help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--directory", type=Path, required=True, help="where alerts.jsonl is kept")
    parser.add_argument("--runbooks", type=Path, required=True, help="directory of the runbooks")
    parser.add_argument("--max-bytes", type=int, required=True, help="a file of this size is put aside")
    parser.add_argument("--keep", type=int, required=True, help="files kept aside")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> None:
    """Serve until systemd ends the program."""
    options = parse_options(arguments)
    log = AlertLog(options)
    server = Server(options, log)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    notify("READY=1")
    while True:
        log.check_watchdog()
        time.sleep(5)


if __name__ == "__main__":
    main(sys.argv[1:])
