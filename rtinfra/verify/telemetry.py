"""What controls about telemetry have in common: metrics of collectors, and following a record to its place."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from roles.facets import TENANT_HEADER, Signal, Span
from roles.gateways.model import FILE
from roles.shape import FleetView
from rtinfra.config.types import Duration, SettingError
from rtinfra.facts.http import HttpAnswer
from rtinfra.stack_programs import Program
from rtinfra.verify import expect
from rtinfra.verify.asking import Asker, basic
from rtinfra.verify.look.answers import Sample
from rtinfra.verify.look.units import Units

#: How long an error log may take to be found.
LOG_SECONDS: Final = 30
#: Names of the spans from a task to the event bus, each the parent of the next (OB-4).
CHAIN: Final = ("task.execute", "sequence.run", "action.execute", "eventbus.publish")
#: Under this name the spans and logs of the verification are kept.
SERVICE: Final = "rtinfra-verify"
# A restart that is longer ago than this is history.
_SETTLED_SECONDS: Final = 600
_ERROR_SEVERITY: Final = 17
_LOSSES: Final = re.compile(r"otelcol_exporter_(?:enqueue|send)_failed_\w+")
_TRACE_ID: Final = re.compile(r'"(?:traceId|trace_id|trace\.id|traceid|id)"\s*:\s*"([0-9a-f]{32})"')


@dataclass(frozen=True)
class Queue:
    """The queue of one exporter of a collector."""

    exporter: str
    size: float
    capacity: float

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return self.size / self.capacity if self.capacity else 1.0

    def __str__(self) -> str:
        return f"{self.exporter} ({self.share:.0%} full)"


def queues(found: Iterable[Sample]) -> list[Queue]:
    """Return the queues that a collector tells of in its metrics: one for each exporter and kind of data."""
    sizes: dict[str, float] = {}
    capacities: dict[str, float] = {}
    for sample in found:
        name = "/".join(filter(None, (sample.labels.get("exporter"), sample.labels.get("data_type"))))
        if sample.name == "otelcol_exporter_queue_size":
            sizes[name] = sample.value
        elif sample.name == "otelcol_exporter_queue_capacity":
            capacities[name] = sample.value
    return [Queue(name, sizes.get(name, 0.0), capacity) for name, capacity in sorted(capacities.items())]


def losses(found: Iterable[Sample]) -> list[str]:
    """Return the exporters that could not queue or gave up on records, with how many."""
    return [
        f"{sample.labels.get('exporter', '?')}: {sample.name} {sample.value:.0f}"
        for sample in found
        if _LOSSES.fullmatch(sample.name) and sample.value > 0
    ]


def restarting(units: Units, uptime: float, programs: Sequence[Program]) -> Iterator[str]:
    """Yield programs that the service manager restarted not long ago."""
    for program in programs:
        restarts = int(units.of(program.unit).get("NRestarts") or 0)
        seconds = units.seconds_active(program.unit, uptime)
        if restarts and seconds < _SETTLED_SECONDS:
            yield f"{program.name} ({restarts} restarts, the last {seconds:.0f} s ago)"


def settled(
    first: HttpAnswer, age: float, asker: Asker, holds: Callable[[HttpAnswer], bool], seconds: float
) -> HttpAnswer:
    """Return what a program says, `first` or later: asked again while it is younger than `seconds` and does not hold.

    Right after a deploy a program has measured and heard nothing yet, which is no fault.
    """
    if age >= seconds or holds(first):
        return first
    return asker.until(lambda: asker.get(first.url), holds, seconds - age) or asker.get(first.url)


def duration(value: object) -> Duration | None:
    """Return a time span as the backends print them (`168h0m0s`, `1w`); None when it is none."""
    try:
        return Duration.parse(str(value))
    except SettingError:
        return None


def same_duration(actual: object, expected: Duration, what: str) -> None:
    """Expect a time span as a backend prints it to be as long as a setting."""
    expect.that(duration(actual) == expected, actual, expected, what)


def delays(written: Sequence[tuple[float, int]], found: Sequence[tuple[float, int]]) -> tuple[float, ...]:
    """Return for each record how long it took from being written to being counted.

    Both are looks at a growing number: (time, how many). The n-th record counted is taken for the n-th written; any
    other order gives the same sum, and a smaller largest delay only when late records overtake later ones.
    """
    result = []
    written_at = _times(written)
    found_at = _times(found)
    for wrote, saw in zip(written_at, found_at, strict=False):
        result.append(saw - wrote)
    return tuple(result)


def _times(looks: Sequence[tuple[float, int]]) -> Iterator[float]:
    """Yield for the first, second, ... record the time of the first look that counted it."""
    known = 0
    for at, count in sorted(looks):
        while known < count:
            known += 1
            yield at


# --- a record's way


def otlp(trace: str, span: str, now: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a span, and an error log line that belongs to it, as OTLP in JSON; `now` in nanoseconds."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": SERVICE}}]}
    spans = {
        "traceId": trace,
        "spanId": span,
        "name": "verification",
        "kind": 1,
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 1_000_000),
    }
    record = {
        "timeUnixNano": str(now),
        "severityNumber": _ERROR_SEVERITY,
        "severityText": "ERROR",
        "body": {"stringValue": f"rtinfra verify: an error on purpose, trace {trace}"},
        "traceId": trace,
        "spanId": span,
    }
    return (
        {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [spans]}]}]},
        {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]},
    )


@dataclass(frozen=True)
class Trace:
    """A trace as the store answered it; `spans` is None where they are not read."""

    spans: tuple[Span, ...] | None

    @property
    def tenants(self) -> frozenset[str]:
        """Whose the trace says it is."""
        return frozenset().union(*(span.tenants for span in self.spans or ()))


def trace_seconds(view: FleetView) -> int:
    """Return how long a trace may take to be found where the gateways send traces (OB-4)."""
    store = view.chosen(Signal.TRACES)
    return store.trace_seconds if store else 0


def find_trace(
    asker_on: Callable[[str], Asker], view: FleetView, trace: str, seconds: float, required: Sequence[str] = ()
) -> Trace | None:
    """Look for a trace where the gateways send traces; None when it is not there within the time.

    The store is asked on its own host: its packet filter lets no agent ask. With `required` it is there once these
    spans, each the parent of the next, are.
    """
    store = view.chosen(Signal.TRACES)
    if store is None or store.trace_url is None or store.spans is None:
        expect.not_applicable(f"traces in {view.telemetry.traces} are not looked for here")
    asker, url, read = asker_on(store.host), store.trace_url(trace), store.spans
    headers = {TENANT_HEADER: view.telemetry.tenant} if store.by_tenant else {}

    def holds(answer: HttpAnswer) -> bool:
        document = answer.json
        if answer.status != 200 or not isinstance(document, dict):
            return False
        spans = read(document)
        return spans is None or (bool(spans) and (not required or chain(spans) == tuple(required)))

    answer = asker.until(lambda: asker.get(url, headers), holds, seconds)
    return Trace(read(answer.json or {})) if answer else None


def chain(spans: Sequence[Span]) -> tuple[str, ...]:
    """Return the longest beginning of CHAIN that spans form, each the parent of the next."""
    current = {span.id for span in spans if span.name == CHAIN[0]}
    found: list[str] = []
    for name in CHAIN:
        if found:
            current = {span.id for span in spans if span.name == name and span.parents & current}
        if not current:
            break
        found.append(name)
    return tuple(found)


def find_log(
    asker_on: Callable[[str], Asker],
    view: FleetView,
    trace: str,
    directories: Mapping[str, Collection[str]],
) -> str | None:
    """Look for the error log of a trace where the gateways keep logs; None when it is not there within the time.

    `directories` are the gateways' data directories by host, for logs that are kept as files.
    """
    if view.telemetry.logs == FILE:
        looks = [_in_files(asker_on(host), trace, own) for host, own in directories.items() if own]
    else:
        looks = [_in_store(asker_on, view, trace)]
    deadline = time.monotonic() + LOG_SECONDS
    while True:
        asked = time.monotonic()
        for look in looks:
            if found := look():
                return found
        if asked > deadline:
            return None
        time.sleep(1)


def _in_files(asker: Asker, trace: str, directories: Collection[str]) -> Callable[[], str]:
    paths = " ".join(shlex.quote(path) for path in directories)
    return lambda: asker.run(f"grep -rhF -m 1 -- {shlex.quote(trace)} {paths} 2>/dev/null | grep -aF resourceLogs")


def _in_store(asker_on: Callable[[str], Asker], view: FleetView, trace: str) -> Callable[[], str]:
    store = view.chosen(Signal.LOGS)
    if store is None or store.log_request is None or store.log_records is None:
        expect.not_applicable(f"no host of the inventory runs {view.telemetry.logs}")
    asker, request, records = asker_on(store.host), store.log_request(trace), store.log_records
    login = basic(*store.log_login, view.telemetry.environment) if store.log_login else {}
    tenant = {TENANT_HEADER: view.telemetry.tenant} if store.by_tenant else {}

    def look() -> str:
        answer = asker.ask(replace(request, headers={**request.headers, **tenant, **login}))
        return records(answer.json or {})

    return look


def trace_ids_in(record: str) -> set[str]:
    """Return the trace ids that a log record, or a batch of them, names in a field of its own."""
    return set(_TRACE_ID.findall(record))
