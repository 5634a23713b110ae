"""What a host must have before anything is changed on it (RT-1), and the CPU model against its topology."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch

from roles.host import RT_GROUP, HostConfig, RtHostConfig
from roles.site import MirrorPlace
from rtinfra.config import FleetHost, Problem
from rtinfra.cpu import CpuFinding, CpuLayout, check_node_binding, resolve_layout
from rtinfra.facts.host import HostState
from rtinfra.facts.mirror import MirrorState

#: Before this moment (2025-01-01, in seconds since the epoch) a clock is certainly wrong: apt would call
#: every signature "not valid yet".
_EARLIEST_CLOCK = 1_735_689_600
_WANTED_RT_CORES = 2
# GRUB writes its environment block in place, by the blocks it has on a plain disk (GRUB manual, "Environment block").
_WRITABLE_BY_GRUB = frozenset({"ext2", "ext3", "ext4", "xfs", "vfat"})
_PLAIN_DEVICES = frozenset({"disk", "part", "loop"})
_MOMENT = "%Y-%m-%d %H:%M:%S UTC"


# What apt lets a release file be ahead of the clock, Acquire::Max-FutureTime in apt.conf(5).
_CLOCK_TOLERANCE = timedelta(seconds=10)


def check_host(
    fleet_host: FleetHost[HostConfig],
    state: HostState,
    place: MirrorPlace | None = None,
    mirror: MirrorState | None = None,
) -> tuple[CpuLayout | None, list[Problem]]:
    """Hold one host against its settings; `place` and `mirror` are the mirror it uses or serves, and what that serves.

    Returns the CPU layout (None when the host is not real-time, or its layout is refused) and everything that
    is wrong, errors and warnings, each with the file and line of the setting concerned.
    """
    problems = list(_general(fleet_host, state))
    if place is not None and mirror is not None:
        problems += _mirror(fleet_host, state, place, mirror)
    if RT_GROUP not in fleet_host.groups:
        return None, problems
    config = fleet_host.config.rt
    problems += _resources(fleet_host, config, state)
    layout, cpu_problems = _cpu(fleet_host, config, state)
    return layout, [*problems, *cpu_problems]


def _general(fleet_host: FleetHost[HostConfig], state: HostState) -> Iterator[Problem]:
    if not state.is_root:
        yield fleet_host.problem(
            "ssh.user", fleet_host.ssh.user, "is not root on this host", "log in as root, or pass --sudo"
        )
    if not state.has_systemd:
        yield fleet_host.problem("host", fleet_host.name, "does not run systemd", None)
    if state.clock < _EARLIEST_CLOCK:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            f"has a clock that says {state.clock} seconds since 1970, long ago",
            "set it: `date -s '2026-01-31 12:00'` on the host, then `hwclock --systohc`",
        )


def _mirror(
    fleet_host: FleetHost[HostConfig], state: HostState, place: MirrorPlace, mirror: MirrorState
) -> Iterator[Problem]:
    if mirror.release is None:
        yield fleet_host.problem(
            "mirror_server.directory" if fleet_host.name == place.host else "mirror_client.server",
            place.directory,
            f"has no published release on {place.host}, so there is nothing to install from",
            f"on {place.host} run, with RTINFRA_MIRROR_DIR={place.directory}: `rtinfra mirror import` with the bundle "
            "that was carried in, then `rtinfra mirror publish`",
        )
        return
    index, clock = mirror.release.index, datetime.fromtimestamp(state.clock, UTC)
    if clock + _CLOCK_TOLERANCE < index.date:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            f"has a clock that says {clock:{_MOMENT}}, and the mirror's release is of {index.date:{_MOMENT}}: "
            "apt would call it not valid yet",
            "set the clock on the host, for example `date -u -s '2026-01-31 12:00'`, then `hwclock --systohc`",
        )
    if index.valid_until is not None and index.valid_until < clock:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            f"has a clock that says {clock:{_MOMENT}}, and the mirror's release {mirror.release.name} was valid "
            f"until {index.valid_until:{_MOMENT}}: apt refuses what is expired",
            f"on {place.host} run `rtinfra mirror publish --again`, which signs it anew, or carry in a newer bundle; "
            "or set the clock, if that is what is wrong",
        )
    if state.codename and state.codename != index.suite:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            f"runs {state.codename}, and the mirror has packages of {index.suite}: they would replace its system",
            f"use a mirror whose lock was made for {state.codename}, or install the host with {index.suite}",
        )
    if state.architecture and state.architecture not in index.architectures:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            f"is {state.architecture}, and the mirror has packages for {' '.join(index.architectures) or 'none'}",
            f"use a mirror whose lock was made for {state.architecture}",
        )


def _resources(fleet_host: FleetHost[HostConfig], config: RtHostConfig, state: HostState) -> Iterator[Problem]:
    sources = config.rt_kernel.sources
    if state.distribution not in sources:
        yield fleet_host.problem(
            "rt_kernel.sources",
            state.distribution,
            "is what this host runs, and there is no RT kernel source for it",
            f"use one of {', '.join(sorted(sources))}, or add a section for it",
        )
    cores = state.topology.core_count(state.topology.online)
    if cores < config.prerequisites.cores:
        yield fleet_host.problem(
            "prerequisites.cores",
            config.prerequisites.cores,
            f"cores are needed, this host has {cores}",
            "use a host with more cores: two for real-time work and two for everything else",
        )
    if state.memory_mb < config.prerequisites.memory_mb:
        yield fleet_host.problem(
            "prerequisites.memory_mb",
            config.prerequisites.memory_mb,
            f"MB of memory are needed, this host has {state.memory_mb}",
            "use a host with more memory",
        )
    if not state.has_grub:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            "has no GRUB (no update-grub or no /boot/grub): its kernel command line cannot be set",
            "install GRUB on the host: apt-get install grub-pc, or grub-efi-amd64 on a UEFI machine",
        )
    if state.has_grub:
        yield from _boot_environment(fleet_host, state)
    # Space is needed to install a kernel; a host that has it is not refused for a small /boot.
    patterns = [source.image_pattern for name, source in sources.items() if name == state.distribution]
    if any(fnmatch(kernel, pattern) for kernel in state.kernels for pattern in patterns):
        return
    for path, key in (("/boot", "rt_kernel.headroom_boot_mb"), ("/", "rt_kernel.headroom_root_mb")):
        wanted = getattr(config.rt_kernel, key.rpartition(".")[2])
        free = state.free_mb.get(path, 0)
        if free < wanted:
            yield fleet_host.problem(
                key,
                wanted,
                f"MB must be free in {path} on this host, there are {free}",
                f"remove what is not needed there: `du -xh --max-depth=2 {path} | sort -h | tail`",
            )


def _boot_environment(fleet_host: FleetHost[HostConfig], state: HostState) -> Iterator[Problem]:
    """GRUB has to clear the mark of a trial boot before it boots: otherwise a kernel that hangs is tried for ever."""
    place, advice = "", "put /boot on a partition of its own with ext4, without LVM, RAID or encryption"
    if state.grub_filesystem and state.grub_filesystem not in _WRITABLE_BY_GRUB:
        place = state.grub_filesystem
    elif layers := sorted(state.grub_devices - _PLAIN_DEVICES):
        place = " on ".join([state.grub_filesystem, *layers])
    if place:
        reason = f"has /boot/grub on {place}, where GRUB cannot write: a change of the kernel could not be tried safely"
        yield fleet_host.problem("host", fleet_host.name, reason, advice)


def _few_cores(isolated: str, layout: CpuLayout) -> Iterator[CpuFinding]:
    """RT-1 asks for two real-time cores; one is an operator's choice, but not one to make unawares."""
    if layout.topology.core_count(layout.isolated) < _WANTED_RT_CORES:
        reason = f"isolates one core; {_WANTED_RT_CORES} are what the application is made for (RT-1)"
        yield CpuFinding("warning", "cpu.isolated", isolated, reason, "isolate another core of the same NUMA node")


def _cpu(
    fleet_host: FleetHost[HostConfig], config: RtHostConfig, state: HostState
) -> tuple[CpuLayout | None, list[Problem]]:
    cpu = config.cpu
    if cpu.count is not None and cpu.count != len(state.topology.online):
        wrong = fleet_host.problem(
            "cpu.count",
            cpu.count,
            f"CPUs are expected, this host has {len(state.topology.online)} online",
            "correct the number, or find out where the CPUs went (`lscpu` on the host)",
        )
        return None, [wrong]
    layout, findings = resolve_layout(cpu.isolated, cpu.housekeeping, state.topology)
    if layout is not None:
        findings += _few_cores(cpu.isolated, layout)
        for key, cpus in (("rt_process", layout.isolated), ("non_rt_process", layout.housekeeping)):
            process = getattr(config.rt_app, key)
            on_node = cpus & state.topology.nodes.get(process.numa_node, frozenset())
            # A binding that is only preferred holds when some of the cores are there.
            bound = cpus if process.strict_binding else on_node or cpus
            findings += check_node_binding(f"rt_app.{key}.numa_node", bound, process.numa_node, state.topology)
    return layout, [fleet_host.cite(found) for found in findings]
