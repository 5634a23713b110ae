"""What tracing costs the control loop: the length of its cycles with all traced and none."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from roles.host import HostConfig, RtHostConfig
from roles.rt_app.deploy import RT_UNIT, documents
from roles.rt_app.model import RtAppSettings
from rtinfra.cpu import CpuLayout
from rtinfra.facts.http import loopback
from rtinfra.verify import expect
from rtinfra.verify.asking import Asker
from rtinfra.verify.look.answers import samples
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.report import NOT_A_LATENCY_PROOF

_LARGEST_COST = 0.05
# The rate the cost is stated for, and how much of it has to be reached for the figure to count.
_TASKS_PER_SECOND = 5
_LEAST_SHARE_OF_TASKS = 0.8
_TASK = "rtinfra-verify"
# Accepted, or its queue is full.
_TAKEN = (202, 429, 503)
_BUSY_US, _CYCLES = "mxrc_rt_cycle_time_us_sum", "mxrc_rt_cycle_time_us_count"
_TASKS, _SPANS = "mxrc_tasks_total", "mxrc_tracing_spans_exported_total"
# Until a process that was just started runs as it does from then on.
_SETTLING_SECONDS = 3
# For this boot only: whatever ends the control, a reboot leaves nothing of it.
_CONFIG = "/run/rtinfra-sampling.json"
_DROP_IN = f"/run/systemd/system/{RT_UNIT}.d/90-rtinfra-sampling.conf"
_RESTART = f"systemctl daemon-reload && systemctl reset-failed {RT_UNIT} && systemctl restart {RT_UNIT}"


@contextmanager
def sampling(host: Host, rt: RtHostConfig, layout: CpuLayout, rate: float) -> Iterator[None]:
    """Let the real-time process keep this share of traces meanwhile, 0.0: none and no spans; it is restarted for it."""
    document = documents(rt.rt_app, layout)["tracing_config"]
    document |= {"sampling_rate": rate, "instrumentation": dict.fromkeys(document["instrumentation"], rate > 0)}
    drop_in = f"[Service]\nBindReadOnlyPaths={_CONFIG}:{rt.rt_app.config_dir}/tracing_config.json\n"
    directory = _DROP_IN.rpartition("/")[0]
    try:
        host.check_output(
            f"mkdir -p {directory} && printf %s {shlex.quote(json.dumps(document))} >{_CONFIG} && "
            f"printf %s {shlex.quote(drop_in)} >{_DROP_IN} && {_RESTART}"
        )
        yield
    finally:
        host.check_output(f"rm -f {_DROP_IN} {_CONFIG}; rmdir {directory} 2>/dev/null; {_RESTART}")


@dataclass(frozen=True)
class Work:
    """What the real-time process did within a time: mean time of a cycle in microseconds, tasks and spans a second."""

    cycle_us: float
    tasks_per_second: float
    spans_per_second: float


def work(asker: Asker, app: RtAppSettings, seconds: int) -> Work:
    """Give the process tasks at the stated rate for so many seconds, and tell from its metrics what it did."""
    time.sleep(_SETTLING_SECONDS)
    before, began = _metrics(asker, app), time.monotonic()
    url = loopback(app.rt_process.health_port, "/api/v1/task/start")
    for number in range(seconds * _TASKS_PER_SECOND):
        time.sleep(max(0.0, began + number / _TASKS_PER_SECOND - time.monotonic()))
        if time.monotonic() - began > seconds:
            break  # a slow computer gets fewer
        task = {"task_id": f"{_TASK}-{number}", "mode": "once"}
        status = asker.post(url, task).status
        expect.that(status in _TAKEN, status, "accepted, or later", "HTTP status of a task")
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    after, took = _metrics(asker, app), time.monotonic() - began
    grown = {name: after[name] - before[name] for name in before}
    expect.at_least(grown[_CYCLES], 1, f"cycles within {seconds} s")
    return Work(grown[_BUSY_US] / grown[_CYCLES], grown[_TASKS] / took, grown[_SPANS] / took)


def _metrics(asker: Asker, app: RtAppSettings) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in samples(asker.get(loopback(app.rt_process.metrics_port, "/metrics"))):
        if sample.labels.get("result", "completed") == "completed":
            found[sample.name] = sample.value
    return {
        name: expect.found(found.get(name), name, "nothing", "a number") for name in (_BUSY_US, _CYCLES, _TASKS, _SPANS)
    }


@pytest.mark.disruptive
@pytest.mark.control(
    id="OB-4.3", severity="high", title="Tracing takes less than a twentieth of the control loop's cycle time"
)
def test_cost_of_tracing(
    host: Host,
    asker: Asker,
    config: HostConfig,
    layout: CpuLayout,
    computer: Computer,
    request: pytest.FixtureRequest,
) -> None:
    rt = config.rt
    app, seconds = rt.rt_app, request.config.option.latency_seconds
    if app.application.kind != "reference":
        expect.not_applicable("only the reference workload is known to take tasks and to have this period")
    with sampling(host, rt, layout, 0.0):
        without = work(asker, app, seconds)
    with sampling(host, rt, layout, 1.0):
        traced = work(asker, app, seconds)
    expect.that(traced.tasks_per_second > 0, "no task done", "tasks done", "tasks while everything is traced")
    cost = (traced.cycle_us - without.cycle_us) / app.reference.cycle_us
    told = (
        f"{cost:+.2%} of a cycle ({traced.cycle_us:.1f} us a cycle with {traced.tasks_per_second:.1f} tasks a second, "
        f"all traced; {without.cycle_us:.1f} us with {without.tasks_per_second:.1f}, none traced)"
    )
    if computer.is_virtual:
        why = f"{NOT_A_LATENCY_PROOF}: a virtual machine ({computer.virtualisation})"
        expect.measured(told, "cost of tracing", why)
        return
    least = _TASKS_PER_SECOND * _LEAST_SHARE_OF_TASKS
    for found, what in ((without, "none is traced"), (traced, "all are traced")):
        expect.at_least(found.tasks_per_second, least, f"tasks while {what}", "a second")
    if config.agents is not None:
        expect.at_least(traced.spans_per_second, least, "spans delivered while all are traced", "a second")
    expect.that(cost < _LARGEST_COST, told, "less than 5 %", "cost of tracing")
