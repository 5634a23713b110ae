"""From bare to real-time, with a run that is killed in the middle; then nothing is left to do."""

from __future__ import annotations

import signal
import time

from rtinfra.lab import Machine
from tests.project import Project

# What an unchanged host must keep: the boot, and the moments its services were started.
STATE = (
    "cat /proc/sys/kernel/random/boot_id; systemctl show --property=Id,ExecMainStartTimestampMonotonic,NRestarts"
    " mxrc-rt mxrc-non-rt rtinfra-tune rtinfra-irq-watch chrony systemd-journald"
)


def out(machine: Machine, command: str) -> str:
    return machine.run(command).stdout.strip()


def test_a_killed_run_is_completed_by_the_next(lab_project: Project, machine: Machine) -> None:
    """The control machine dies while dpkg unpacks; the host's apt goes on or ends half way, either is fine."""
    run = lab_project.pyinfra()
    deadline = time.monotonic() + 600
    unpacking = "grep -q ' unpacked \\| half-installed ' /var/log/dpkg.log"
    while machine.run(unpacking, check=False).returncode != 0:
        assert run.poll() is None, f"ended by itself:\n{run.stdout.read() if run.stdout else ''}"
        assert time.monotonic() < deadline, "apt never got to unpack anything"
        time.sleep(1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    # The worst case: not only is the control machine gone, apt is killed with its packages half unpacked.
    machine.run("pkill -KILL -x apt-get; pkill -KILL -x dpkg; sleep 1", check=False)

    result = lab_project.deploy()
    assert result.ok, result.log
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
