"""Latency: how late the isolated cores are at worst."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from testinfra.host import Host

from roles.host import HostConfig
from roles.rt_app.model import RT_APP, RT_UNIT
from roles.rt_tuning.model import LATENCY_BEFORE, LATENCY_PROGRAM
from rtinfra.cpu import CpuLayout
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.look.answers import Answers
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.plugin import Subject
from rtinfra.verify.report import NOT_A_LATENCY_PROOF

_LIMITS = project_limits()


@dataclass(frozen=True)
class Latency:
    """What cyclictest measured, over all its threads."""

    worst_us: int
    average_us: float
    cycles: int
    jitter_us: int
    """99 of 100 cycles start within it, as of `mxrc_rt_jitter_us` of the application."""

    @classmethod
    def of(cls, measured: dict[str, Any]) -> Self:
        """Read cyclictest's JSON; what is later than its histogram reaches is missing there and counted as worst."""
        threads = list(measured["thread"].values())
        cycles = sum(thread["cycles"] for thread in threads)
        worst = max(thread["max"] for thread in threads)
        histogram: Counter[int] = Counter()
        for thread in threads:
            histogram.update({int(us): count for us, count in thread["histogram"].items()})
        return cls(
            worst_us=worst,
            average_us=sum(thread["avg"] * thread["cycles"] for thread in threads) / max(cycles, 1),
            cycles=cycles,
            jitter_us=next((us for us, below in _running_sum(histogram) if below >= 0.99 * cycles), worst),
        )

    def __str__(self) -> str:
        return f"at worst {self.worst_us} us, on average {self.average_us:.0f} us, in {self.cycles} cycles"


def _running_sum(histogram: Counter[int]) -> Iterator[tuple[int, int]]:
    total = 0
    for us in sorted(histogram):
        total += histogram[us]
        yield us, total


@pytest.fixture(scope="session")
def latency(
    subject: Subject, host: Host, config: HostConfig, layout: CpuLayout, request: pytest.FixtureRequest
) -> Latency:
    """A run of cyclictest on the isolated cores under load on the others, kept with its circumstances.

    The application is stopped meanwhile: two programs of one priority on one core would measure each other.
    """
    seconds = request.config.option.latency_seconds
    measure = f"{LATENCY_PROGRAM} measure {layout.isolated_list} {config[RT_APP].rt_process.priority} {seconds}"
    output = host.check_output(
        f"trap 'systemctl start {RT_UNIT}' EXIT; trap 'exit 1' HUP INT TERM; systemctl stop {RT_UNIT} && {measure}"
    )
    measured: dict[str, Any] = json.loads(output[output.index("{") :])
    evidence: Path | None = request.config.option.evidence
    if evidence is not None:
        record = {"host": subject.host.name, **asdict(subject.facts), **measured}
        path = evidence / f"latency-{subject.host.name}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
    return Latency.of(measured["cyclictest"])


@pytest.fixture(scope="session")
def before(host: Host) -> Latency | None:
    """What the deploy measured before it isolated any core."""
    output = host.check_output(f"cat {LATENCY_BEFORE} 2>/dev/null || true")
    return Latency.of(json.loads(output)["cyclictest"]) if output else None


@pytest.mark.disruptive
@pytest.mark.control(
    id="RT-11.1", severity="critical", title="The real-time cores react in time under load, even in the worst case"
)
def test_worst_latency(latency: Latency, computer: Computer) -> None:
    if computer.is_virtual:
        expect.measured(latency, "cyclictest", _why_not_judged(computer))
    else:
        expect.below(latency.worst_us, _LIMITS.worst_latency_us, "worst latency", "us")


@pytest.mark.disruptive
@pytest.mark.control(id="RT-11.2", severity="high", title="The latency measurement counted every cycle")
def test_measurement_is_complete(
    latency: Latency, layout: CpuLayout, request: pytest.FixtureRequest, computer: Computer
) -> None:
    required = len(layout.isolated) * request.config.option.latency_seconds * 1000
    if computer.is_virtual:
        expect.measured(f"{latency.cycles} of {required}", "cycles", _why_not_judged(computer))
    else:
        expect.at_least(latency.cycles, int(required * _LIMITS.measured_cycles_ratio), "cycles measured")


@pytest.mark.control(id="RT-11.3", severity="high", title="The control loop misses practically no deadline")
def test_deadline_misses(answers: Answers, computer: Computer, config: HostConfig) -> None:
    rate = answers.metrics(config[RT_APP].rt_process.metrics_port).get("mxrc_rt_deadline_miss_rate")
    rate = expect.found(rate, "mxrc_rt_deadline_miss_rate", "nothing", "a number")
    if computer.is_virtual:
        expect.measured(f"{rate:.4%}", "missed deadlines", _why_not_judged(computer))
    else:
        limit = _LIMITS.deadline_miss_ratio
        expect.that(rate < limit, f"{rate:.4%}", f"less than {100 * limit:g} %", "missed deadlines")


@pytest.mark.control(id="RT-11.4", severity="low", title="The control loop tells how unevenly it starts (jitter)")
def test_jitter(answers: Answers, config: HostConfig) -> None:
    jitter = answers.metrics(config[RT_APP].rt_process.metrics_port).get("mxrc_rt_jitter_us")
    jitter = expect.found(jitter, "mxrc_rt_jitter_us", "nothing", "a number")
    expect.measured(f"{jitter:.0f} us", "jitter", "the application did not run before the cores were isolated")


@pytest.mark.disruptive
@pytest.mark.control(
    id="RT-11.5",
    severity="high",
    title="Under load the real-time cores are twice as even as before isolation",
)
def test_jitter_before_and_after(latency: Latency, before: Latency | None, computer: Computer) -> None:
    if before is None:
        expect.not_applicable(f"the cores were isolated before the deploy could measure: there is no {LATENCY_BEFORE}")
    change = f"{before.jitter_us} us before, {latency.jitter_us} us now"
    if computer.is_virtual:
        expect.measured(change, "jitter", _why_not_judged(computer))
    else:
        left = _LIMITS.jitter_left_ratio
        expect.that(
            latency.jitter_us <= left * before.jitter_us, change, f"at most {100 * left:g} % of before", "jitter"
        )


def _why_not_judged(computer: Computer) -> str:
    return f"{NOT_A_LATENCY_PROOF}: a virtual machine ({computer.virtualisation})"
