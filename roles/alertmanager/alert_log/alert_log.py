"""The alert log: what hears every alert, on the host itself, with nothing but Python's standard library.

Alertmanager posts all alerts here, whatever else it sends them to. They are appended to a file and written to the
journal, so that nothing is silent on a closed network. A page shows what is firing, in Korean and English, and serves
the runbook of each alert. The alert Watchdog is always on: when it stops coming, alerting is broken, and this program
says so in the journal (dead man's switch).
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

WATCHDOG: Final = "Watchdog"
# Alertmanager repeats it every minute or two.
WATCHDOG_SECONDS: Final = 300
# Alertmanager repeats what is firing every hour; what it has not repeated for longer it has forgotten.
FORGET_SECONDS: Final = 3 * 3600
MAX_BODY_BYTES: Final = 8 * 2**20
# Priorities of sd-daemon(3) at the beginning of a line.
ERROR, WARNING, NOTICE = "<3>", "<4>", "<5>"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")


class NotAlerts(ValueError):
    """A request that is not what Alertmanager sends; the text says what is wrong with it."""


def say(priority: str, text: str) -> None:
    """Write one line to the journal. Texts of alerts are others' words: they cannot begin a line of their own."""
    print(priority + "".join(letter if letter.isprintable() else " " for letter in text), flush=True)


def parse_alerts(body: bytes) -> list[dict[str, Any]]:
    """Return the alerts of a webhook message of Alertmanager (version 4).

    Raises:
        NotAlerts: it is something else.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAlerts("not JSON") from None
    if not isinstance(message, dict) or message.get("version") != "4":
        raise NotAlerts("not a webhook message of version 4")
    alerts = message.get("alerts")
    if not isinstance(alerts, list):
        raise NotAlerts("without a list of alerts")
    return [_checked(alert) for alert in alerts]


def _checked(alert: object) -> dict[str, Any]:
    if not isinstance(alert, dict) or alert.get("status") not in ("firing", "resolved"):
        raise NotAlerts("an alert is neither firing nor resolved")
    for part in ("labels", "annotations"):
        texts = alert.get(part)
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise NotAlerts(f"the {part} of an alert are not texts")
    if not alert["labels"].get("alertname"):
        raise NotAlerts("an alert has no name")
    kept = ("status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint")
    found = {name: alert[name] for name in kept if name in alert}
    # Alertmanager's own number of the label set; without it the labels are the identity.
    found.setdefault("fingerprint", json.dumps(alert["labels"], sort_keys=True))
    return found


class Journal:
    """The file with one line of JSON for each alert that came, kept in a bounded number of files."""

    def __init__(self, directory: Path, max_bytes: int, keep: int) -> None:
        self.path = directory / "alerts.jsonl"
        self._max_bytes = max_bytes
        self._keep = keep

    def append(self, lines: Sequence[str]) -> None:
        """Write lines; when this returns they are on the disk."""
        if not lines:
            return
        if self.path.exists() and self.path.stat().st_size >= self._max_bytes:
            self._rotate()
        with self.path.open("ab") as file:
            # After a power cut the file may end in the middle of a line.
            if file.tell() and not self._ends_with_line():
                file.write(b"\n")
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))
        self._numbered(self._keep + 1).unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def read(self) -> Iterator[dict[str, Any]]:
        """Return what the newest two files hold, oldest first. Lines that a power cut tore are left out."""
        for path in (self._numbered(1), self.path):
            if not path.exists():
                continue
            with path.open("rb") as file:
                for line in file:
                    try:
                        alert = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(alert, dict) and "fingerprint" in alert and "received" in alert:
                        yield alert


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
        self._alerts: dict[str, dict[str, Any]] = {}
        self._received: Counter[str] = Counter(firing=0, resolved=0)
        self._refused = 0
        self._watchdog_at: float | None = None
        self._started_at: float = clock()
        self._reported_missing = False
        for alert in self._journal.read():
            self._alerts[alert["fingerprint"]] = alert

    def take(self, body: bytes) -> int:
        """Note down a message of Alertmanager; return how many alerts it had.

        Raises:
            NotAlerts: it is no such message; nothing was noted.
            OSError: the disk did not take it; Alertmanager sends it again.
        """
        try:
            alerts = parse_alerts(body)
        except NotAlerts:
            with self._lock:
                self._refused += 1
            raise
        now = self._clock()
        received = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        with self._lock:
            real = [{"received": received, **alert} for alert in alerts if alert["labels"]["alertname"] != WATCHDOG]
            self._journal.append([json.dumps(alert, ensure_ascii=False) for alert in real])
            for alert in alerts:
                self._received[alert["status"]] += 1
                if alert["labels"]["alertname"] == WATCHDOG and alert["status"] == "firing":
                    self._hear_watchdog(now)
            for alert in real:
                self._alerts[alert["fingerprint"]] = alert
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

    def alerts(self, status: str | None = None) -> list[dict[str, Any]]:
        """Return the last word on each alert, newest first; only those with a status, when one is given."""
        oldest = datetime.fromtimestamp(self._clock() - FORGET_SECONDS, UTC)
        with self._lock:
            for fingerprint, alert in list(self._alerts.items()):
                if datetime.fromisoformat(alert["received"]) < oldest:
                    del self._alerts[fingerprint]
            found = [alert for alert in self._alerts.values() if status in (None, alert["status"])]
        return sorted(found, key=lambda alert: str(alert["received"]), reverse=True)

    def metrics(self) -> str:
        """Return what Prometheus scrapes."""
        firing = Counter(alert["labels"].get("severity", "none") for alert in self.alerts("firing"))
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


# --- Pages -------------------------------------------------------------------------------------------------

_STYLE: Final = """
body { font: 17px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .4rem .6rem; vertical-align: top;
border-bottom: 1px solid #ccc } .critical { border-left: .5rem solid #c00 } .warning { border-left: .5rem solid #e90 }
.good { color: #060 } .bad { color: #c00; font-weight: bold } code, pre { background: #f2f2f2 } pre { padding: .6rem;
overflow-x: auto } small { color: #555 }
"""


def page(title: str, body: str, refresh: bool = False) -> str:
    """Return an HTML page; `body` is HTML already."""
    again = '<meta http-equiv="refresh" content="30">' if refresh else ""
    return (
        f'<!DOCTYPE html><html lang="ko"><head><meta charset="utf-8">{again}'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def overview(log: AlertLog) -> str:
    """Return the page with what is firing."""
    firing = log.alerts("firing")
    rows = "".join(_row(alert) for alert in firing)
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
    return page("Alerts", f"<h1>알림 / Alerts</h1>{watchdog}{state}", refresh=True)


def _row(alert: Mapping[str, Any]) -> str:
    labels, annotations = alert["labels"], alert["annotations"]
    name = labels["alertname"]
    severity = labels.get("severity", "")
    kind = severity if severity in ("critical", "warning") else ""
    title = html.escape(name)
    link = f'<a href="/runbooks/{title}">{title}</a>' if _NAME.fullmatch(name) else title
    texts = (annotations.get(key, "") for key in ("summary_ko", "summary", "description"))
    told = "<br>".join(html.escape(text) for text in texts if text)
    return (
        f'<tr><td class="{kind}"><b>{link}</b> {html.escape(severity)}<br>{told}</td>'
        f"<td>{html.escape(labels.get('host', ''))}</td><td>{html.escape(str(alert.get('startsAt', '')))}</td></tr>"
    )


def render_markdown(text: str) -> str:
    """Return the HTML of a runbook: headings, paragraphs, lists, code. Anything else stays the text it is."""
    parts: list[str] = []
    # Text and code take turns.
    for number, block in enumerate(re.split(r"^```[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)):
        if number % 2:
            parts.append(f"<pre>{html.escape(block.rstrip())}</pre>")
        else:
            parts += [_paragraph(paragraph) for paragraph in re.split(r"\n\s*\n", block) if paragraph.strip()]
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    text = text.strip("\n")
    if heading := re.fullmatch(r"(#{1,3}) (.+)", text):
        level = len(heading[1])
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    for tag, bullet in (("ul", r"- "), ("ol", r"[0-9]+\. ")):
        if re.match(bullet, text):
            items = re.split(rf"^{bullet}", text, flags=re.MULTILINE)[1:]
            return f"<{tag}>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</{tag}>"
    return f"<p>{_inline(text)}</p>"


def _inline(text: str) -> str:
    pieces = html.escape(text.strip()).split("`")
    marked = [f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces)]
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", "".join(marked))


# --- HTTP --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    status: int
    body: str
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
        return Answer(200, json.dumps(log.alerts(status), ensure_ascii=False, indent=1) + "\n", _JSON)
    if path.startswith("/runbooks/"):
        name = path.removeprefix("/runbooks/")
        # Only letters and digits: no way out of the directory.
        file = runbooks / f"{name}.md"
        if _NAME.fullmatch(name) and file.is_file():
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
    """The web server. A request that hangs ends after some seconds, and never keeps the program from ending."""

    daemon_threads = True

    def __init__(self, options: Options, log: AlertLog) -> None:
        self.log, self.runbooks = log, options.runbooks
        if ":" in options.address:
            self.address_family = socket.AF_INET6
        super().__init__((options.address, options.port), Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, which HTTPServer does: on a closed network none answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 10
    server_version = "alert-log"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._send(answer_get(self.server.log, self.server.runbooks, self.path))

    def do_POST(self) -> None:
        """Answer a POST request."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._send(Answer(411, "Content-Length is missing\n"))
        elif int(length) > MAX_BODY_BYTES:
            self._send(Answer(413, "too large\n"))
        else:
            self._send(answer_post(self.server.log, self.path, self.rfile.read(int(length))))

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode()
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
