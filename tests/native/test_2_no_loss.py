"""L-7: nothing that an agent acknowledged or read from a log file is lost, whatever program is killed on the way.

Numbered spans, metric points and log lines are sent to the agent of a host, and numbered lines written to its
application's log. Meanwhile Jaeger and Prometheus are killed and stay away, then each gateway and the agent are killed.
Afterwards every number that was acknowledged or written must be found. With a power cut of the sending host and an
outage of minutes: `tests/e2e/test_6_no_loss.py`, in `make test-all`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e import sender
from tests.native.fleet import BACKENDS, agent, containers, in_room
from tests.native.room import Network, Program, eventually

OUTAGE_SECONDS = 12.0
DRAIN_SECONDS = 60.0
LINES_PER_SECOND = 1000
AGENT_KILLS = 12
# What every record in a gateway's file begins with; one that was killed may have left two records on one line.
BEGIN = '{"resourceLogs"'


@dataclass
class Room:
    """All programs, started."""

    network: Network
    agent: Program
    gateways: list[Program]
    backends: list[Program]

    def spans(self) -> Counter[int]:
        """How often Jaeger has each number."""
        query = {"service": sender.SERVICE, "limit": 20000, "lookback": "1h"}
        answer = self.network.get(f"http://{BACKENDS}:16686/api/traces", **query) or {"data": []}
        tags = (tag for trace in answer["data"] for span in trace["spans"] for tag in span["tags"])
        return Counter(int(tag["value"]) for tag in tags if tag["key"] == "sequence")

    def points(self) -> Counter[int]:
        """How often Prometheus has each number."""
        url = f"http://{BACKENDS}:9090/api/v1/query"
        answer = self.network.get(url, query="noloss_sequence[1h]") or {"data": {"result": []}}
        return Counter(int(float(value)) for series in answer["data"]["result"] for _, value in series["values"])

    def logs(self, name: str) -> Counter[int]:
        """How often the gateways' files have each number: `sequence` of what was sent, `line` of what was read."""
        found: Counter[int] = Counter()
        for gateway in self.gateways:
            for path in (gateway.root / "data" / "logs").glob("*.jsonl*"):
                for record in path.read_text().split(BEGIN)[1:]:
                    for resource in json.loads(BEGIN + record)["resourceLogs"]:
                        for scope in resource["scopeLogs"]:
                            for entry in scope["logRecords"]:
                                values = (one["value"] for one in entry.get("attributes", []) if one["key"] == name)
                                found.update(int(value["intValue"]) for value in values)
        return found


@pytest.fixture
def room(network: Network, tmp_path: Path) -> Iterator[Room]:
    gateways = [in_room(container, network, tmp_path) for container in containers("gateways").values()]
    backends = [in_room(containers(name)[name], network, tmp_path) for name in ("jaeger", "prometheus")]
    sending = agent(network, tmp_path)
    everything = [*backends, *gateways, sending]
    try:
        for program in everything:
            program.start()
        yield Room(network, sending, gateways, backends)
    finally:
        for program in everything:
            program.kill()


@contextmanager
def sending(room: Room, record: Path) -> Iterator[None]:
    """Send numbers to the agent meanwhile."""
    command = room.network.inside(sys.executable, sender.__file__, record, "1")
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def writing(room: Room) -> Iterator[list[int]]:
    """Write numbered lines to the application's log meanwhile; what is yielded has the number of the last."""
    path = room.agent.root / "var/log/mxrc/rt_process.log"
    path.parent.mkdir(parents=True)
    last, stop = [0], threading.Event()

    def write() -> None:
        with path.open("a") as log:
            while not stop.wait(1 / LINES_PER_SECOND):
                now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
                fields = {"@timestamp": now, "log.level": "info", "message": "numbered", "line": last[0] + 1}
                log.write(json.dumps(fields) + "\n")
                log.flush()
                last[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield last
    finally:
        stop.set()
        thread.join()


def test_nothing_is_lost(room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, chance = tmp_path / "sent", random.Random(1)
    with sending(room, record), writing(room) as last:
        eventually("the first numbers", 10, lambda: room.spans() and room.points() and room.logs("sequence"))
        for backend in room.backends:
            backend.kill()
        away = time.monotonic()
        for gateway in room.gateways:
            time.sleep(0.5)
            gateway.kill()
            gateway.start()
        # Again and again: what the agent holds in memory for a moment is lost in some kills only.
        kills = 0
        while kills < AGENT_KILLS or time.monotonic() - away < OUTAGE_SECONDS:
            time.sleep(chance.uniform(0.2, 0.8))
            room.agent.kill()
            room.agent.start()
            kills += 1
        for backend in room.backends:
            backend.start()
        outage = time.monotonic() - away
        time.sleep(2)
    acknowledged = {int(first) + offset for first in record.read_text().split() for offset in range(sender.PER_BATCH)}
    lines = set(range(1, last[0] + 1))
    assert len(acknowledged) > 50 and len(lines) > 1000, "too little was sent to prove anything"

    def missing() -> dict[str, list[int]]:
        found = {
            "spans": acknowledged - room.spans().keys(),
            "metric points": acknowledged - room.points().keys(),
            "log records": acknowledged - room.logs("sequence").keys(),
            "lines of the log file": lines - room.logs("line").keys(),
        }
        return {name: sorted(numbers) for name, numbers in found.items() if numbers}

    returned = time.monotonic()
    while left := missing():
        assert time.monotonic() < returned + DRAIN_SECONDS, {name: numbers[:20] for name, numbers in left.items()}
        time.sleep(0.5)
    report = {
        "acknowledged": len(acknowledged),
        "lines": len(lines),
        "kills": kills,
        "outage_seconds": round(outage),
        "seconds_until_complete": round(time.monotonic() - returned),
        "duplicates": {
            "spans": room.spans().total() - len(room.spans()),
            "lines": room.logs("line").total() - len(room.logs("line")),
        },
    }
    with capsys.disabled():
        print("\nno-loss:", json.dumps(report))
