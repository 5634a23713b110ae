"""The worker process as seen by a command: started, listened to, told to go on, ended."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from rtinfra.local.errors import LocalError
from rtinfra.passwords import ask_on_terminal
from rtinfra.paths import PROJECT
from rtinfra.plan.model import HostPlan, Plan, PlanError

#: Somebody who waits is told that work goes on when nothing was heard for so many seconds.
HEARTBEAT_SECONDS: Final = 20.0
_END_SECONDS: Final = 10.0
_WORKER: Final = (sys.executable, "-m", "rtinfra.plan.worker")

Event = dict[str, Any]


class WrongInput(LocalError):
    """There is nothing to work on: settings, inventory or names of hosts are wrong."""


class WorkerEnded(LocalError):
    """The process that works on the hosts ended by itself, at whatever point it was."""


@dataclass(frozen=True)
class Prepared:
    """A plan, the hosts that could not be asked (`failed`), and what was said of them (`log`)."""

    plan: Plan
    failed: tuple[str, ...]
    log: tuple[str, ...]


class WorkerProcess:
    """One run of the worker, for use in a `with` statement: it ends the process whatever happens.

    Args:
        inventory: as given on the command line.
        hosts: names of hosts; none for all.
        applies: whether the plan may be carried out, by `go`.
    """

    def __init__(self, inventory: Path, hosts: Sequence[str] = (), applies: bool = False) -> None:
        self._inventory = str(inventory)
        self._request = {"inventory": self._inventory, "hosts": list(hosts), "apply": applies}
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log: list[str] = []

    def __enter__(self) -> WorkerProcess:
        # On disk, so that the process never waits for somebody to read it.
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            _WORKER,
            cwd=PROJECT,
            env={**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for this process; it ends the other one.
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._send(json.dumps(self._request))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if kind is not None:
            self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def begin(self) -> None:
        """Wait until the settings are read, and ask for the password that sudo wants on hosts that say so.

        Raises:
            WrongInput: there is nothing to work on.
            NobodyToAsk: a password is to be typed, and there is no terminal.
            WorkerEnded: the process ended by itself.
        """
        for event in self.events():
            if event is not None and event["event"] == "ready":
                if event["question"] is not None:
                    self._send(json.dumps(ask_on_terminal(event["question"])))
                return
        raise self._crashed()

    def prepare(self) -> Prepared:
        """Wait for the plan.

        Raises:
            WrongInput: there is nothing to work on.
            PlanError: a host is refused, or none can be reached.
            WorkerEnded: the process ended by itself.
        """
        for event in self.events():
            if event is not None and event["event"] == "planned":
                hosts = {name: HostPlan.from_json(host) for name, host in event["hosts"].items()}
                made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
                return Prepared(Plan(made, self._inventory, hosts), tuple(event["failed"]), tuple(self._log))
        raise self._crashed()

    def go(self) -> None:
        """Let the worker carry out what it has prepared."""
        self._send("go")

    def events(self) -> Iterator[Event | None]:
        """Yield what happens, until the worker says that it is done; None when nothing was heard for a while.

        Raises:
            WrongInput, PlanError, WorkerEnded: as for `prepare`.
        """
        while True:
            try:
                line = self._lines.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                yield None
                continue
            if line is None:
                raise self._crashed()
            event: Event = json.loads(line)
            match event["event"]:
                case "wrong":
                    raise WrongInput(event["text"], "correct that; `rtinfra check` looks at all settings")
                case "refused":
                    reasons = "\n".join([*self._log[-20:], event["detail"]]).strip()
                    raise PlanError(
                        event["text"], "correct what stands above, then run the same command again", reasons
                    )
                case "log" if event["level"] in ("warning", "error"):
                    self._log.append(event["text"].strip())
            yield event
            if event["event"] == "done":
                return

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def _send(self, line: str) -> None:
        if self._process.stdin is None:
            raise TypeError("the worker has no standard input")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _crashed(self) -> WorkerEnded:
        self._errors.seek(0)
        detail = self._errors.read().decode(errors="replace")[-4000:]
        return WorkerEnded(
            "the process that works on the hosts ended by itself",
            "run the same command again: it does what was left undone. If it ends again, report what stands above",
            detail,
        )
