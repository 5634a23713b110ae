"""Spans: W3C trace context, OpenTelemetry's spans and who decides which of them are kept."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple


class SpanContext(NamedTuple):
    """What W3C trace context carries from one service to the next."""

    trace_id: str
    span_id: str
    sampled: bool
    trace_state: str = ""

    def traceparent(self) -> str:
        """Return the value of the traceparent header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def parse_traceparent(header: str | None, trace_state: str | None = None) -> SpanContext | None:
    """Return the caller's span context, or None when there is none or it is malformed (W3C: ignore it)."""
    match = _TRACEPARENT.fullmatch((header or "").strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return SpanContext(trace_id, span_id, bool(int(flags, 16) & 1), trace_state or "")


#: Attributes of a span or of the process that made it.
Attributes = Mapping[str, str | int | bool]


class Span:
    """A timed piece of work in a trace; a context manager that ends it and notes an error."""

    INTERNAL: Final = 1
    SERVER: Final = 2
    PRODUCER: Final = 4

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent_span_id: str,
        kind: int,
        attributes: Attributes,
        on_end: Callable[[Span], None] | None,
    ) -> None:
        self.name = name
        self.context = context
        self.parent_span_id = parent_span_id
        self.kind = kind
        self.attributes = dict(attributes)
        self.start_ns = time.time_ns()
        self.end_ns = 0
        self.error = ""
        self._on_end = on_end

    def __enter__(self) -> Span:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self.error = str(error)
        self.end(time.time_ns())

    def end(self, end_ns: int) -> None:
        """End the span at a point in time, in ns since the epoch."""
        self.end_ns = end_ns
        if self._on_end is not None:
            self._on_end(self)

    def to_otlp(self) -> dict[str, object]:
        """Return the span in OTLP's JSON encoding: ids in hex, 64-bit numbers as text."""
        span: dict[str, object] = {
            "traceId": self.context.trace_id,
            "spanId": self.context.span_id,
            "parentSpanId": self.parent_span_id,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.start_ns),
            "endTimeUnixNano": str(self.end_ns),
            "attributes": otlp_attributes(
                {**self.attributes, "trace.id": self.context.trace_id, "span.id": self.context.span_id}
            ),
            "status": {"code": 2, "message": self.error} if self.error else {},
        }
        if self.context.trace_state:
            span["traceState"] = self.context.trace_state
        return span


def otlp_attributes(attributes: Attributes) -> list[dict[str, object]]:
    """Return attributes in OTLP's JSON encoding."""
    encoded: list[dict[str, object]] = []
    for key, value in attributes.items():
        if isinstance(value, bool):
            encoded.append({"key": key, "value": {"boolValue": value}})
        elif isinstance(value, int):
            encoded.append({"key": key, "value": {"intValue": str(value)}})
        else:
            encoded.append({"key": key, "value": {"stringValue": value}})
    return encoded


class Tracer:
    """Makes spans. Sampling is parent based: the caller's decision counts, else a share of the trace ids."""

    def __init__(self, sampling_rate: float, on_end: Callable[[Span], None]) -> None:
        self._threshold = int(sampling_rate * (1 << 63))
        self._on_end = on_end

    def span(
        self,
        name: str,
        parent: SpanContext | None,
        attributes: Attributes,
        kind: int = Span.INTERNAL,
        enabled: bool = True,
    ) -> Span:
        """Begin a span. One that is not enabled leaves no trace: its children get its parent as parent."""
        if parent is None:
            trace_id = os.urandom(16).hex()
            sampled = enabled and int(trace_id[16:], 16) >> 1 < self._threshold
            context = SpanContext(trace_id, os.urandom(8).hex(), sampled)
            parent_span_id = ""
        elif enabled:
            context = parent._replace(span_id=os.urandom(8).hex())
            parent_span_id = parent.span_id
        else:
            context = parent
            parent_span_id = ""
        on_end = self._on_end if enabled and context.sampled else None
        return Span(name, context, parent_span_id, kind, attributes, on_end)
