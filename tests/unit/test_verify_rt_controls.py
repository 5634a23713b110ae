"""Controls of a real-time host: the recorded one passes, and each wrong value is found by the control it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rtinfra.verify import Report, Status, run
from tests.record_looks import rt_host

Verify = Callable[..., Report]
_KERNEL, _WORKER = 0x00200000, 0x00000020
RT = [f"RT-{number}" for number in range(1, 13)]
#: What the recorded host, an emulated one, has not.
NOT_THERE = {"RT-10.32", "RT-10.41", "RT-10.42", "RT-10.43"}


@pytest.fixture
def verify(inventory: Path, fake_ssh: Path, tmp_path: Path, in_process: None) -> Verify:
    """Verify the recorded host after replacing text in its answer."""

    def look(*changes: tuple[str, str], controls: list[str]) -> Report:
        text = rt_host()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "answer").write_text(text, encoding="utf-8")
        return run(inventory, hosts=["robot"], controls=controls, output=tmp_path / "reports")

    return look


def section(name: str) -> str:
    """One section of the recorded answer."""
    return f"@@{name}\n" + rt_host().partition(f"@@{name}\n")[2].partition("\n@@")[0]


def with_thread(name: str, cpus: str, flags: int = _KERNEL) -> tuple[tuple[str, str], ...]:
    """What one more thread changes in the answer."""
    fields = " ".join(["0"] * 5 + [str(flags)] + ["0"] * 29)
    return (
        ("@@thread_stat\n", f"@@thread_stat\n/proc/9/task/9/stat\x009 ({name}) S {fields} 0 0 0\n"),
        ("@@thread_status\n", f"@@thread_status\n/proc/9/task/9/status\0Cpus_allowed_list:\t{cpus}\n"),
    )


def statuses(report: Report) -> dict[str, Status]:
    return {one.control: one.status for one in report.results}


def test_the_recorded_host_passes(verify: Verify) -> None:
    report = verify(controls=[*RT, "L-2"])
    assert {control for control, status in statuses(report).items() if status is not Status.PASS} - NOT_THERE == {
        # An emulated machine is no proof of latency.
        "RT-11.3",
        "RT-11.4",
    }
    assert not report.failed
    assert len(report.results) > 110


@pytest.mark.parametrize(
    ("old", "new", "control"),
    [
        # 4 kB are locked.
        ("Locked:            18936 kB", "Locked:                4 kB", "RT-10.19"),
        ("Locked:            18936 kB\n", "", "RT-10.19"),
        # The policy of one mapping of many is right.
        (section("numa_maps"), section("numa_maps").replace(" bind:1 ", " default ").replace("default", "bind:1", 1)
            , "RT-5.4"),
        # The counter stands still; moves once; was never told.
        ('cycle_count_total{process="rt_process"} 26752', 'cycle_count_total{process="rt_process"} 26554', "RT-9.6"),
        ('cycle_count_total{process="rt_process"} 26752', 'cycle_count_total{process="rt_process"} 26555', "RT-9.6"),
        ('cycle_count_total{process="rt_process"} 26752', 'other{process="rt_process"} 26752', "RT-9.6"),
        # The loop turns four times as fast as it should.
        ('cycle_count_total{process="rt_process"} 26752', 'cycle_count_total{process="rt_process"} 27500', "RT-9.6"),
        ('health_status{process="rt_process"} 2', 'health_status{process="rt_process"} 4', "RT-9.10"),
        ('health_status{process="non_rt_process"} 2', 'health_status{process="non_rt_process"} 4', "RT-9.10"),
        ('sampling_rate{process="rt_process"} 0.1', 'sampling_rate{process="rt_process"} 0', "RT-9.10"),
        ('numa_node="1"} 99.31', 'numa_node="1"} 0', "RT-9.10"),
        # Another group has a core; the partition ended; the cores are isolated by nobody's partition; the watcher died.
        ("@@slice_values\n", "@@slice_values\n/sys/fs/cgroup/foreign/cpuset.cpus.effective\x000-3\n", "RT-10.62"),
        ("cpuset.cpus.partition\0isolated", "cpuset.cpus.partition\0isolated invalid", "RT-10.61"),
        ("/sys/fs/cgroup/cpuset.cpus.effective\x000-1", "/sys/fs/cgroup/cpuset.cpus.effective\x000-3", "RT-10.61"),
        ("/sys/fs/cgroup/cpuset.cpus.isolated\x002-3", "/sys/fs/cgroup/cpuset.cpus.isolated\x00", "RT-10.1"),
        ("Id=rtinfra-partition.service\nLoadState=loaded\nActiveState=active",
            "Id=rtinfra-partition.service\nLoadState=loaded\nActiveState=failed", "RT-10.63"),
        # Others' files that are read after ours.
        *(("@@others_files\n", f"@@others_files\n{path}\0{text}\n", "RT-10.64") for path, text in (
            ("/etc/sysctl.d/zzz-kubelet.conf", "kernel.panic = 10"),
            ("/etc/sysctl.conf", "-vm/swappiness=60"),
            ("/etc/systemd/system.conf.d/zzz.conf", "RuntimeWatchdogSec=off"),
            ("/etc/security/limits.d/zzz.conf", "* hard memlock 64"),
            ("/etc/udev/rules.d/zzz.rules", 'KERNEL=="cpu_dma_latency", MODE="0600"'),
        )),
        # Programs that keep the clock going, whatever their names.
        *(("@@clock_keepers\n", f"@@clock_keepers\n{line}\n", "RT-1.25") for line in (
            "9 /usr/sbin/phc2sys -s enp3s0 -O 0",
            "9 /usr/sbin/chronyd -u _chrony -f /var/run/timemaster/chrony.conf",
            "9 /usr/sbin/ptp4l -S -i enp3s0",
        )),
        (" (ksoftirqd/", " (softirqd/", "RT-10.35"),
        (" (ktimers/", " (timers/", "RT-10.36"),
        (" (rcuc/", " (rcu/", "RT-10.37"),
        (" (rcub/", " (rcu/", "RT-10.38"),
        ("numactl installed", "numactl config-files", "RT-1.22"),
        ("linux-image-rt-amd64 installed", "linux-image-amd64 installed", "RT-1.22"),
        ("python3 installed", "python3 half-configured", "RT-1.22"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_found(verify: Verify, old: str, new: str, control: str) -> None:
    (found,) = verify((old, new), controls=[control]).results
    assert found.status is Status.FAIL
    assert found.actual, f"expected and actual are told: {found.note}"


@pytest.mark.parametrize(
    ("section", "line", "control"),
    [
        # Ours wins, or says the same, or is about something else.
        ("others_files", "/etc/sysctl.d/90-kubelet.conf\0kernel.panic = 10", "RT-10.64"),
        ("others_files", "/etc/sysctl.d/zzz-same.conf\0kernel.panic=20", "RT-10.64"),
        ("others_files", "/etc/sysctl.d/zzz-other.conf\0net.ipv4.ip_forward=1", "RT-10.64"),
        ("others_files", "/etc/security/limits.d/zzz.conf\0* soft nofile 4096", "RT-10.64"),
        # It keeps a network card's clock.
        ("clock_keepers", "9 /usr/sbin/ptp4l -i enp3s0", "RT-1.25"),
    ],
)
def test_what_does_no_harm_is_none(verify: Verify, section: str, line: str, control: str) -> None:
    (found,) = verify((f"@@{section}\n", f"@@{section}\n{line}\n"), controls=[control]).results
    assert found.status is Status.PASS, found.actual


@pytest.mark.parametrize(
    ("policy", "priority", "cpus", "status"),
    [
        (2, 99, "0-3", Status.FAIL),
        (1, 90, "2", Status.FAIL),
        # SCHED_DEADLINE has no priority, and goes first.
        (6, 0, "3", Status.FAIL),
        # multipathd, where it can take no core of ours.
        (2, 99, "0-1", Status.PASS),
        (1, 89, "0-3", Status.PASS),
        (0, 0, "0-3", Status.PASS),
    ],
)
def test_a_rival_is_one_that_may_run_there(
    verify: Verify, policy: int, priority: int, cpus: str, status: Status
) -> None:
    (stat, allowed) = with_thread("multipathd", cpus, flags=0)
    stat = (stat[0], stat[1].replace(" 0 0 0\n", f" 0 {priority} {policy}\n"))
    (found,) = verify(stat, allowed, controls=["RT-10.18"]).results
    assert found.status is status


@pytest.mark.parametrize(
    ("name", "cpus", "flags"),
    [
        ("kswapd0", "2", _KERNEL),
        ("kswapd0", "0-3", _KERNEL),
        ("kswapd1", "2", _KERNEL),
        ("kcompactd9", "2-3", _KERNEL),
        # Bound to a core that it is not for, or to more than one.
        ("ksoftirqd/0", "2", _KERNEL),
        ("migration/3", "2-3", _KERNEL),
        # An interrupt that can be moved.
        ("irq/32-virtio1-input.0", "2", _KERNEL),
        ("sugov:2", "2-3", _KERNEL),
        ("kworker/u8:1-events", "0-3", _KERNEL | _WORKER),
        ("kworker/R-mm_percpu_wq", "0-3", _KERNEL),
    ],
)
def test_a_kernel_thread_without_a_reason_is_found(verify: Verify, name: str, cpus: str, flags: int) -> None:
    (found,) = verify(*with_thread(name, cpus, flags), controls=["RT-10.60"]).results
    assert found.status is Status.FAIL
    assert f"{name} on " in found.actual


@pytest.mark.parametrize(
    ("name", "cpus", "flags"),
    [
        *((f"{name}/2", "2", _KERNEL) for name in ("cpuhp", "idle_inject", "irq_work", "backlog_napi")),
        ("kworker/2:1H-kblockd", "2", _KERNEL | _WORKER),
        ("kworker/3:0-mm_percpu_wq", "3", _KERNEL | _WORKER),
        # Cores 2 and 3 are the whole of node 1.
        *((name, "2-3", _KERNEL) for name in ("kswapd1", "kcompactd1")),
        # A queue of the disk that belongs to core 2, and is placed by the kernel alone.
        ("irq/25-virtio0-req.0", "2", _KERNEL),
        # Rescuers: by their name since 6.9, by their flag before.
        ("kworker/R-mm_percpu_wq", "0-3", _KERNEL | _WORKER),
        ("mm_percpu_wq", "0-7", _KERNEL | _WORKER),
        ("kworker/u8:0-events", "0-1", _KERNEL | _WORKER),
        ("kauditd", "0-1", _KERNEL),
    ],
)
def test_a_kernel_thread_that_has_to_be_there_is_none(verify: Verify, name: str, cpus: str, flags: int) -> None:
    (found,) = verify(*with_thread(name, cpus, flags), controls=["RT-10.60"]).results
    assert found.status is Status.PASS
