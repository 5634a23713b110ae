"""A host is held against its settings: every reason at once, each with its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roles.fleet import view_of
from roles.host import HostConfig
from roles.prerequisites import check_layout, check_roles
from rtinfra.config import Fleet, FleetHost, Problem
from rtinfra.cpu import CpuLayout, Topology
from rtinfra.facts.host import HostState
from tests.golden.plan import host_with
from tests.unit.telemetry_site import FakeSecrets, FakeStore

GOOD = HostState(
    distribution="debian-13",
    kernels=("6.12.117+deb13-amd64",),
    memory_mb=8000,
    topology=Topology.flat(4, nodes=2),
    free_mb={"/": 9000, "/boot": 500, "/var": 9000},
    has_grub=True,
    has_systemd=True,
    is_root=True,
    clock=1_800_000_000,
    has_unfinished_packages=False,
    codename="trixie",
    architecture="amd64",
    grub_filesystem="ext4",
    grub_devices=frozenset({"disk", "part"}),
    boot_loader="",
    asks_password=False,
    has_initramfs_tools=True,
    cgroup_filesystem="cgroup2fs",
)


def check_host(host: FleetHost[HostConfig], state: HostState) -> tuple[CpuLayout | None, list[Problem]]:
    """What a deploy does before anything else."""
    layout, problems = check_layout(host, state)
    view = view_of(Fleet({host.name: host}), host, FakeStore(), FakeSecrets(), layout=layout)
    return layout, [*problems, *check_roles(host, view, state)]


def reasons(state: HostState, **settings: object) -> str:
    layout, problems = check_host(host_with(settings), state)
    errors = [problem for problem in problems if problem.severity == "error"]
    # Without a layout nothing can be rendered: there must be an error then, so that the run ends.
    assert errors or layout is not None
    return "\n".join(map(str, errors))


def test_a_good_host() -> None:
    layout, problems = check_host(host_with({}), GOOD)
    assert problems == []
    assert layout is not None
    assert layout.isolated_list == "2-3"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_root": False}, "is not root"),
        ({"has_systemd": False}, "does not run systemd"),
        ({"clock": 0}, "has a clock that says"),
        ({"distribution": "debian-11"}, "there is no RT kernel source for it"),
        ({"memory_mb": 2000}, "this host has 2000"),
        ({"has_grub": False}, "has no GRUB"),
        ({"grub_filesystem": "btrfs"}, "has /boot/grub on btrfs, where GRUB cannot write"),
        (
            {"grub_devices": frozenset({"disk", "part", "lvm"})},
            "has /boot/grub on ext4 on lvm, where GRUB cannot write",
        ),
        ({"grub_devices": frozenset({"disk", "part", "raid1"})}, "ext4 on raid1"),
        ({"architecture": "arm64"}, "is an arm64 machine"),
        ({"boot_loader": "systemd-boot 257.9"}, "but systemd-boot 257.9 started it"),
        ({"asks_password": True}, "has a GRUB that asks for a password"),
        ({"has_initramfs_tools": False}, "has no initramfs-tools"),
        ({"cgroup_filesystem": "tmpfs"}, "has its control groups on tmpfs"),
        ({"free_mb": {"/": 10, "/boot": 500}}, "MB must be free in /"),
        ({"free_mb": {"/": 9000, "/boot": 5}}, "MB must be free in /boot"),
        ({"topology": Topology.flat(2)}, "cores are needed, this host has 2"),
        ({"topology": Topology.flat(4)}, "the host has no NUMA node 1"),
    ],
)
def test_refusals(change: dict[str, object], words: str) -> None:
    assert words in reasons(replace(GOOD, **change))  # type: ignore[arg-type]


def test_everything_wrong_is_said_at_once() -> None:
    text = reasons(replace(GOOD, has_grub=False, memory_mb=1, topology=Topology.flat(2)))
    for words in ("no GRUB", "this host has 1", "cores are needed"):
        assert words in text


def test_a_stated_count_must_be_true() -> None:
    assert "8 CPUs" not in reasons(GOOD)
    assert "this host has 4 online" in reasons(GOOD, cpu={"count": 8})


def test_each_problem_cites_the_file_that_decides() -> None:
    assert "group_data/rt_hosts.yaml:" in reasons(replace(GOOD, memory_mb=1))


def test_a_preferred_node_may_hold_some_of_the_cores_only() -> None:
    """Three housekeeping cores over two nodes: the non-RT process only prefers its node."""
    assert reasons(GOOD, cpu={"isolated": "3"}) == ""


def test_one_isolated_core_is_a_warning() -> None:
    _, problems = check_host(host_with({"cpu": {"isolated": "3"}}), GOOD)
    assert [(problem.severity, problem.key) for problem in problems] == [("warning", "cpu.isolated")]


def test_a_small_boot_partition_is_no_reason_once_the_kernel_is_there() -> None:
    small = replace(GOOD, free_mb={"/": 10, "/boot": 5})
    assert "MB must be free" in reasons(small)
    assert reasons(replace(small, kernels=("6.12.117+deb13-rt-amd64",))) == ""


def test_a_strict_node_must_hold_all_cores() -> None:
    assert "rt_app.rt_process.numa_node" in reasons(GOOD, cpu={"isolated": "1,3"})
