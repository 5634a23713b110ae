"""A changed setting changes what follows from it and nothing else; taken back, it is as before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from rtinfra.lab import Machine, machines
from rtinfra.paths import PROJECT
from tests.e2e.test_2_deploy import out, words_of_others_are_kept
from tests.project import Project


def boot_id(machine: Machine) -> str:
    return out(machine, "cat /proc/sys/kernel/random/boot_id")


def managed_files(machine: Machine) -> dict[str, str]:
    """Hashes of everything below the folders that roles write to."""
    lines = out(
        machine,
        "find /etc /usr/local -xdev -type f ! -name '*.cache' ! -path '/etc/mtab' -print0 | xargs -0 sha256sum",
    )
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines.splitlines())}


def changed_files(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before | after if before.get(path) != after.get(path)}


def test_one_sysctl(settled: Project, machine: Machine) -> None:
    """One sysctl in group_data: one file and what the host holds itself against, at once, no restart; and back."""
    boot, before = boot_id(machine), managed_files(machine)
    settled.edit("group_data/rt_hosts.yaml", "vm.swappiness: 10", "vm.swappiness: 1")
    result = settled.deploy()
    assert result.ok, result.log
    assert result.changed_operations == ("rt_tuning | files", "drift | files")
    assert changed_files(before, managed_files(machine)) == {"/etc/sysctl.d/zz-rtinfra.conf"}
    assert out(machine, "cat /proc/sys/vm/swappiness") == "1"

    settled.edit("group_data/rt_hosts.yaml", "vm.swappiness: 1\n", "vm.swappiness: 10\n")
    assert settled.deploy().changed == 2
    assert out(machine, "cat /proc/sys/vm/swappiness") == "10"
    assert managed_files(machine) == before
    assert boot_id(machine) == boot


@pytest.fixture(scope="module")
def twin(machine: Machine) -> Iterator[Machine]:
    """The machine once more, as it would come up after a power cut: what is tried there leaves the other one alone."""
    root = PROJECT / ".lab-twin"
    for left in machines(root):
        if left.is_running():
            left.power_cut()
    shutil.rmtree(root, ignore_errors=True)
    found = machine.as_cut_off(root)
    found.up()
    yield found
    found.power_cut()
    shutil.rmtree(root)


@pytest.fixture
def twin_project(lab_project: Project, twin: Machine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh copy of the project whose inventory is that machine."""
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(twin.root))
    return lab_project


@pytest.mark.heavy
def test_isolated_cores(twin_project: Project, twin: Machine) -> None:
    """Another isolated core: boot loader, slices, application files and units, one reboot."""
    boot = boot_id(twin)
    before = managed_files(twin)
    twin_project.edit("group_data/rt_hosts.yaml", 'isolated: "2-3"', 'isolated: "3"')
    result = twin_project.deploy()
    assert result.ok, result.log
    assert changed_files(before, managed_files(twin)) == {
        "/etc/default/grub.d/60-rtinfra.cfg",
        "/etc/mxrc/cpu_affinity.json",
        "/etc/mxrc/numa_binding.json",
        "/etc/rtinfra/boot.conf",
        "/etc/rtinfra/tuning.conf",
        "/etc/systemd/system/init.scope.d/zz-rtinfra.conf",
        "/etc/systemd/system/mxrc-non-rt.service",
        "/etc/systemd/system/mxrc-rt.service",
        "/etc/systemd/system/rt.slice.d/zz-rtinfra.conf",
        "/etc/systemd/system/rtinfra-drift.service",
        "/etc/systemd/system/slice.d/zz-rtinfra.conf",
    }
    # A trial that ended without a verdict is tried again, as part of the same reboot.
    assert result.log.replace("reboot: a second attempt tells", "").count("reboot: ") == 1
    assert boot_id(twin) != boot
    assert out(twin, "cat /sys/fs/cgroup/cpuset.cpus.isolated") == "3"
    assert out(twin, "systemctl is-active mxrc-rt") == "active"
    # Booted on trial, proven, and what boots from now on when nobody chooses.
    good = out(twin, "sed -n 's/^# good //p' /boot/grub/rtinfra.cfg")
    assert f"rtinfra.trial={good}" in out(twin, "cat /proc/cmdline")
    assert "isolcpus=managed_irq,3 " in out(twin, f"cat /boot/rtinfra/{good}/words")
    assert "status=promoted" in out(twin, "cat /boot/rtinfra/state")
    assert out(twin, "grep -a ^saved_entry= /boot/grub/grubenv") == "saved_entry=rtinfra-good"
    assert twin_project.deploy().changed == 0
    words_of_others_are_kept(twin)


@pytest.mark.heavy
def test_isolated_cores_as_before(twin_project: Project, twin: Machine) -> None:
    """The way back is a change like any other: one reboot, and the files of before."""
    boot = boot_id(twin)
    assert twin_project.deploy().ok
    assert boot_id(twin) != boot
    assert out(twin, "cat /sys/fs/cgroup/cpuset.cpus.isolated") == "2-3"
    assert twin_project.deploy().changed == 0


def test_a_file_changed_by_hand_is_put_back(settled: Project, machine: Machine) -> None:
    """Content, mode and a removed file: exactly those come back."""
    before = managed_files(machine)
    machine.run(
        "echo 'vm.swappiness = 99' >>/etc/sysctl.d/zz-rtinfra.conf;"
        " chmod 0600 /etc/mxrc/failover_policy.json; rm /etc/security/limits.d/zz-rtinfra.conf"
    )
    result = settled.deploy()
    assert result.ok, result.log
    assert managed_files(machine) == before
    assert out(machine, "stat -c %a /etc/mxrc/failover_policy.json") == "644"
    for path in (
        "zz-rtinfra.conf: content",
        "failover_policy.json: mode 0600 -> 0644",
        "limits.d/zz-rtinfra.conf: new",
    ):
        assert path in result.log


@pytest.mark.heavy
def test_a_host_that_falls_silent_does_not_hold_up_the_run(settled: Project, machine: Machine) -> None:
    """It stands still in the middle of the run, and nothing closes its connection. The next run goes on."""
    settled.edit("group_data/rt_hosts.yaml", "vm.swappiness: 10", "vm.swappiness: 1")
    run = settled.pyinfra()
    assert run.stdout is not None
    said = ""
    while "Starting operation: packages" not in said:
        said = run.stdout.readline()
        assert said, "the run ended by itself"
    with machine.standing_still():
        left, _ = run.communicate(timeout=600)
    assert run.returncode != 0
    assert f"[{machine.name}] has been silent for 120 s" in left
    settled.edit("group_data/rt_hosts.yaml", "vm.swappiness: 1\n", "vm.swappiness: 10\n")
    assert settled.deploy().ok
    assert settled.deploy().changed == 0
