"""The reference workload as a process of its own, with what it talks to: systemd, collector, whoever asks it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.unit.workload_site import launcher

CORES = sorted(os.sched_getaffinity(0))[:2]
#: Longest wait for anything, in seconds; nothing comes near it unless it is broken.
PATIENCE_S = 15.0
WATCHDOG_US = 400_000


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition returns something true, and return that."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"waited {PATIENCE_S} s in vain: {what}")


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Workload:
    """One directory with configuration, state and log, and the process that runs on it."""

    def __init__(self, directory: Path, library: Path, name: str = "rt_process", collector: str = "") -> None:
        self.directory = directory
        self.name = name
        self.log_file = directory / f"{name}.log"
        self.checkpoints = directory / "checkpoints"
        self.checkpoints.mkdir()
        self.program = launcher(directory / name, library)
        # As in the first line of the launcher.
        self.interpreter = [sys.executable, "-ISB"]
        self.health_port, self.metrics_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify_address = ""
        self.write_config("cpu.json", self.cpu_config())
        self.write_config("numa.json", self.numa_config())
        self.write_config("failover.json", {"rt_process": self.failover_config()})
        self.write_config("tracing.json", self.tracing_config(collector))

    def write_config(self, name: str, document: object) -> None:
        (self.directory / name).write_text(json.dumps(document))

    @staticmethod
    def cpu_config() -> dict[str, Any]:
        common = {"cpu_cores": CORES, "isolation_mode": "HYBRID", "is_exclusive": True}
        return {
            "rt_process": {**common, "priority": 90, "policy": "SCHED_FIFO"},
            "non_rt_process": {**common, "priority": 0, "policy": "SCHED_OTHER"},
        }

    @staticmethod
    def numa_config() -> dict[str, Any]:
        section = {
            "numa_node": 0,
            "memory_policy": "LOCAL",
            "strict_binding": True,
            "migrate_pages": False,
            "cpu_cores_hint": CORES,
        }
        return {"rt_process": section, "non_rt_process": section}

    @staticmethod
    def failover_config() -> dict[str, Any]:
        return {
            "health_check_interval_ms": 50,
            "health_check_timeout_ms": 500,
            "failure_threshold": 3,
            "restart_delay_ms": 100,
            "max_restart_count": 5,
            "restart_window_sec": 60,
            "enable_state_recovery": True,
            "checkpoint_interval_sec": 60,
            "enable_leader_election": False,
        }

    @staticmethod
    def tracing_config(endpoint: str) -> dict[str, Any]:
        return {
            "service_name": "mxrc-rt",
            "sampling_rate": 0.0,
            "exporter": {"type": "otlp_http", "endpoint": endpoint or f"http://127.0.0.1:{free_ports(1)[0]}"},
            "propagator": "w3c",
            "instrumentation": {"eventbus": True, "task_executor": True, "rt_cycle": True},
        }

    def start(self, *options: str, abstract_socket: bool = False) -> None:
        """Start the process and wait for READY."""
        address = f"@mxrc-test-{secrets.token_hex(8)}" if abstract_socket else str(self.directory / "notify")
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "notify").unlink()
        self.notify.close()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(address.replace("@", "\0", 1))
        self.process = self.popen(*options, NOTIFY_SOCKET=address, WATCHDOG_USEC=str(WATCHDOG_US))
        self.wait_for_message("READY=1")

    def popen(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start the process as systemd does."""
        arguments = {
            "--config": "cpu.json",
            "--numa-config": "numa.json",
            "--failover-config": "failover.json",
            "--tracing-config": "tracing.json",
            "--checkpoint-dir": "checkpoints",
            "--log-file": self.log_file.name,
            "--health-port": str(self.health_port),
            "--metrics-port": str(self.metrics_port),
        }
        command = [*self.interpreter, str(self.program), *sum(arguments.items(), ()), *options]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MXRC_")}
        environment = {**inherited, "MXRC_CYCLE_US": "5000", **environment}
        with (self.directory / "stderr").open("ab") as stderr:
            return subprocess.Popen(command, cwd=self.directory, env=environment, stderr=stderr)

    def wait_for_message(self, expected: str) -> list[str]:
        """Return the assignments of the first notification that has the expected one."""
        assert self.process is not None
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up and self.process.poll() is None:
            self.notify.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                assignments = self.notify.recv(4096).decode().split("\n")
                if expected in assignments:
                    return assignments
        pytest.fail(f"no {expected}; the process said: {(self.directory / 'stderr').read_text()}")

    def pending_messages(self) -> list[str]:
        """Return all notifications that arrived meanwhile."""
        self.notify.settimeout(0.0)
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.notify.recv(4096).decode())
        return messages

    def request(self, method: str, path: str, body: object = None, port: int = 0, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.health_port, timeout=PATIENCE_S)
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.request("POST", path, body, **headers)

    def fault(self, kind: str, **details: int) -> None:
        assert self.post("/api/v1/fault", {"kind": kind, **details}).status == 202

    def metrics(self) -> dict[str, float]:
        return parse_metrics(self.request("GET", "/metrics", port=self.metrics_port).text)[0]

    def log(self, file: Path | None = None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (file or self.log_file).read_text().splitlines()]

    def messages(self) -> list[str]:
        return [record["message"] for record in self.log()]

    def finished(self, task_id: str) -> bool:
        """Whether the log has the end of a task."""
        return any(
            record.get("mxrc.task_id") == task_id and record["message"] == "Task execution completed"
            for record in self.log()
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.notify.close()


_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*\}) (\S+)')


def parse_metrics(page: str) -> tuple[dict[str, float], dict[str, str]]:
    """Parse Prometheus' text format strictly; return samples by name with labels, and types by family."""
    samples: dict[str, float] = {}
    types: dict[str, str] = {}
    helped: set[str] = set()
    family = ""
    for line in page.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in helped, f"{family} appears twice"
            helped.add(family)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == family
            assert kind in ("counter", "gauge", "histogram")
            types[name] = kind
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            suffixes = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
            assert match[1] in [family + suffix for suffix in suffixes], line
            assert match[1] + match[2] not in samples, f"{line} appears twice"
            samples[match[1] + match[2]] = float(match[3])
    return samples, types


class Collector:
    """Takes OTLP/HTTP traces, as the agent on the host does."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.resources: list[dict[str, Any]] = []
        self.spans: list[dict[str, Any]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                collector.paths.append(self.path)
                for resource in body["resourceSpans"]:
                    collector.resources.append(attributes(resource["resource"]))
                    for scope in resource["scopeSpans"]:
                        collector.spans.extend(scope["spans"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["traceId"] == trace_id]


def attributes(holder: dict[str, Any]) -> dict[str, Any]:
    """Return OTLP attributes as a plain dictionary."""
    return {item["key"]: next(iter(item["value"].values())) for item in holder["attributes"]}
