"""The second machine of the telemetry scenarios, and short ways to ask its programs."""

from __future__ import annotations

import json
import shlex
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rtinfra.lab import Machine

BACKENDS = "obs"
GROUPS = ("gateways", "jaeger", "prometheus", "alertmanager", "lab_backends")
AGENT_GROUPS = ("rt_hosts", "lab", "agents")
IMAGES = ("otelcol", "jaeger", "prometheus", "alertmanager")
CONTAINERS = ("otel-gateway-1", "otel-gateway-2", "jaeger", "prometheus", "alertmanager")


@dataclass(frozen=True)
class Backends:
    """The machine with the gateways and backends. Its programs are asked from inside: nothing needs to be open."""

    machine: Machine

    @property
    def address(self) -> str:
        """Its address on the lab's network."""
        return self.machine.lan_addresses[0]

    def get(self, port: int, path: str, **query: object) -> Any:
        """Return the JSON behind a URL of a program on this machine."""
        text = urllib.parse.urlencode(query)
        url = f"http://{self.address}:{port}{path}{'?' if text else ''}{text}"
        script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())"
        done = self.machine.run(f"python3 -c {shlex.quote(script)} {shlex.quote(url)}", timeout=120, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def started(self) -> dict[str, dict[str, str]]:
        """When each container was started, and how often, by unit."""
        units = " ".join(f"{name}.service" for name in CONTAINERS)
        shown = self.machine.run(
            f"systemctl show --property=Id,ExecMainStartTimestampMonotonic,NRestarts {units}"
        ).stdout
        blocks = (dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n"))
        return {block["Id"]: block for block in blocks}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        answer = self.get(9090, "/api/v1/query", query=expression)
        return list(answer["data"]["result"]) if answer else []

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that the alert log has, oldest first."""
        lines = self.machine.run("cat /var/lib/rtinfra-alert-log/alerts.jsonl", check=False).stdout
        return [json.loads(line) for line in lines.splitlines()]


def eventually(what: str, seconds: float, look: Callable[[], Any]) -> Any:
    """Return the first truthy thing that `look` sees within `seconds`; fails naming `what` otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(3)
