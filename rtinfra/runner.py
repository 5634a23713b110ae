"""Run `pyinfra INVENTORY deploy.py` as an operator would, with progress, and read its result."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtinfra.paths import PROJECT

#: Say that work goes on when pyinfra has been silent for this many seconds.
HEARTBEAT_SECONDS = 20.0
# How pyinfra announces an operation.
_STARTING = "--> Starting operation: "
# What long operations take on a bare host; the longer times are those of an emulated one.
_USUAL = {
    "packages": "1 to 6 minutes",
    "rt_tuning | files": "half a minute, in which latency is measured once",
    "rt_kernel | boot loader": "10 to 30 seconds",
    "rt_kernel | reboot when needed": "1 to 2 minutes",
}


@dataclass(frozen=True)
class DeployResult:
    """What a run of pyinfra did. `changed`, `unchanged` and `failed` count operations over all hosts."""

    exit_code: int
    changed: int
    unchanged: int
    failed: int
    changed_operations: tuple[str, ...]
    seconds: float
    log: str

    @property
    def ok(self) -> bool:
        """Whether every operation on every host succeeded."""
        return self.exit_code == 0 and self.failed == 0


def deploy(
    inventory: str = "inventory",
    options: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    project: Path = PROJECT,
) -> DeployResult:
    """Run pyinfra without questions (`-y`).

    `say` gets every line of its log as it comes, and a sign of life when there is none for a while. Ctrl-C
    reaches pyinfra too, which ends after the current command; the next run completes what was left.
    """
    command = [
        str(Path(sys.executable).with_name("pyinfra")),
        *("--json", "-y", *options, inventory, "deploy.py"),
    ]
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    output: list[str] = []
    readers = [
        threading.Thread(target=_forward, args=(process.stderr, lines.put), daemon=True),
        threading.Thread(target=lambda: output.append(process.stdout.read() if process.stdout else "")),
    ]
    for reader in readers:
        reader.start()
    log: list[str] = []
    try:
        _follow(lines, log, say)
        exit_code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    readers[1].join()
    return _result(exit_code, output[0], "\n".join(log), time.monotonic() - start)


def environment(project: Path) -> dict[str, str]:
    """Return the environment in which pyinfra takes its roles from `project`, also when that is a copy."""
    return {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}


def _forward(stream: object, put: Callable[[str | None], None]) -> None:
    for line in stream or ():  # type: ignore[attr-defined]
        put(line.rstrip("\n"))
    put(None)


def _follow(lines: queue.Queue[str | None], log: list[str], say: Callable[[str], None] | None) -> None:
    """Collect lines until the stream ends, with a sign of life during long silence."""
    operation, since = "connecting", time.monotonic()
    while True:
        try:
            line = lines.get(timeout=HEARTBEAT_SECONDS)
        except queue.Empty:
            if say:
                usual = f", usually {_USUAL[operation]}" if operation in _USUAL else ""
                say(f"    ... still working on {operation}: {time.monotonic() - since:.0f} s{usual}")
            continue
        if line is None:
            return
        log.append(line)
        if line.startswith(_STARTING):
            operation, since = line.removeprefix(_STARTING).strip(), time.monotonic()
        if say and line.strip():
            say(line)


def _result(exit_code: int, output: str, log: str, seconds: float) -> DeployResult:
    try:
        results = json.loads(output)["results"]
    except (ValueError, KeyError):
        # pyinfra prints no JSON when it ends early or when the last host fails.
        return DeployResult(exit_code or 1, 0, 0, 1, (), seconds, log)
    totals = results["totals"]
    return DeployResult(
        exit_code=exit_code,
        changed=totals["success"],
        unchanged=totals["no_change"],
        failed=totals["error"],
        changed_operations=tuple(operation["name"] for operation in results["operations"] if operation["success"]),
        seconds=seconds,
        log=log,
    )
