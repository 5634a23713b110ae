"""Sends numbered spans, metric points and log lines to the agent on this host, until it is stopped.

    sender.py STATE FIRST

Runs on the lab host with nothing but Python. STATE gets one line for every batch that the agent acknowledged for all
three signals, fsynced: a number that stands there may never be lost again. A batch that was not acknowledged is sent
again, as any exporter does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

AGENT = "http://127.0.0.1:4318"
PER_BATCH = 5
PAUSE = 0.5
SERVICE = "noloss"
_RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": SERVICE}}]}


def batch(first: int, now: int) -> dict[str, dict[str, object]]:
    """Return the three OTLP messages with the numbers first .. first + PER_BATCH - 1; `now` in nanoseconds."""
    numbers = range(first, first + PER_BATCH)
    attribute = {number: [{"key": "sequence", "value": {"intValue": str(number)}}] for number in numbers}
    # A millisecond apart: Prometheus keeps one sample of a series for each.
    when = {number: str(now + (number - first) * 1_000_000) for number in numbers}
    trace = f"{first:032x}"
    spans = [
        {
            "traceId": trace,
            "spanId": f"{number:016x}",
            "name": "numbered",
            "kind": 1,
            "startTimeUnixNano": when[number],
            "endTimeUnixNano": when[number],
            "attributes": attribute[number],
        }
        for number in numbers
    ]
    points = [{"timeUnixNano": when[number], "asInt": str(number)} for number in numbers]
    logs = [
        {
            "timeUnixNano": when[number],
            "severityText": "INFO",
            "body": {"stringValue": f"numbered {number}"},
            "attributes": attribute[number],
            "traceId": trace,
        }
        for number in numbers
    ]
    metric = {"name": "noloss_sequence", "gauge": {"dataPoints": points}}
    return {
        "traces": {"resourceSpans": [{"resource": _RESOURCE, "scopeSpans": [{"spans": spans}]}]},
        "metrics": {"resourceMetrics": [{"resource": _RESOURCE, "scopeMetrics": [{"metrics": [metric]}]}]},
        "logs": {"resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"logRecords": logs}]}]},
    }


def send(signal: str, message: dict[str, object]) -> None:
    """Send one message until it is acknowledged."""
    body = json.dumps(message).encode()
    while True:
        request = urllib.request.Request(
            f"{AGENT}/v1/{signal}", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                # A partial success would be a loss that the status does not show.
                if not json.loads(answer.read() or b"{}").get("partialSuccess"):
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.5)


def main() -> None:
    """Send batches from FIRST on."""
    state, first = sys.argv[1], int(sys.argv[2])
    with Path(state).open("a", encoding="ascii") as record:
        while True:
            for signal, message in batch(first, time.time_ns()).items():
                send(signal, message)
            record.write(f"{first}\n")
            record.flush()
            os.fsync(record.fileno())
            first += PER_BATCH
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
