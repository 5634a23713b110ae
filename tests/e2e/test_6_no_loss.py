"""L-7: nothing that an agent acknowledged is lost, whatever fails on the way.

Numbered spans, metric points and log lines leave the real-time machine. Meanwhile Jaeger and Prometheus are stopped for
three minutes, one gateway is killed with SIGKILL, and the sending machine itself loses its power. Afterwards every
number that was acknowledged must be found; duplicates are counted, and how long the rest took is said.

In `make test-all`. `tests/native/test_2_no_loss.py` is the same without a machine, and so without its power cut.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from rtinfra.lab import Machine
from tests.e2e import sender
from tests.e2e.stack import Backends
from tests.project import Project

pytestmark = pytest.mark.heavy
RECORD = "/var/tmp/sent"
OUTAGE_SECONDS = 180
DRAIN_SECONDS = 600


def start_sender(machine: Machine) -> None:
    """Send from the number after the last that was acknowledged, or that may have been sent without a record."""
    machine.run("cat >/var/tmp/sender.py", input=Path(sender.__file__).read_bytes())
    last = machine.run(f"tail -n 1 {RECORD} 2>/dev/null", check=False).stdout.strip()
    # Leaves out the numbers of a batch that was on its way: what is found of those is neither lost nor doubled.
    first = int(last) + 10 * sender.PER_BATCH if last else 1
    machine.run(f"systemd-run --quiet --unit=sender --slice=system.slice python3 /var/tmp/sender.py {RECORD} {first}")


def sent(machine: Machine) -> set[int]:
    """Every number that was acknowledged."""
    firsts = [int(line) for line in machine.run(f"cat {RECORD}").stdout.split()]
    return {first + offset for first in firsts for offset in range(sender.PER_BATCH)}


def spans(backends: Backends) -> Counter[int]:
    """How often Jaeger has each number."""
    answer = backends.get(16686, "/api/traces", service=sender.SERVICE, limit=20000, lookback="3h")
    return Counter(
        int(tag["value"])
        for trace in (answer or {"data": []})["data"]
        for span in trace["spans"]
        for tag in span["tags"]
        if tag["key"] == "sequence"
    )


def points(backends: Backends) -> Counter[int]:
    """How often Prometheus has each number."""
    return Counter(
        int(float(value)) for series in backends.query("noloss_sequence[3h]") for _, value in series["values"]
    )


def logs(backends: Backends) -> Counter[int]:
    """How often the gateways' files have each number."""
    script = (
        "import glob, json\n"
        "begin = '{\"resourceLogs\"'\n"
        "for path in glob.glob('/var/lib/rtinfra-data/otel-gateway-*/logs/*.jsonl*'):\n"
        # A gateway killed between a record and its line break leaves two records on one line.
        "    for part in open(path).read().split(begin)[1:]:\n"
        "        for resource in json.loads(begin + part)['resourceLogs']:\n"
        "            for scope in resource['scopeLogs']:\n"
        "                for record in scope['logRecords']:\n"
        "                    for attribute in record.get('attributes', []):\n"
        "                        if attribute['key'] == 'sequence':\n"
        "                            print(attribute['value']['intValue'])\n"
    )
    out = backends.machine.run("python3 -", input=script.encode(), timeout=120).stdout
    return Counter(int(line) for line in out.split())


def test_nothing_acknowledged_is_lost(
    settled: Project, backends: Backends, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.run(f"rm -f {RECORD}")
    start_sender(machine)
    time.sleep(20)

    backends.machine.run("systemctl stop jaeger prometheus", timeout=120)
    stopped = time.monotonic()
    time.sleep(20)
    # Restart=always brings it back; what it had taken over lies in its queue on the disk.
    backends.machine.run("systemctl kill --signal=KILL otel-gateway-1")
    time.sleep(20)
    machine.power_cut()
    machine.boot()
    start_sender(machine)
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - stopped)))
    backends.machine.run("systemctl start jaeger prometheus", timeout=300)
    outage = time.monotonic() - stopped
    time.sleep(20)
    machine.run("systemctl stop sender")
    expected = sent(machine)
    assert len(expected) > 500, "too little was sent to prove anything"

    returned = time.monotonic()
    found: dict[str, Counter[int]] = {}
    missing: dict[str, set[int]] = {}
    while time.monotonic() < returned + DRAIN_SECONDS:
        found = {"spans": spans(backends), "metric points": points(backends), "log lines": logs(backends)}
        missing = {name: expected - numbers.keys() for name, numbers in found.items()}
        if not any(missing.values()):
            break
        time.sleep(10)
    report = {
        "acknowledged": len(expected),
        "outage_seconds": round(outage),
        "seconds_until_complete": round(time.monotonic() - returned),
        "missing": {name: len(numbers) for name, numbers in missing.items()},
        "duplicates": {
            name: sum(count - 1 for number, count in numbers.items() if number in expected)
            for name, numbers in found.items()
        },
    }
    with capsys.disabled():
        print("\nno-loss:", json.dumps(report))
    assert not any(missing.values()), {name: sorted(numbers)[:20] for name, numbers in missing.items()}
