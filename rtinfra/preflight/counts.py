"""The seven metrics of the preflight, over all runs: counts on the disk, shown as a textfile for node_exporter.

A run is a short process, so what Prometheus calls a counter lives in a file of its own. It is read, added to and
replaced under a lock: runs at the same time lose no count.
"""

from __future__ import annotations

import bisect
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rtinfra.local.file_lock import locked
from rtinfra.local.files import replace_file
from rtinfra.preflight.verdict import Report

if TYPE_CHECKING:
    from prometheus_client import Metric

#: Upper bounds in seconds; the last one, infinity, is not written.
BUCKETS: Final = {
    "duration_seconds": (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    "realcheck_redis_latency_seconds": (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    "realcheck_postgres_latency_seconds": (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
}
_TEXTS: Final = {
    "runs_total": "Preflight runs.",
    "last_success": "Unix time of the last run in which no check failed; 0: there was none.",
    "duration_seconds": "Duration of a run.",
    "checks_total": "Outcomes of checks.",
    "realcheck_redis_latency_seconds": "Time to connect to Redis and have an answer to PING.",
    "realcheck_postgres_latency_seconds": "Time to connect to PostgreSQL and have an answer to SELECT 1.",
    "ready_for_live": "1: no check of the last run failed.",
}
_LOCK_SECONDS = 10.0
_VERSION: Final = 1


class Counts:
    """The counts of all environments that ran here, as plain data: what the state file holds."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        self.environments: dict[str, Any] = data or {}

    def add(self, report: Report) -> None:
        """Count a run."""
        found = self.environments.setdefault(
            report.environment, {"runs": 0, "last_success": 0.0, "ready": 0, "checks": {}, "histograms": {}}
        )
        found["runs"] += 1
        found["ready"] = int(report.ready_for_live)
        if report.ready_for_live:
            found["last_success"] = round(report.started.timestamp() + report.seconds, 3)
        for outcome in report.outcomes:
            by_status = found["checks"].setdefault(outcome.check.name, {})
            status = outcome.result.status.value.lower()
            by_status[status] = by_status.get(status, 0) + 1
            if outcome.check.histogram is not None and outcome.result.latency is not None:
                _observe(found["histograms"], outcome.check.histogram, outcome.result.latency)
        _observe(found["histograms"], "duration_seconds", report.seconds)

    def families(self, namespace: str) -> Iterator[Metric]:
        """Return the metrics as prometheus_client writes them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def name(metric: str) -> str:
            return f"{namespace}_preflight_{metric}"

        runs = CounterMetricFamily(name("runs_total"), _TEXTS["runs_total"], labels=["env"])
        success = GaugeMetricFamily(name("last_success"), _TEXTS["last_success"], labels=["env"])
        checks = CounterMetricFamily(name("checks_total"), _TEXTS["checks_total"], labels=["env", "check", "status"])
        ready = GaugeMetricFamily(name("ready_for_live"), _TEXTS["ready_for_live"], labels=["env"])
        histograms = {metric: HistogramMetricFamily(name(metric), _TEXTS[metric], labels=["env"]) for metric in BUCKETS}
        for environment, found in self.environments.items():
            runs.add_metric([environment], found["runs"])
            success.add_metric([environment], found["last_success"])
            ready.add_metric([environment], found["ready"])
            for check, by_status in found["checks"].items():
                for status, count in by_status.items():
                    checks.add_metric([environment, check, status], count)
            for metric, family in histograms.items():
                histogram = found["histograms"].get(metric, _empty(metric))
                bounds = [*map(repr, BUCKETS[metric]), "+Inf"]
                counts = itertools.accumulate(histogram["counts"])
                family.add_metric([environment], list(zip(bounds, counts, strict=True)), histogram["sum"])
        yield from (runs, success, *histograms.values(), checks, ready)


def _observe(histograms: dict[str, Any], metric: str, value: float) -> None:
    histogram = histograms.setdefault(metric, _empty(metric))
    histogram["counts"][bisect.bisect_left(BUCKETS[metric], value)] += 1
    histogram["sum"] += value


def _empty(metric: str) -> dict[str, Any]:
    return {"counts": [0] * (len(BUCKETS[metric]) + 1), "sum": 0.0}


def record(report: Report, state: Path, textfiles: Sequence[Path], namespace: str) -> str:
    """Count a run and write the metrics to all `textfiles`; return their text.

    Raises:
        LocalError: another run has held the lock for too long.
        OSError: the disk does not take it.
    """
    with locked(state.with_suffix(".lock"), "counting a preflight", _LOCK_SECONDS):
        try:
            counts, text = _added(state.read_bytes() if state.exists() else None, report, namespace)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            # Prometheus takes a counter that begins again for what it is; refusing to run would help nobody.
            state.rename(state.with_name(f"{state.name}.damaged-{int(time.time())}"))
            counts, text = _added(None, report, namespace)
        document = {"version": _VERSION, "environments": counts.environments}
        replace_file(state, json.dumps(document).encode(), mode=0o640)
        for path in textfiles:
            # node_exporter reads it with an account of its own.
            replace_file(path, text.encode(), mode=0o644)
    return text


def _added(content: bytes | None, report: Report, namespace: str) -> tuple[Counts, str]:
    """Return the counts of a state file with one more run, and their text; any wrong content raises."""
    counts = Counts()
    if content is not None:
        document = json.loads(content)
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']}")
        counts = Counts(document["environments"])
    counts.add(report)
    return counts, exposition(counts, namespace)


def exposition(counts: Counts, namespace: str) -> str:
    """Return the metrics in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    class _Collector:
        def collect(self) -> Iterator[Metric]:
            return counts.families(namespace)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector())
    return generate_latest(registry).decode()
