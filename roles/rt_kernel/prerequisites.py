"""What a host must have before a real-time kernel is put on it (RT-1)."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch

from roles.rt_kernel.model import RtKernelSettings
from roles.shape import FleetView
from roles.shared import PREREQUISITES
from rtinfra.config import Finding
from rtinfra.facts.host import HostState

# GRUB writes its environment block in place, by the blocks it has on a plain disk (GRUB manual, "Environment block").
_WRITABLE_BY_GRUB = frozenset({"ext2", "ext3", "ext4", "xfs", "vfat"})
_PLAIN_DEVICES = frozenset({"disk", "part", "loop"})
# dpkg's names of what the kernels and the trial boot are made for.
_ARCHITECTURES = frozenset({"amd64"})


def refusals(settings: RtKernelSettings, view: FleetView, state: HostState) -> Iterator[Finding]:
    """Return why a host cannot have a real-time kernel: its distribution, cores, memory, boot loader, free space."""
    needed = view.required(PREREQUISITES)
    sources = settings.sources
    if state.distribution not in sources:
        yield Finding(
            "rt_kernel.sources",
            state.distribution,
            "is what this host runs, and there is no RT kernel source for it",
            f"use one of {', '.join(sorted(sources))}, or add a section for it",
        )
    cores = state.topology.core_count(state.topology.online)
    if cores < needed.cores:
        yield Finding(
            "prerequisites.cores",
            needed.cores,
            f"cores are needed, this host has {cores}",
            "use a host with more cores: two for real-time work and two for everything else",
        )
    if state.memory_mb < needed.memory_mb:
        yield Finding(
            "prerequisites.memory_mb",
            needed.memory_mb,
            f"MB of memory are needed, this host has {state.memory_mb}",
            "use a host with more memory",
        )
    if not state.has_grub:
        yield Finding(
            "host",
            view.host,
            "has no GRUB (no update-grub or no /boot/grub): its kernel command line cannot be set",
            "install GRUB on the host: apt-get install grub-pc, or grub-efi-amd64 on a UEFI machine",
        )
    if state.has_grub:
        yield from _boot_environment(view, state)
    yield from _unfit(view, state)
    # Space is needed to install a kernel; a host that has it is not refused for a small /boot.
    patterns = [source.image_pattern for name, source in sources.items() if name == state.distribution]
    if any(fnmatch(kernel, pattern) for kernel in state.kernels for pattern in patterns):
        return
    for path, key, required in (
        ("/boot", "rt_kernel.headroom_boot_mb", settings.headroom_boot_mb),
        ("/", "rt_kernel.headroom_root_mb", settings.headroom_root_mb),
    ):
        free = state.free_mb.get(path, 0)
        if free < required:
            yield Finding(
                key,
                required,
                f"MB must be free in {path} on this host, there are {free}",
                f"remove what is not needed there: `du -xh --max-depth=2 {path} | sort -h | tail`",
            )


def _unfit(view: FleetView, state: HostState) -> Iterator[Finding]:
    """Refuse what would only show when half of a deploy is done."""
    if state.architecture not in _ARCHITECTURES:
        yield Finding(
            "host",
            view.host,
            f"is an {state.architecture} machine; kernels and trial boot are made for {', '.join(_ARCHITECTURES)}",
            "take it out of the group rt_hosts",
        )
    if state.has_grub and state.boot_loader:
        yield Finding(
            "host",
            view.host,
            f"has GRUB's files, but {state.boot_loader} started it: what is written for GRUB would never be read",
            "make GRUB the boot loader (`grub-install`, then choose it in the firmware), or remove the other one;"
            " boot, then deploy again",
        )
    if state.asks_password:
        yield Finding(
            "host",
            view.host,
            "has a GRUB that asks for a password before it starts the running kernel: the host would not come back by"
            " itself",
            "give the entries --unrestricted (CLASS in /etc/grub.d/10_linux), run `update-grub`, then deploy again",
        )
    if not state.has_initramfs_tools:
        yield Finding(
            "host",
            view.host,
            "has no initramfs-tools (with dracut, for example): the watchdog could not be armed before the system runs,"
            " and no initrd could be checked",
            "apt-get install initramfs-tools on the host, which removes dracut; boot, then deploy again",
        )
    if state.cgroup_filesystem != "cgroup2fs":
        yield Finding(
            "host",
            view.host,
            f"has its control groups on {state.cgroup_filesystem or 'nothing'}: cores cannot be kept for one group",
            "remove systemd.unified_cgroup_hierarchy=0 and cgroup_no_v1= from the kernel's command line, and boot",
        )


def _boot_environment(view: FleetView, state: HostState) -> Iterator[Finding]:
    """Refuse a /boot/grub that GRUB cannot write to: a kernel that hangs would be tried for ever."""
    place, advice = "", "put /boot on a partition of its own with ext4, without LVM, RAID or encryption"
    if state.grub_filesystem and state.grub_filesystem not in _WRITABLE_BY_GRUB:
        place = state.grub_filesystem
    elif layers := sorted(state.grub_devices - _PLAIN_DEVICES):
        place = " on ".join([state.grub_filesystem, *layers])
    if place:
        reason = f"has /boot/grub on {place}, where GRUB cannot write: a change of the kernel could not be tried safely"
        yield Finding("host", view.host, reason, advice)
