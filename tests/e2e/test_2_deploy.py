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


# Words of somebody else that mean something to GRUB, which also guards its menu with a password; its entries start
# without, as before.
GRUB_OF_OTHERS = r"""
printf '%s\n' 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX somebody.else=96M\\\$0x38\\;x"' >/etc/default/grub.d/70-other.cfg
printf '#!/bin/sh\necho set superusers=root\necho password root secret\n' >/etc/grub.d/01_users
chmod +x /etc/grub.d/01_users
sed -i 's/^CLASS="/CLASS="--unrestricted /' /etc/grub.d/10_linux
"""


def out(machine: Machine, command: str) -> str:
    return machine.run(command).stdout.strip()


def words_of_others_are_kept(machine: Machine) -> None:
    """What others want of GRUB reaches the kernel, on the trial that was started and in the entry that is kept."""
    assert "somebody.else=96M$0x38;x" in out(machine, "cat /proc/cmdline").split()
    kept = out(machine, "cat /boot/grub/rtinfra.cfg")
    assert r" somebody.else=96M\$0x38\;x " in kept
    assert "--unrestricted" in kept


def test_a_bare_machine_becomes_a_real_time_host(lab_project: Project, machine: Machine, cuts: Cuts) -> None:
    machine.run(GRUB_OF_OTHERS)
    result = cuts.deploy(slowness(machine), lambda line: lab_project.deploy(say=line))
    assert "reboot" in " ".join(result.changed_operations)
    assert "PREEMPT_RT" in out(machine, "uname -v")
    assert out(machine, "dpkg --audit") == ""
    # Booted on trial, proven, and what boots from now on when nobody chooses.
    good = out(machine, "sed -n 's/^# good //p' /boot/grub/rtinfra.cfg")
    assert f"rtinfra.trial={good}" in out(machine, "cat /proc/cmdline")
    assert "status=promoted" in out(machine, "cat /boot/rtinfra/state")
    assert out(machine, "grep -a ^saved_entry= /boot/grub/grubenv") == "saved_entry=rtinfra-good"
    words_of_others_are_kept(machine)


def test_a_second_run_changes_nothing(lab_project: Project, machine: Machine) -> None:
    before = out(machine, STATE)
    result = lab_project.deploy()
    assert result.ok, result.log
    assert result.changed == 0, result.changed_operations
    assert result.unchanged > 0
    assert out(machine, STATE) == before, "something was restarted"
