"""What tracing costs the control loop: the length of its cycles with and without."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from roles.host import HostConfig
from roles.rt_app.model import RT_APP, RT_UNIT
from roles.rt_app.role import documents
from rtinfra.cpu import CpuLayout
from rtinfra.facts.http import loopback
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.asking import Asker
from rtinfra.verify.look.answers import samples
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.report import NOT_A_LATENCY_PROOF

# Until a process that was just started runs as it does from then on.
_SETTLING_SECONDS = 3
# For this boot only: whatever ends the control, a reboot leaves nothing of it.
_CONFIG = "/run/rtinfra-untraced.json"
_DROP_IN = f"/run/systemd/system/{RT_UNIT}.d/90-rtinfra-untraced.conf"
_RESTART = f"systemctl daemon-reload && systemctl reset-failed {RT_UNIT} && systemctl restart {RT_UNIT}"


@contextmanager
def untraced(host: Host, config: HostConfig, layout: CpuLayout) -> Iterator[None]:
    """Let the real-time process run without tracing meanwhile; it is restarted before and after."""
    document = documents(config[RT_APP], layout)["tracing_config"]
    document |= {"sampling_rate": 0.0, "instrumentation": dict.fromkeys(document["instrumentation"], False)}
    drop_in = f"[Service]\nBindReadOnlyPaths={_CONFIG}:{config[RT_APP].config_dir}/tracing_config.json\n"
    directory = _DROP_IN.rpartition("/")[0]
    try:
        host.check_output(
            f"mkdir -p {directory} && printf %s {shlex.quote(json.dumps(document))} >{_CONFIG} && "
            f"printf %s {shlex.quote(drop_in)} >{_DROP_IN} && {_RESTART}"
        )
        yield
    finally:
        host.check_output(f"rm -f {_DROP_IN} {_CONFIG}; rmdir {directory} 2>/dev/null; {_RESTART}")


def mean_cycle_us(asker: Asker, port: int, seconds: int) -> float:
    """How long a cycle of the loop takes on average, in microseconds, over so many seconds."""
    time.sleep(_SETTLING_SECONDS)
    totals = []
    for pause in (seconds, 0):
        found = {sample.name: sample.value for sample in samples(asker.get(loopback(port, "/metrics")))}
        names = ("mxrc_rt_cycle_time_us_sum", "mxrc_rt_cycle_time_us_count")
        totals.append([expect.found(found.get(name), name, "nothing", "a number") for name in names])
        time.sleep(pause)
    (sum_before, count_before), (sum_after, count_after) = totals
    cycles = count_after - count_before
    expect.at_least(cycles, 1, f"cycles within {seconds} s")
    return (sum_after - sum_before) / cycles


@pytest.mark.disruptive
@pytest.mark.control(
    id="OB-4.3", severity="high", title="Tracing takes less than a twentieth of the control loop's cycle time"
)
def test_cost_of_tracing(
    host: Host, asker: Asker, config: HostConfig, layout: CpuLayout, computer: Computer, request: pytest.FixtureRequest
) -> None:
    seconds, port = request.config.option.latency_seconds, config[RT_APP].rt_process.metrics_port
    with untraced(host, config, layout):
        without = mean_cycle_us(asker, port, seconds)
    traced = mean_cycle_us(asker, port, seconds)
    cost, limit = traced / without - 1, project_limits().tracing_cost_ratio
    told = f"{cost:+.1%} ({traced:.1f} us a cycle, {without:.1f} us without)"
    if computer.is_virtual:
        expect.measured(
            told, "cost of tracing", f"{NOT_A_LATENCY_PROOF}: a virtual machine ({computer.virtualisation})"
        )
    else:
        expect.that(cost < limit, told, f"less than {100 * limit:g} %", "cost of tracing")
