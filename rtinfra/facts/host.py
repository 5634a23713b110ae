"""The host as it is before anything is changed: what the prerequisite checks look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.cpu import Topology, parse_cpu_list
from rtinfra.facts import output_sections, packet_filter
from rtinfra.facts.output_sections import SectionsFact
from rtinfra.facts.packet_filter import PacketFilterState

_NUMBERED = re.compile(r"^/sys/devices/system/(?:cpu/cpu|node/node)(?P<number>\d+)/\S+:(?P<list>\S+)$")

# Boot loader interface, systemd.io/BOOT_LOADER_INTERFACE.
LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
GRUB_FOLDER = "/boot/grub"

#: One command: the whole script costs one round trip.
COMMANDS = {
    "os": '. /etc/os-release; echo "$ID-$VERSION_ID"',
    "codename": '. /etc/os-release; echo "$VERSION_CODENAME"',
    "architecture": "dpkg --print-architecture",
    "kernels": "ls -1 /boot | sed -n 's/^vmlinuz-//p'",
    "memory_kb": "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo",
    "online": "cat /sys/devices/system/cpu/online",
    # grep, not the shell's `read`: dash reads single bytes, which these files of sysfs answer with nothing.
    "siblings": "grep -H . /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list",
    "nodes": "grep -H . /sys/devices/system/node/node[0-9]*/cpulist",
    # index2 is the second-level cache.
    "caches": "grep -sH . /sys/devices/system/cpu/cpu[0-9]*/cache/index2/shared_cpu_list",
    # Of Intel's processors with two kinds of cores; of ARM's, a number that is higher for faster ones.
    "core_kinds": (
        "grep -sH . /sys/devices/cpu_core/cpus /sys/devices/cpu_atom/cpus /sys/devices/cpu_lowpower/cpus "
        "|| grep -sH . /sys/devices/system/cpu/cpu[0-9]*/cpu_capacity"
    ),
    "free_mb": (
        'for d in / /boot /var; do set -- $(stat -f -c "%a %S" "$d"); echo "$d $(( $1 * $2 / 1048576 ))"; done'
    ),
    "grub": "command -v update-grub >/dev/null && test -d /boot/grub && echo yes",
    # What started this boot: its name, where it leaves one (UTF-16 behind four bytes, without an end of line, which the
    # next section needs); and whether it speaks as GRUB.
    "loader": f"tr -cd '[:print:]' <{LOADER_INFO}; echo",
    "started_by_grub": "grep -qw BOOT_IMAGE /proc/cmdline && echo yes",
    # GRUB asks for a name and a password before every entry that is not --unrestricted (GRUB manual, "Security"). Of
    # the running kernel's entry, since that one is kept; the boot program asks again of the one it is about to try.
    "grub_password": (
        f"grep -qs '^[[:space:]]*set superusers=' {GRUB_FOLDER}/*.cfg && "
        f'entry=$(grep -s "^[[:space:]]*menuentry .*\'gnulinux-$(uname -r)-advanced-" {GRUB_FOLDER}/grub.cfg)'
        ' && ! echo "$entry" | grep -q -e --unrestricted && echo yes'
    ),
    "initramfs_tools": "command -v mkinitramfs >/dev/null && echo yes",
    "cgroup_hierarchy": "stat -f -c %T /sys/fs/cgroup",
    # The file system of GRUB's environment, and what it lies on.
    "grub_fs": "findmnt -n -o FSTYPE -T /boot/grub",
    "grub_devices": "lsblk -s -n -o TYPE $(findmnt -n -v -o SOURCE -T /boot/grub) | tr -d ' └─`-' | sort -u",
    "systemd": "test -d /run/systemd/system && echo yes",
    "uid": "id -u",
    "clock": "date +%s",
    # The updates directory holds the journal of a dpkg that was killed.
    "unfinished": "ls -1 /var/lib/dpkg/updates",
}


@dataclass(frozen=True)
class HostState:
    """Observed properties of one host.

    `kernels` are the releases that have an image in /boot. `free_mb` maps `/`, `/boot` and `/var` to the
    megabytes that root may still write there. `clock` is in seconds since the epoch. `codename` is the distribution's
    (trixie), `architecture` dpkg's name of it (amd64). `grub_filesystem` is that of /boot/grub,
    `grub_devices` the kinds of devices it lies on as lsblk(8) names them; both empty when the host cannot tell.
    `boot_loader` is the name of what started this boot when that was not GRUB, else empty. `asks_password`: GRUB wants
    one before it starts the kernel that runs. `cgroup_filesystem` is cgroup2fs where there is one hierarchy.
    """

    distribution: str
    kernels: tuple[str, ...]
    memory_mb: int
    topology: Topology
    free_mb: Mapping[str, int]
    has_grub: bool
    has_systemd: bool
    is_root: bool
    clock: int
    has_unfinished_packages: bool
    codename: str
    architecture: str
    grub_filesystem: str
    grub_devices: frozenset[str]
    boot_loader: str
    asks_password: bool
    has_initramfs_tools: bool
    cgroup_filesystem: str
    packet_filter: PacketFilterState = field(default_factory=PacketFilterState)


def parse_host_state(lines: Sequence[str], marker: str = output_sections.MARKER) -> HostState:
    """Build a HostState from the script's output; raises ValueError as `state_of`."""
    return state_of(output_sections.parse(lines, marker))


def state_of(found: Mapping[str, Sequence[str]]) -> HostState:
    """Build a HostState from the sections of the script's output.

    Raises:
        ValueError: when a section that every Linux host has is missing.
    """

    def one(name: str) -> str:
        values = found.get(name) or [""]
        return values[0].strip()

    if not one("online"):
        raise ValueError("the host did not tell which CPUs are online")
    online = parse_cpu_list(one("online"), None)
    siblings = _lists_by_number(found.get("siblings", []), online)
    nodes = _lists_by_number(found.get("nodes", []), online)
    return HostState(
        distribution=one("os"),
        kernels=tuple(found.get("kernels", ())),
        memory_mb=int(one("memory_kb") or 0) // 1024,
        topology=Topology(
            online=online,
            siblings=siblings,
            nodes=nodes or {0: online},
            cache_mates=_lists_by_number(found.get("caches", []), online),
            kinds=_core_kinds(found.get("core_kinds", [])),
        ),
        free_mb={path: int(free) for path, free in (line.split() for line in found.get("free_mb", []))},
        has_grub=one("grub") == "yes",
        has_systemd=one("systemd") == "yes",
        is_root=one("uid") == "0",
        clock=int(one("clock") or 0),
        has_unfinished_packages=bool(one("unfinished")),
        codename=one("codename"),
        architecture=one("architecture"),
        grub_filesystem=one("grub_fs"),
        grub_devices=frozenset(line.strip() for line in found.get("grub_devices", []) if line.strip()),
        boot_loader=_other_loader(one("loader"), one("started_by_grub") == "yes"),
        asks_password=one("grub_password") == "yes",
        has_initramfs_tools=one("initramfs_tools") == "yes",
        cgroup_filesystem=one("cgroup_hierarchy"),
        packet_filter=packet_filter.parse(found),
    )


def _other_loader(name: str, says_image: bool) -> str:
    """Return the boot loader's name when it is not GRUB; GRUB 2.12 leaves its own, and all pass on BOOT_IMAGE."""
    if name:
        return "" if "GRUB" in name else name
    return "" if says_image else "another boot loader"


def _lists_by_number(lines: Sequence[str], online: frozenset[int]) -> dict[int, frozenset[int]]:
    """Parse lines such as `/sys/devices/system/node/node1/cpulist:2-3`; a node without CPUs has no line."""
    found = {}
    for line in lines:
        if match := _NUMBERED.match(line):
            found[int(match["number"])] = parse_cpu_list(match["list"], None) & online
    return found


# Words of people for the kernel's names of Intel's kinds of cores.
_INTEL_KINDS = {"cpu_core": "performance", "cpu_atom": "efficiency", "cpu_lowpower": "low-power"}


def _core_kinds(lines: Sequence[str]) -> dict[int, str]:
    """Parse `/sys/devices/cpu_atom/cpus:4-7` or `/sys/devices/system/cpu/cpu3/cpu_capacity:512`; neither: one kind."""
    found: dict[int, str] = {}
    for line in lines:
        path, _, text = line.partition(":")
        parts = path.split("/")
        if kind := _INTEL_KINDS.get(parts[3]):
            found |= dict.fromkeys(parse_cpu_list(text.strip(), None), kind)
        elif parts[-1] == "cpu_capacity":
            found[int(parts[-2].removeprefix("cpu"))] = f"capacity {text.strip()}"
    return found


class Host(SectionsFact[HostState]):
    """The state of a host, gathered in one round trip."""

    @override
    def command(self) -> StringCommand:
        return self.asking({**COMMANDS, **packet_filter.COMMANDS})

    @override
    def process(self, output: list[str]) -> HostState:
        return parse_host_state(output, self.marker)
