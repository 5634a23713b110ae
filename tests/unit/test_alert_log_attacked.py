"""The alert log under attack: whoever sends whatever, it goes on, starts again, and stays within its memory."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.alertmanager.alert_log.alert_log import MAX_BODY_BYTES, MAX_OPEN, AlertLog, answer_get, answer_post
from roles.alertmanager.alert_log.kept import MAX_KEPT_BYTES
from tests.unit.test_alert_log import Options, alert, ask, installed, message

# MemoryMax= of its unit.
MEMORY_MB = 128

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint", "received")


def options_in(path: Path) -> Options:
    return Options("127.0.0.1", 0, path, path, 100_000, 2)


@settings(deadline=None, max_examples=200)
@given(changes=st.dictionaries(st.sampled_from(KEYS), anything, max_size=3), text=st.text(max_size=30))
def test_whatever_is_sent_it_is_shown_and_starts_again(changes: dict[str, Any], text: str) -> None:
    """`"fingerprint": []` reached the disk, and no later start succeeded."""
    with tempfile.TemporaryDirectory() as name:
        log = AlertLog(options_in(Path(name)))
        labels = {"alertname": text or "A", "severity": text, text: text}
        body = message({**alert(labels=labels, annotations={"summary": text}), **changes})
        status = answer_post(log, "/alerts", body).status
        assert status in (200, 400)
        for one in (log, AlertLog(options_in(Path(name)))):
            for page in ("/", "/alerts", "/metrics"):
                assert answer_get(one, Path(name), page).status == 200
            shown = json.loads(answer_get(one, Path(name), "/alerts").body)
            assert len(shown) == (status == 200 and labels["alertname"] != "Watchdog")


lines_of_a_file = st.lists(
    st.binary(max_size=40)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(KEYS), anything, max_size=8).map(
        lambda changes: json.dumps({"received": "2026-01-01T00:00:00+00:00", **alert(), **changes}).encode()
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=200)
@given(lines=lines_of_a_file)
def test_any_line_of_the_file_is_survived(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "alerts.jsonl").write_bytes(b"\n".join(lines))
        log = AlertLog(options_in(Path(name)))
        assert answer_post(log, "/alerts", message(alert("New"))).status == 200
        assert answer_get(log, Path(name), "/").status == 200


@pytest.mark.parametrize("line", [b'"fingerprint": [], ', b'"fingerprint": {}, "status": [], ', b"", b"[" * 5000])
def test_a_line_that_an_earlier_version_let_in_is_left_out(tmp_path: Path, line: bytes) -> None:
    good = json.dumps({"received": "2100-01-01T00:00:00+00:00", **alert()}).encode()
    bad = b'{"received": "2100-01-01T00:00:00+00:00", %b"labels": {"alertname": "B"}}' % line
    endless = b"x" * (2 << 20)
    (tmp_path / "alerts.jsonl").write_bytes(b"\n".join([bad, endless, good, bad]))
    log = AlertLog(options_in(tmp_path))
    assert [one["labels"]["alertname"] for one in log.alerts()] == ["HostDown"]


def test_half_a_letter_is_no_reason_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = message(alert(annotations={"summary": "a"})).replace(b'"a"', b'"\\ud800"')
    log = AlertLog(options_in(tmp_path))
    assert answer_post(log, "/alerts", body).status == 200
    assert len(AlertLog(options_in(tmp_path)).alerts()) == 1


def test_what_is_kept_is_bounded_and_the_newest_stays(tmp_path: Path) -> None:
    log = AlertLog(options_in(tmp_path))
    for number in range(0, 6000, 500):
        many = [alert(f"A{number + one}", annotations={"summary": "x" * 900}) for one in range(500)]
        assert answer_post(log, "/alerts", message(*many)).status == 200
    found = answer_get(log, tmp_path, "/alerts").body
    assert len(found) < 1.1 * MAX_KEPT_BYTES
    assert b"A5999" in found if isinstance(found, bytes) else False
    page = answer_get(log, tmp_path, "/").body
    assert len(page) < 2**20
    assert "more: " in str(page)


# ---- a real process ---------------------------------------------------------------------------------------


@pytest.fixture
def full_journal(tmp_path: Path) -> Path:
    """Files of the size at which they are put aside, full of alerts of this minute."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    line = json.dumps({"received": stamp, **alert(annotations={"summary": "x" * 300})}).replace("print-of", "print-%d")
    for name in ("alerts.jsonl", "alerts.jsonl.1"):
        with (tmp_path / name).open("w") as file:
            for number in range(20 * 2**20 // len(line)):
                file.write(f"{line % number}\n")
    return tmp_path


@pytest.fixture
def process(full_journal: Path) -> Iterator[tuple[str, int, Callable[[], float]]]:
    """Address and port of a running alert log, and its highest memory so far in MiB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--address", "127.0.0.1", "--port", str(port), "--directory", str(full_journal)]
    words += ["--runbooks", str(full_journal), "--max-bytes", str(20 * 2**20), "--keep", "2"]
    program = [sys.executable, "-I", str(installed(full_journal)), *words]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    assert running.poll() is None
                    time.sleep(0.1)

            def memory() -> float:
                status = Path(f"/proc/{running.pid}/status").read_text()
                return int(status.partition("VmHWM:")[2].split()[0]) / 1024

            yield "127.0.0.1", port, memory
            assert running.poll() is None, "it goes on"
        finally:
            running.kill()
        assert running.stderr is not None
        assert running.stderr.read() == b"", "nobody fills the journal with tracebacks"


def test_all_at_once_it_stays_within_its_memory(process: tuple[str, int, Callable[[], float]]) -> None:
    """A full journal at the start, and everybody who can be kept waiting: 40 open requests held 344 MB."""
    host, port, memory = process
    url = f"http://{host}:{port}"
    assert memory() < MEMORY_MB
    dense = b"{" + b'"version": "4", "alerts": [' + b'{"a":0},' * (MAX_BODY_BYTES // 8 - 10) + b"0]}"
    assert len(dense) <= MAX_BODY_BYTES
    begun = b"POST /alerts HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES
    openings = [
        begun + b"x" * (MAX_BODY_BYTES - 1),
        b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 50,
        b"",
        b"GET /alerts HTTP/1.0\r\n\r\n",
    ]
    held = []
    for number in range(4 * MAX_OPEN):
        channel = socket.create_connection((host, port), 5)
        channel.settimeout(5)
        held.append(channel)
        try:
            channel.sendall(openings[number % len(openings)])
        except OSError:
            continue  # hung up on
        if number % 20 == 0:
            assert ask(url + "/alerts", dense)[0] == 400
            assert ask(url + "/alerts", message(alert(f"Real{number}")))[0] == 200, "nobody is shut out"
    assert "Real40" in ask(url + "/alerts?status=firing")[1]
    assert ask(url + "/")[0] == 200
    for channel in held:
        channel.close()
    assert memory() < MEMORY_MB
