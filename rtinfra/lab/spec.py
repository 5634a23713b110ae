"""The shape of a lab machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtinfra.lab import seed
from rtinfra.lab.errors import LabError
from rtinfra.lab.firmware import Firmware

# Less and Debian's initramfs or apt run out of memory half-way.
MINIMUM_MEMORY_MB = 768
# Debian, a second kernel and its initramfs, and room to install something.
MINIMUM_DISK_GB = 4
# Each machine has this many addresses of the lab's network to itself.
LAN_BLOCK = 10


@dataclass(frozen=True)
class MachineSpec:
    """Hardware, firmware and release of a lab machine.

    The default is the smallest host on which isolation, NUMA placement and housekeeping all show:
    2 NUMA nodes with 2 cores each. Raises LabError for shapes that cannot exist.
    """

    cpus: int = 4
    """Number of cores, spread evenly over the nodes; one thread each."""
    memory_mb: int = 3072
    """MiB of memory, spread evenly over the nodes; taken from the host only as the guest touches it."""
    disk_gb: int = 12
    """GiB of disk as the guest sees it; the file on the host grows with what is written."""
    nodes: int = 2
    """NUMA nodes, one socket each."""
    suite: str = "trixie"
    """Debian release by code name."""
    backports: bool = False
    """Whether the release's backports are among its apt sources, as newer kernels need."""
    firmware: Firmware = Firmware.UEFI
    """What starts it."""
    image: str = ""
    """Path of an operator's own image with cloud-init, instead of a bare Debian; empty for that."""
    restricted: bool = False
    """Air gap: the guest reaches nothing, not even the host; ssh from the host still works."""
    forwards: tuple[int, ...] = ()
    """TCP ports of the guest to offer on free ports of the host's 127.0.0.1, besides ssh."""
    lan_addresses: int = 0
    """Addresses on the network that the lab's machines share; 0: not connected to it. Needs Debian 13."""

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.cpus < 1 or self.cpus % self.nodes:
            raise LabError(
                f"{self.cpus} CPUs cannot be spread evenly over {self.nodes} NUMA nodes",
                "choose a number of CPUs that is a multiple of the number of nodes",
            )
        if self.memory_mb < MINIMUM_MEMORY_MB or self.memory_mb % self.nodes:
            raise LabError(
                f"{self.memory_mb} MiB of memory do not work for a lab machine with {self.nodes} NUMA nodes",
                f"choose at least {MINIMUM_MEMORY_MB} MiB and a multiple of the number of nodes",
            )
        if not 0 <= self.lan_addresses < LAN_BLOCK:
            raise LabError(
                f"a lab machine cannot have {self.lan_addresses} addresses on the lab's network",
                f"choose at most {LAN_BLOCK - 1}",
            )
        if self.disk_gb < MINIMUM_DISK_GB:
            raise LabError(
                f"a disk of {self.disk_gb} GiB is too small for Debian and a second kernel",
                f"choose at least {MINIMUM_DISK_GB} GiB",
            )

    @property
    def user(self) -> str:
        """Who logs in to it; somebody else than root becomes root by sudo."""
        return seed.USER if self.image else "root"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MachineSpec:
        """The spec out of the dictionary that ``dataclasses.asdict`` made of it."""
        # Machines that were made before there was a choice start by BIOS.
        firmware = Firmware(values.get("firmware", Firmware.BIOS))
        return cls(**{**values, "firmware": firmware, "forwards": tuple(values.get("forwards", ()))})
