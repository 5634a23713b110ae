"""Changes of the kernel's command line that do not work: each time the host is back on its last known good by itself.

The change that works is in `test_4_changes.py`: promoted, and from then on the default.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtinfra.facts.boot import BOOT_PROGRAM, NO_REBOOT_FILE, Boot, BootState
from rtinfra.lab import Machine
from rtinfra.runner import DeployResult
from tests.e2e.test_2_deploy import out
from tests.project import Project

# What others put on the command line: the deploy leaves it alone, so it reaches the trial.
OTHERS = "/etc/default/grub.d/70-other.cfg"
_HANG = "/usr/local/sbin/hang"


def look(machine: Machine) -> BootState:
    """What is booted, what would be, and what became of the last trial."""
    fact = Boot()
    return fact.process(machine.run(str(fact.command(image_pattern="*-rt-amd64")), timeout=60).stdout.splitlines())


@pytest.fixture
def good(machine: Machine) -> Iterator[BootState]:
    """The host as it is good; what a scenario left on it by hand is taken away."""
    # On a kept machine the same scenario was tried before.
    machine.run(f"{BOOT_PROGRAM} forget")
    before = look(machine)
    assert before.good is not None
    assert before.default_is_good
    yield before
    machine.run(f"rm -f {_HANG} {NO_REBOOT_FILE} /etc/rtinfra/busy.d/test")
    # The deploy runs update-grub for its own files only.
    machine.run(f"[ ! -e {OTHERS} ] || {{ rm {OTHERS} && update-grub; }}", timeout=300)


@pytest.fixture
def change(lab_project: Project) -> Project:
    """Settings with another word on the kernel's command line: the host has to be rebooted for it."""
    lab_project.edit("group_data/rt_hosts.yaml", "- skew_tick=1", "- skew_tick=0")
    return lab_project


def others(machine: Machine, words: str) -> None:
    """Put words on the command line of every entry, as somebody might do by hand."""
    machine.run(f"echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {words}\"' >{OTHERS} && update-grub", timeout=300)


def assert_back_on(good: BootState, machine: Machine, result: DeployResult, *said: str) -> None:
    """The deploy failed and said so; the host runs what it ran before, and would start it again."""
    assert not result.ok
    for words in ("the trial boot of", "is back on its last known good", *said):
        assert words in result.log, result.log
    now = look(machine)
    assert now.boot_id != good.boot_id
    assert (now.release, set(now.parameters)) == (good.release, set(good.parameters))
    assert now.good == good.good
    assert now.default_is_good
    assert now.trial is not None
    assert now.trial.status == "failed"
    assert "next_entry=rtinfra" not in out(machine, "cat /boot/grub/grubenv")
    entry = out(machine, "sed -n 's/^# good //p' /boot/grub/rtinfra.cfg")
    assert f"rtinfra.good={entry}" in out(machine, "cat /proc/cmdline")


def test_the_last_known_good_kernel_cannot_be_removed(good: BootState, machine: Machine) -> None:
    """Neither by hand nor by apt's cleaning."""
    package = f"linux-image-{good.release}"
    done = machine.run(f"DEBIAN_FRONTEND=noninteractive apt-get -y purge {package}", check=False, timeout=300)
    assert done.returncode != 0
    assert "is the last known good kernel of this host" in done.stdout + done.stderr
    machine.run("dpkg --configure -a")
    assert package in out(machine, f"dpkg-query -W -f '${{Package}} ${{db:Status-Abbrev}}' {package}")


def test_a_kernel_that_apt_installs_gets_its_menu_in_one_step(good: BootState, machine: Machine) -> None:
    """apt gives scripts of packages a PATH of its own. Written in place, the file would keep its inode."""
    inode = out(machine, "stat -c %i /boot/grub/grub.cfg")
    machine.run("echo half >/boot/grub/grub.cfg.new")  # as a distribution's update-grub that was cut off leaves it
    machine.run('eval "$(apt-config shell PATH DPkg::Path)"; /etc/kernel/postinst.d/zz-update-grub', timeout=300)
    assert out(machine, "stat -c %i /boot/grub/grub.cfg") != inode
    assert out(machine, "ls /boot/grub/*.new /boot/grub/grub.cfg.* 2>/dev/null || true") == ""
    assert look(machine).default_is_good


def test_a_guarded_or_busy_host_is_not_rebooted(good: BootState, machine: Machine, change: Project) -> None:
    """Everything else is done; the reboot waits, and is said to be needed."""
    machine.run(f"echo 'cell handover until Friday' >{NO_REBOOT_FILE}")
    result = change.deploy()
    assert not result.ok
    assert "forbids it: cell handover until Friday" in result.log
    machine.run(
        f"rm {NO_REBOOT_FILE}; mkdir -p /etc/rtinfra/busy.d; cd /etc/rtinfra/busy.d; "
        "printf '#!/bin/sh\\necho arm 2 is moving; exit 1\\n' >test; chmod +x test"
    )
    result = change.deploy()
    assert not result.ok
    assert "it is busy, says /etc/rtinfra/busy.d/test: arm 2 is moving" in result.log
    now = look(machine)
    assert now.boot_id == good.boot_id
    assert now.good == good.good
    assert "next_entry=rtinfra" not in out(machine, "cat /boot/grub/grubenv"), "a power cut would start the trial"


def test_isolation_that_the_kernel_rejects(good: BootState, machine: Machine, change: Project) -> None:
    """Somebody hides two of the four cores: the kernel drops `isolcpus=2-3`. The same deploy again does not loop."""
    others(machine, "nr_cpus=2")
    result = change.deploy()
    assert_back_on(good, machine, result, "isolated cores")

    boot = look(machine).boot_id
    again = change.deploy()
    assert not again.ok
    assert "tried before: " in again.log
    assert look(machine).boot_id == boot


@pytest.mark.heavy
def test_a_kernel_that_grub_cannot_load(good: BootState, machine: Machine) -> None:
    """No kernel at all, as GRUB sees it, or not signed where secure boot asks for it: nothing runs that could panic."""
    others(machine, "somebody.else=1")
    name = out(machine, f"{BOOT_PROGRAM} try | tail -n 1 | sed 's/^rtinfra: //'")
    # GRUB does not read the journal, so that is emptied too.
    empty = """perl -e 'open(F, "<", "/boot/grub/rtinfra.cfg") and ioctl(F, 0x4004662b, my $n = pack("L", 0)) or die'"""
    machine.run(f"f=/boot/rtinfra/{name}/vmlinuz; head -c 99999 /dev/zero >$f.bad && mv $f.bad $f && sync && {empty}")
    machine.run("systemd-run --quiet --on-active=1 systemctl reboot")
    machine.wait_for_new_boot(good.boot_id)
    now = look(machine)
    assert (now.release, set(now.parameters)) == (good.release, set(good.parameters))
    assert now.default_is_good
    assert now.trial is not None
    assert now.trial.status in ("ended", "failed")


@pytest.mark.heavy
def test_an_init_that_hangs(good: BootState, machine: Machine, change: Project) -> None:
    """Nothing but the hardware watchdog, armed in the initramfs, can end this."""
    machine.run(f"printf '#!/bin/sh\\nexec sleep infinity\\n' >{_HANG}; chmod +x {_HANG}")
    others(machine, f"init={_HANG}")
    assert_back_on(good, machine, change.deploy(), "any log", "(twice)", "watchdog")


@pytest.mark.heavy
def test_a_wrong_root_device(good: BootState, machine: Machine, change: Project) -> None:
    """The initramfs waits for it, gives up and panics."""
    others(machine, "root=/dev/vdz9")
    assert_back_on(good, machine, change.deploy(), "any log", "(twice)", "/dev/vdz9 does not exist")


@pytest.mark.heavy
def test_a_kernel_that_panics(good: BootState, machine: Machine, change: Project) -> None:
    """Its first process ends: the kernel panics, and restarts after panic= seconds."""
    others(machine, "init=/bin/false")
    assert_back_on(good, machine, change.deploy(), "any log", "(twice)", "Kernel panic - not syncing")


@pytest.mark.heavy
def test_a_power_cut_during_the_trial(good: BootState, machine: Machine, change: Project) -> None:
    """Switched off while the trial boots, and on again: the last known good starts, and a second attempt succeeds."""
    shown = len(console(machine))
    run = change.pyinfra()
    await_console(machine, shown, "rtinfra.trial=", run)
    machine.power_cut()
    machine.boot()
    assert "rtinfra.good=" in out(machine, "cat /proc/cmdline")
    log = run.communicate(timeout=900)[0]
    assert run.returncode == 0, log
    assert "the trial boot has no verdict: " in log
    now = look(machine)
    assert now.trial is not None
    assert now.trial.status == "promoted"
    assert now.good is not None
    assert (now.good.release, "skew_tick=0" in now.good.parameters) == (good.release, True)
    assert now.default_is_good


def test_with_the_settings_of_before_nothing_is_left_of_the_trials(machine: Machine, lab_project: Project) -> None:
    result = lab_project.deploy()
    assert result.ok, result.log
    assert lab_project.deploy().changed == 0


def await_console(machine: Machine, shown: int, words: str, run: subprocess.Popen[str]) -> None:
    """Wait until the console prints `words` beyond its first `shown` characters, while a deploy runs."""
    deadline = time.monotonic() + 600
    while words not in console(machine)[shown:]:
        assert run.poll() is None, run.stdout.read() if run.stdout else ""
        assert time.monotonic() < deadline, f"the console never printed {words}"
        time.sleep(0.5)


def console(machine: Machine) -> str:
    """All that its console has printed."""
    path: Path = machine.console_path
    return path.read_text(encoding="utf-8", errors="replace")
