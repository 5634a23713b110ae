"""A report as one page that a manager can read: complete in itself, asks nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rtinfra.paths import PROJECT
from rtinfra.verify.report import SEVERITIES, ControlResult, Report, Status, by_area

#: Name of the file in the report's folder.
FILE: Final = "report.html"


@dataclass(frozen=True)
class Light:
    """The traffic light: a colour and what it means, in a few words, in Korean, and in a sentence."""

    colour: str
    words: str
    korean: str
    meaning: str


@dataclass(frozen=True)
class Area:
    """Controls under one heading."""

    name: str
    results: Sequence[ControlResult]

    def count(self, status: str) -> int:
        """Return how many of them ended so."""
        return sum(result.status == status for result in self.results)


def render(report: Report) -> bytes:
    """Return the page."""
    severity = {name: number for number, name in enumerate(SEVERITIES)}
    return (
        _environment()
        .get_template("verify/report.html.j2")
        .render(
            report=report,
            light=light(report),
            when=datetime.fromisoformat(report.started).strftime("%d %B %Y, %H:%M"),
            counts={str(status): report.count(status) for status in Status},
            failed=sorted(report.failed, key=lambda result: (severity[result.severity], result.host)),
            waived=[result for result in report.results if result.status == Status.WAIVED],
            areas=[Area(name, results) for name, results in by_area(report.results)],
            several_hosts=len({result.host for result in report.results}) > 1,
        )
        .encode()
    )


def light(report: Report) -> Light:
    """Return what to think of a report at a glance."""
    serious = sum(result.severity in ("critical", "high") for result in report.failed)
    waived = report.count(Status.WAIVED)
    if not report.results:
        return Light("red", "Nothing is proven", "확인된 것이 없습니다", "No control could be checked.")
    if report.problems:
        names = ", ".join(dict.fromkeys(problem.host for problem in report.problems))
        return Light(
            "red",
            "Not everything could be looked at",
            "일부 호스트를 확인할 수 없습니다",
            f"There is no answer about {names}.",
        )
    if serious:
        noun = "control does" if serious == 1 else "controls do"
        return Light(
            "red",
            "Action is needed",
            "조치가 필요합니다",
            f"{serious} important {noun} not hold. Start with the list below.",
        )
    if report.failed:
        number = len(report.failed)
        noun = "control does" if number == 1 else "controls do"
        return Light("yellow", "Nearly well", "사소한 문제가 있습니다", f"{number} minor {noun} not hold.")
    if waived:
        noun = "exception is" if waived == 1 else "exceptions are"
        return Light(
            "yellow",
            "Well, with exceptions",
            "예외 승인 항목이 있습니다",
            f"Everything else holds; {waived} {noun} accepted for a while.",
        )
    return Light("green", "All is well", "모두 정상입니다", "Every control that applies to these hosts holds.")


@cache
def _environment() -> Environment:
    # Everything on the page is text from hosts: escaped, always.
    made = Environment(
        loader=FileSystemLoader(PROJECT / "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["marked"] = _marked
    return made


def _marked(text: str) -> Markup:
    """Return a text in which what stands between backticks looks like something to type."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else part for odd, part in enumerate(parts)
    )
