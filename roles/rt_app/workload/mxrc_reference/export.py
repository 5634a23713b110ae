"""Delivery of spans to a collector: OTLP over HTTP, JSON."""

from __future__ import annotations

import http.client
import json
import threading
from collections import deque
from typing import Final

from .log import EcsLog
from .spans import Attributes, Span, otlp_attributes


class SpanExporter:
    """Sends ended spans to a collector, OTLP/HTTP with JSON, in batches from a bounded queue.

    An absent collector costs nothing but a line in the log: the queue fills, new spans are counted as
    dropped, and the same batch is tried again with growing pauses.
    """

    QUEUE_LIMIT: Final = 2048
    BATCH_LIMIT: Final = 256
    LINGER_S: Final = 0.5
    TIMEOUT_S: Final = 2.0
    FIRST_PAUSE_S: Final = 1.0
    LONGEST_PAUSE_S: Final = 30.0
    #: Answers after which the same request may succeed later (OTLP specification, retryable responses).
    RETRYABLE: Final = (429, 502, 503, 504)

    def __init__(self, endpoint: str, resource: Attributes, log: EcsLog) -> None:
        self.made = 0
        self.exported = 0
        self.dropped = 0
        self._log = log
        self._resource = otlp_attributes(resource)
        address, _, path = endpoint.removeprefix("http://").partition("/")
        self._address = address
        self._path = "/" + path.rstrip("/") if path else ""
        if not self._path.endswith("/v1/traces"):
            self._path += "/v1/traces"
        self._queue: deque[Span] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._reachable = True

    def add(self, span: Span) -> None:
        """Queue an ended span; called from any thread but the loop."""
        with self._changed:
            self.made += 1
            if not self._address:
                return
            if len(self._queue) >= self.QUEUE_LIMIT:
                self.dropped += 1
                return
            self._queue.append(span)
            self._changed.notify()

    def queued(self) -> int:
        """Return how many spans wait."""
        return len(self._queue)

    def stop(self) -> None:
        """Let the thread end after one last attempt."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Export until stopped; the body of the exporter thread."""
        pause_s = self.FIRST_PAUSE_S
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                # A moment for the rest of a trace to end, so that it travels together.
                self._changed.wait_for(lambda: self._stopping, self.LINGER_S)
            if self._export_batch():
                pause_s = self.FIRST_PAUSE_S
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause_s)
            pause_s = min(2 * pause_s, self.LONGEST_PAUSE_S)
        self._export_batch()

    def _export_batch(self) -> bool:
        """Send the oldest spans; return False when they should be sent again later."""
        # Only this thread takes spans away, so the oldest ones stay in place until they are delivered.
        with self._changed:
            batch = [self._queue[index] for index in range(min(len(self._queue), self.BATCH_LIMIT))]
        if not batch:
            return True
        try:
            status = self._post([span.to_otlp() for span in batch])
        except (OSError, http.client.HTTPException) as error:
            self._note_reachable(False, f"{type(error).__name__}: {error}")
            return False
        if status in self.RETRYABLE:
            self._note_reachable(False, f"HTTP status {status}")
            return False
        with self._changed:
            for _ in batch:
                self._queue.popleft()
        if status < 300:
            self.exported += len(batch)
        else:
            self.dropped += len(batch)
        self._note_reachable(status < 300, f"HTTP status {status}")
        return True

    def _post(self, spans: list[dict[str, object]]) -> int:
        scope_spans = [{"scope": {"name": "mxrc.reference"}, "spans": spans}]
        body = {"resourceSpans": [{"resource": {"attributes": self._resource}, "scopeSpans": scope_spans}]}
        connection = http.client.HTTPConnection(self._address, timeout=self.TIMEOUT_S)
        try:
            connection.request("POST", self._path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _note_reachable(self, reachable: bool, reason: str) -> None:
        if reachable and not self._reachable:
            self._log.info(f"spans are accepted again by {self._address}")
        if not reachable and self._reachable:
            self._log.warn(f"spans cannot be sent to {self._address}: {reason}; trying again silently")
        self._reachable = reachable
