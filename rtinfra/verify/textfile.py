"""A report as metrics in Prometheus's text format, for a textfile collector."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rtinfra.verify.report import Report, Status

#: Name of the file, in the report's folder and in a textfile collector's.
FILE: Final = "rtinfra_compliance.prom"
_STATES: Final = {
    Status.PASS: "passed",
    Status.FAIL: "failed",
    Status.WAIVED: "waived",
    Status.NOT_APPLICABLE: "not_applicable",
    Status.MEASURED: "measured",
}


def text(report: Report) -> bytes:
    """Return the metrics of a report.

    `target` is the host that was looked at: `host` is added by Prometheus and is the computer that looked.
    """
    # Here, because loading it takes longer than all of the rest, and only the end of a verification needs it.
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"rtinfra_compliance_{name}", meaning, ("target", *labels), registry=registry)

    hosts = sorted({*report.hosts, *(result.host for result in report.results)})
    controls = gauge("controls", "Controls by result of the last verification.", "status")
    for host in hosts:
        for status, state in _STATES.items():
            controls.labels(host, state).set(
                sum(result.host == host and result.status == status for result in report.results)
            )
    states = gauge(
        "control_state",
        "1 for the result that a control had in the last verification.",
        *("control", "severity", "status"),
    )
    for result in report.results:
        states.labels(result.host, result.control, result.severity, _STATES[result.status]).set(1)
    silent = {problem.host for problem in report.problems}
    unreachable = gauge("unreachable", "1 for a host that could not be looked at.")
    for host in sorted({*report.hosts, *silent}):
        unreachable.labels(host).set(host in silent)
    started = gauge("last_run_timestamp_seconds", "When the controls were last checked.")
    for host in hosts:
        started.labels(host).set(round(datetime.fromisoformat(report.started).timestamp()))
    return generate_latest(registry)
