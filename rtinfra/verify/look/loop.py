"""The control loop's counter, at both ends of the watch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.facts import http
from rtinfra.facts.http import Request, loopback
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.look.answers import samples
from rtinfra.verify.questions import Questions

#: Cycles that the loop has done, a metric of the real-time process.
CYCLES: Final = "mxrc_rt_cycle_count_total"


@dataclass(frozen=True)
class Loop:
    """What the counter grew by, in how many seconds; None when the process did not tell at one of the ends."""

    cycles: int | None
    seconds: float


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the metrics of the real-time process and, right before, for the host's clock."""
    places = questions.application
    if places is None:
        return {}
    look = f"cat /proc/uptime\n{http.command([Request(loopback(places.metrics_ports[0], '/metrics'))])}"
    return {"loop_before": look, "loop_after": look}


def read(answer: Answer) -> Loop:
    """Read what `ask` asked."""
    (began, first), (ended, last) = (_turns(answer, name) for name in ("loop_before", "loop_after"))
    return Loop(None if first is None or last is None else last - first, ended - began)


def _turns(answer: Answer, name: str) -> tuple[float, int | None]:
    uptime = float((answer.line(name).split() or ["0"])[0])
    found = [
        int(sample.value)
        for said in http.parse(answer.lines(name)[1:])
        for sample in samples(said)
        if sample.name == CYCLES
    ]
    return uptime, found[-1] if found else None
