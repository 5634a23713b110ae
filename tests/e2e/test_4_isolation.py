"""The real-time cores belong to the real-time application: nobody else gets them, in whatever way he asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtinfra import verify
from rtinfra.lab import Machine
from tests.e2e.conftest import INVENTORY
from tests.project import Project

ISOLATED = {2, 3}
SLICE = "/sys/fs/cgroup/rt.slice"
# A loop without end that asks for the isolated cores first. Its name is what it is found by.
PROGRAM = "/run/busyloop"
LOOP = f"""cat >{PROGRAM} <<'END'
#!/bin/sh
[ -z "${{1-}}" ] || echo 0 >"$1/cgroup.procs"
taskset -pc 2-3 $$ >/dev/null 2>&1
taskset -pc 0-3 $$ >/dev/null 2>&1
while :; do :; done
END
chmod 755 {PROGRAM}; mount -o remount,exec /run
"""
START = "systemd-run -q --collect --unit=busyloop"
IN_MACHINE_SLICE = f"{START} --slice=machine.slice {PROGRAM}"
OF_A_USER = f"{START} --slice=user.slice --uid=nobody {PROGRAM}"
# Groups that systemd does not know, as container runtimes without it make them.
IN_A_FOREIGN_GROUP = (
    "mkdir -p /sys/fs/cgroup/foreign; echo 0-3 >/sys/fs/cgroup/foreign/cpuset.cpus;"
    f" {START} {PROGRAM} /sys/fs/cgroup/foreign"
)
IN_A_CONTAINER = (
    "mkdir -p /sys/fs/cgroup/docker/0123; echo +cpuset >/sys/fs/cgroup/docker/cgroup.subtree_control;"
    " echo 2-3 >/sys/fs/cgroup/docker/0123/cpuset.cpus;"
    f" {START} unshare --pid --fork --mount-proc {PROGRAM} /sys/fs/cgroup/docker/0123"
)
WITH_ANOTHERS_DROP_IN = (
    "for u in system.slice foreign.slice; do mkdir -p /run/systemd/system/$u.d;"
    " printf '[Slice]\\nAllowedCPUs=0-3\\n' >/run/systemd/system/$u.d/99-other.conf; done; systemctl daemon-reload;"
    f" {START} --slice=foreign.slice -p AllowedCPUs=0-3 {PROGRAM}"
)
# Whoever gives systemd another value without a file, as `set-property` does.
WITH_ANOTHERS_PROPERTY = f"systemctl set-property --runtime system.slice AllowedCPUs=0-3; {START} {PROGRAM}"
CLEAN_UP = (
    "pkill -9 -x busyloop; sleep 1; cd /sys/fs/cgroup; rmdir foreign docker/0123 docker 2>/dev/null;"
    " rm -rf /run/systemd/system/system.slice.d /run/systemd/system/foreign.slice.d"
    f" /run/systemd/system.control/system.slice.d {PROGRAM}; systemctl daemon-reload"
)


def out(machine: Machine, command: str) -> str:
    return machine.run(command).stdout.strip()


def cores_of_loops(machine: Machine, seconds: int) -> set[int]:
    """Look every tenth of a second on which core each loop is, as proc_pid_stat(5) says in its field 39."""
    script = (
        f"for i in $(seq {seconds * 10}); do for p in $(pgrep -x busyloop); do"
        " read -r line </proc/$p/stat && set -- ${line##*) } && shift 36 && echo $1; done; sleep 0.1; done | sort -u"
    )
    found = {int(line) for line in out(machine, script).split()}
    assert found, "no loop runs"
    return found


def partition(machine: Machine) -> tuple[str, str, str]:
    """What the kernel says of the slice, of its cores, of everybody's."""
    text = out(
        machine, f"cat {SLICE}/cpuset.cpus.partition {SLICE}/cpuset.cpus.effective {SLICE}/../cpuset.cpus.effective"
    )
    kind, own, everybody = text.splitlines()
    return kind, own, everybody


@contextmanager
def looping(machine: Machine, command: str) -> Iterator[None]:
    try:
        machine.run(LOOP + command)
        yield
    finally:
        machine.run(CLEAN_UP, check=False)


def assert_isolated(machine: Machine, within: int = 5) -> None:
    found = None
    for _ in range(within):
        found = partition(machine)
        if found == ("isolated", "2-3", "0-1"):
            return
        machine.run("sleep 1")
    pytest.fail(f"the partition is {found}")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(IN_MACHINE_SLICE, id="machine.slice", marks=pytest.mark.heavy),
        pytest.param(OF_A_USER, id="user", marks=pytest.mark.heavy),
        pytest.param(IN_A_FOREIGN_GROUP, id="foreign group", marks=pytest.mark.heavy),
        pytest.param(IN_A_CONTAINER, id="container", marks=pytest.mark.heavy),
        pytest.param(WITH_ANOTHERS_DROP_IN, id="drop-in"),
    ],
)
def test_a_busy_loop_never_gets_there(settled: Project, machine: Machine, command: str) -> None:
    with looping(machine, command):
        assert not cores_of_loops(machine, seconds=1) & ISOLATED
        assert_isolated(machine)


def test_who_takes_the_cores_is_named_and_loses_them(settled: Project, machine: Machine) -> None:
    """Linux before 7.0 ends the partition at once when a slice beside ours asks for its cores."""
    since = out(machine, "date '+%F %T'")
    with looping(machine, WITH_ANOTHERS_PROPERTY):
        assert_isolated(machine)
        assert not cores_of_loops(machine, seconds=1) & ISOLATED
        told = out(machine, f"journalctl -u rtinfra-partition -o cat --since '{since}'")
        assert out(machine, "uname -r").startswith("7.") or "system.slice asks for the cores 0-3" in told, told


@pytest.mark.heavy
def test_it_outlasts_reload_restart_and_isolate(settled: Project, machine: Machine) -> None:
    for command in (
        "systemctl daemon-reload",
        "systemctl daemon-reexec",
        "systemctl restart mxrc-rt.service",
        "systemctl isolate multi-user.target",
        "systemctl restart rt.slice",
    ):
        machine.run(command, timeout=120)
        assert_isolated(machine)
    machine.run("for i in $(seq 60); do systemctl is-active -q mxrc-rt && exit 0; sleep 1; done; exit 1", timeout=90)


@pytest.mark.heavy
def test_cores_that_went_away_and_came_back(settled: Project, machine: Machine) -> None:
    """The word `isolated` stands there although everybody has a core: all files are compared."""
    cpu = "/sys/devices/system/cpu"
    machine.run(f"echo 0 >{cpu}/cpu3/online; sleep 4; echo 1 >{cpu}/cpu3/online; sleep 5", timeout=60)
    assert_isolated(machine, within=10)
    # The network card chose anew where to deliver.
    interrupts = out(
        machine, "cd /proc/irq; for i in [0-9]*; do [ ! -e $i/virtio*-input* ] || cat $i/smp_affinity_list; done"
    )
    assert set(interrupts.split()) <= {"0-1", "0", "1"}


def test_a_kernel_thread_that_was_put_there_is_named(settled: Project, machine: Machine, tmp_path: Path) -> None:
    thread = out(machine, "pgrep -x kauditd")
    group = f"{SLICE}/planted"
    machine.run(f"mkdir {group}; echo {thread} >{group}/cgroup.procs && taskset -pc 2 {thread}")
    try:
        (found,) = verify.run(INVENTORY, controls=["RT-10.60"], output=tmp_path).results
        assert found.status is verify.Status.FAIL
        assert "kauditd on 2" in found.actual
    finally:
        machine.run(f"echo {thread} >/sys/fs/cgroup/cgroup.procs; taskset -pc 0-1 {thread}; rmdir {group}")
