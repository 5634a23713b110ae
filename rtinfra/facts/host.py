"""The host as it is before anything is changed: what the prerequisite checks look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from rtinfra.cpu import Topology, parse_cpu_list
from rtinfra.facts import sections

# One command: the whole script costs one round trip.
_COMMANDS = {
    "os": ". /etc/os-release; echo $ID-$VERSION_ID",
    "arch": "dpkg --print-architecture",
    "boot_id": "cat /proc/sys/kernel/random/boot_id",
    "memory_kb": "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo",
    "online": "cat /sys/devices/system/cpu/online",
    "siblings": (
        "for c in /sys/devices/system/cpu/cpu[0-9]*; do "
        'read -r s < $c/topology/thread_siblings_list && echo "${c##*cpu} $s"; done'
    ),
    "nodes": 'for n in /sys/devices/system/node/node[0-9]*; do read -r l < $n/cpulist; echo "${n##*node} $l"; done',
    "free_mb": (
        "for d in / /boot /var; do "
        'set -- $(stat -f -c "%a %S" $d); echo "$d $(( $1 * $2 / 1048576 ))"; done'
    ),
    "grub": "command -v update-grub >/dev/null && test -d /boot/grub && echo yes",
    "systemd": "test -d /run/systemd/system && echo yes",
    "uid": "id -u",
    "clock": "date +%s",
    "unfinished": "dpkg --audit | head -n 20",
}


@dataclass(frozen=True)
class HostState:
    """Observed properties of one host.

    `free_mb` maps `/`, `/boot` and `/var` to the megabytes that root may still write there; `clock` is in
    seconds since the epoch.
    """

    distribution: str
    architecture: str
    boot_id: str
    memory_mb: int
    topology: Topology
    free_mb: Mapping[str, int]
    has_grub: bool
    has_systemd: bool
    is_root: bool
    clock: int
    has_unfinished_packages: bool


def parse_host_state(lines: list[str]) -> HostState:
    """Build a HostState from the script's output.

    Raises:
        ValueError: when a section that every Linux host has is missing.
    """
    found = sections.parse(lines)

    def one(name: str) -> str:
        values = found.get(name) or [""]
        return values[0].strip()

    if not one("online"):
        raise ValueError("the host did not tell which CPUs are online")
    online = parse_cpu_list(one("online"), None)
    siblings = {
        int(cpu): parse_cpu_list(text, None) & online
        for cpu, text in (line.split() for line in found.get("siblings", []))
    }
    nodes = {
        int(node): parse_cpu_list(parts[0], None) & online
        for node, *parts in (line.split() for line in found.get("nodes", []))
        if parts  # a node with memory only has an empty list
    }
    return HostState(
        distribution=one("os"),
        architecture=one("arch"),
        boot_id=one("boot_id"),
        memory_mb=int(one("memory_kb") or 0) // 1024,
        topology=Topology(online=online, siblings=siblings, nodes=nodes or {0: online}),
        free_mb={path: int(free) for path, free in (line.split() for line in found.get("free_mb", []))},
        has_grub=one("grub") == "yes",
        has_systemd=one("systemd") == "yes",
        is_root=one("uid") == "0",
        clock=int(one("clock") or 0),
        has_unfinished_packages=bool(one("unfinished")),
    )


class Host(FactBase[HostState]):
    """The state of a host, gathered in one round trip."""

    @override
    def command(self) -> StringCommand:
        return StringCommand(sections.script(_COMMANDS))

    @override
    def process(self, output: list[str]) -> HostState:
        return parse_host_state(list(output))
