"""A report as metrics in Prometheus's text format, for a textfile collector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    return "".join(f"{line}\n" for line in _lines(report)).encode()


def _lines(report: Report) -> Iterator[str]:
    hosts = sorted({*report.hosts, *(result.host for result in report.results)})
    yield from _family(
        "rtinfra_compliance_controls",
        "Controls by result of the last verification.",
        (
            (
                {"target": host, "status": state},
                sum(result.host == host and result.status == status for result in report.results),
            )
            for host in hosts
            for status, state in _STATES.items()
        ),
    )
    yield from _family(
        "rtinfra_compliance_control_state",
        "1 for the result that a control had in the last verification.",
        (
            (
                {
                    "target": result.host,
                    "control": result.control,
                    "severity": result.severity,
                    "status": _STATES[result.status],
                },
                1,
            )
            for result in report.results
        ),
    )
    yield from _family(
        "rtinfra_compliance_unreachable",
        "1 for a host that could not be looked at.",
        (({"target": host}, host in {problem.host for problem in report.problems}) for host in _all_hosts(report)),
    )
    yield from _family(
        "rtinfra_compliance_last_run_timestamp_seconds",
        "When the controls were last checked.",
        (({"target": host}, datetime.fromisoformat(report.started).timestamp()) for host in hosts),
    )


def _all_hosts(report: Report) -> list[str]:
    return sorted({*report.hosts, *(problem.host for problem in report.problems)})


def _family(name: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{inside}}} {float(value):.0f}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
