"""From bare to real-time in one run; then nothing is left to do.

At moments of this run the power goes: not of this machine, but of copies that start from what was on its disk then.
What becomes of them is told beside the scenarios that follow, and held against what this machine is right after it
(`test_7_power_cuts.py`). A run that is killed in the middle: `test_5_telemetry.py`.
"""

from __future__ import annotations

from rtinfra.lab import Machine
from tests.chaos.cuts import Cuts
from tests.chaos.instants import slowness
from tests.project import Project

# What an unchanged host must keep: the boot, and the moments its services were started.
STATE = (
    "cat /proc/sys/kernel/random/boot_id; systemctl show --property=Id,ExecMainStartTimestampMonotonic,NRestarts"
    " mxrc-rt mxrc-non-rt rtinfra-tune rtinfra-irq-watch chrony systemd-journald"
)


def out(machine: Machine, command: str) -> str:
    return machine.run(command).stdout.strip()


def test_a_bare_machine_becomes_a_real_time_host(lab_project: Project, machine: Machine, cuts: Cuts) -> None:
    result = cuts.deploy(slowness(machine), lambda line: lab_project.deploy(say=line))
    assert "reboot" in " ".join(result.changed_operations)
    assert "PREEMPT_RT" in out(machine, "uname -v")
    assert out(machine, "dpkg --audit") == ""


def test_a_second_run_changes_nothing(lab_project: Project, machine: Machine) -> None:
    before = out(machine, STATE)
    result = lab_project.deploy()
    assert result.ok, result.log
    assert result.changed == 0, result.changed_operations
    assert result.unchanged > 0
    assert out(machine, STATE) == before, "something was restarted"
