"""The record of a run: who did what to which hosts, when, and what became of it. No contents, no secrets."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rtinfra.local.files import replace_file
from rtinfra.operations.change import from_json
from rtinfra.paths import PROJECT
from rtinfra.plan.model import Json, Plan

RUNS: Final = PROJECT / "reports" / "runs"
FORMAT: Final = 1
_GIT_SECONDS = 10


@dataclass
class HostRun:
    """What was done to one host. `operations` are those that were carried out, in order."""

    operations: list[Json] = field(default_factory=list)
    failed: bool = False

    def count(self, status: str) -> int:
        """How many operations ended as `changed`, `unchanged` or `failed`."""
        return sum(operation["status"] == status for operation in self.operations)

    @property
    def seconds(self) -> float:
        """How long its operations took."""
        return sum(float(operation["seconds"]) for operation in self.operations)

    def to_json(self) -> Json:
        """Return it as the record has it."""
        counts = {status: self.count(status) for status in ("changed", "unchanged", "failed")}
        failed = self.failed or counts["failed"] > 0
        return {"ok": not failed, **counts, "seconds": round(self.seconds, 3), "operations": self.operations}


class RunRecord:
    """Record of one run, written when it begins and again when it ends: a run that was cut off leaves its trace."""

    def __init__(self, plan: Plan, failed: tuple[str, ...]) -> None:
        self._began = datetime.now(UTC)
        self._plan = plan
        self.hosts = {name: HostRun() for name in plan.hosts} | {name: HostRun(failed=True) for name in failed}
        self.path = _free(RUNS, self._began)
        self.write("running")

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return (datetime.now(UTC) - self._began).total_seconds()

    def finished(self, event: Mapping[str, Any]) -> None:
        """Take down what became of an operation."""
        changes = [from_json(change).to_record() for change in event["changes"]]
        self.hosts[event["host"]].operations.append(
            {
                "name": event["operation"],
                "status": event["status"],
                "seconds": event["seconds"],
                "changes": changes,
            }
        )

    def unchanged(self) -> None:
        """Take down that nothing had to be done."""
        for name, host in self._plan.hosts.items():
            self.hosts[name].operations = [
                {"name": operation, "status": "unchanged", "seconds": 0.0, "changes": []}
                for operation in host.all_operations
            ]

    def to_json(self, outcome: str) -> Json:
        """Return the record."""
        return {
            "format": FORMAT,
            "outcome": outcome,
            "began": f"{self._began:%Y-%m-%dT%H:%M:%SZ}",
            "seconds": round(self.seconds, 3),
            "who": f"{getpass.getuser()}@{socket.gethostname()}",
            "commit": commit(),
            "inventory": self._plan.inventory,
            "hosts": {name: host.to_json() for name, host in self.hosts.items()},
        }

    def write(self, outcome: str) -> Json:
        """Write the record; `outcome` is running, ok, failed or interrupted. Returns what was written."""
        data = self.to_json(outcome)
        replace_file(self.path, json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n", 0o600)
        return data


def _free(directory: Path, moment: datetime) -> Path:
    """Return a name nobody else has, also for two runs in one second."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(100):
        path = directory / f"{moment:%Y%m%dT%H%M%SZ}{f'-{number}' if number else ''}.json"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            continue
        return path
    raise FileExistsError(directory)


def commit() -> str | None:
    """Return the commit of the project, with `+changes` where files differ from it; None without git."""
    found = []
    for words in (("rev-parse", "HEAD"), ("status", "--porcelain")):
        try:
            ended = subprocess.run(
                ["git", "-C", str(PROJECT), *words], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        found.append(ended.stdout.strip())
    return found[0] + ("+changes" if found[1] else "")
