"""Faults on demand: how the loop is made to misbehave, for controls that want to see what happens then."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Final

from .log import EcsLog
from .settings import is_int
from .system import NS_PER_MS, NS_PER_S
from .web import BadRequestError, Request, Response, json_response, parse_json_object, refuse_unknown_keys


class Faults:
    """Makes the loop misbehave on demand. All faults wait without using the processor."""

    KINDS: Final = ("hang", "crash", "deadline_miss", "slow")

    def __init__(self) -> None:
        #: The fault in force; the loop looks at this once per cycle.
        self.kind: str | None = None
        self._until_ns = 0
        self._released = threading.Event()

    def start(self, kind: str, duration_ms: int | None) -> None:
        """Begin a fault for so many milliseconds; None is for ever."""
        self._released.clear()
        self._until_ns = sys.maxsize if duration_ms is None else time.monotonic_ns() + duration_ms * NS_PER_MS
        self.kind = kind

    def release(self) -> None:
        """End a fault, so that the process can stop."""
        self.kind = None
        self._released.set()

    def apply(self, period_ns: int) -> None:
        """Misbehave for one cycle; called by the loop."""
        left_ns = self._until_ns - time.monotonic_ns()
        if left_ns <= 0:
            self.kind = None
        elif self.kind == "hang":
            self._released.wait(None if self._until_ns == sys.maxsize else left_ns / NS_PER_S)
        elif self.kind == "deadline_miss":
            time.sleep(2 * period_ns / NS_PER_S)
        elif self.kind == "slow":
            # Longer cycles that still meet their deadline on a host that is fast enough.
            time.sleep(0.6 * period_ns / NS_PER_S)


class FaultRoute:
    """POST /api/v1/fault: orders a fault, where the options allow it."""

    LONGEST_FAULT_MS: Final = 600_000

    def __init__(self, faults: Faults, is_enabled: bool, log: EcsLog) -> None:
        self._faults = faults
        self._is_enabled = is_enabled
        self._log = log

    def post(self, request: Request) -> Response:
        """Begin a fault or say why not."""
        if not self._is_enabled:
            return json_response(403, {"error": "Forbidden", "reason": "needs --enable-faults"})
        try:
            kind, duration_ms = self._read(request.body)
        except BadRequestError as error:
            return json_response(400, {"error": "Bad Request", "reason": str(error)})
        limit = "without limit" if duration_ms is None else f"for {duration_ms} ms"
        self._log.warn(f"fault on demand: {kind} {limit}")
        response = json_response(202, {"status": "accepted", "kind": kind, "duration_ms": duration_ms})
        if kind == "crash":
            return response._replace(afterwards=self._crash)
        self._faults.start(kind, duration_ms)
        return response

    def _read(self, body: bytes) -> tuple[str, int | None]:
        document = parse_json_object(body)
        refuse_unknown_keys(document, ("kind", "duration_ms"))
        kind, duration_ms = document.get("kind"), document.get("duration_ms")
        if not isinstance(kind, str) or kind not in Faults.KINDS:
            raise BadRequestError(f"kind must be one of {', '.join(Faults.KINDS)}")
        if duration_ms is None:
            return kind, None
        if not is_int(duration_ms) or not 1 <= duration_ms <= self.LONGEST_FAULT_MS:
            raise BadRequestError(f"duration_ms must be a whole number, 1 to {self.LONGEST_FAULT_MS}")
        return kind, duration_ms

    def _crash(self) -> None:
        self._log.flush(0.5)
        os.abort()
