"""What the kernel holds control groups to: cores, memory, processor time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from roles.rt_tuning.model import RT_SLICE
from roles.shared import AGENTS_SLICE
from rtinfra.quadlet import SLICE
from rtinfra.verify.look.answer import Answer, cpu_list, read_files
from rtinfra.verify.questions import Questions

_ROOT: Final = "/sys/fs/cgroup"
_BOUNDS: Final = ("memory.max", "cpu.max", "cpuset.cpus.effective")


@dataclass(frozen=True)
class Slices:
    """Files of control groups, cgroups(7), by path; one that does not exist is absent."""

    values: Mapping[str, str]

    def cpus(self, group: str) -> frozenset[int]:
        """Return the cores a group may use; empty when it does not exist."""
        return cpu_list(self.values.get(f"{_ROOT}/{group}/cpuset.cpus.effective", ""))

    @property
    def everybody(self) -> frozenset[int]:
        """The cores that are left to groups without a partition of their own."""
        return cpu_list(self.values.get(f"{_ROOT}/cpuset.cpus.effective", ""))

    @property
    def isolated(self) -> frozenset[int] | None:
        """The cores of all isolated partitions; None on a kernel that does not tell, before 6.8."""
        text = self.values.get(f"{_ROOT}/cpuset.cpus.isolated")
        return None if text is None else cpu_list(text)

    @property
    def tops(self) -> Mapping[str, frozenset[int]]:
        """The cores of each group right below the root, by name: slices, and what others make beside them."""
        found = {path.split("/")[4]: text for path, text in self.values.items() if path.count("/") == 5}
        return {group: self.cpus(group) for group in found}

    def partition(self, group: str) -> str:
        """Return what kind of partition a group is, cgroups(7), with the kernel's reason when it is invalid."""
        return self.values.get(f"{_ROOT}/{group}/cpuset.cpus.partition", "absent")

    def memory_max(self, group: str) -> str | None:
        """Return the memory a group may use, in bytes or `max`; None when it does not exist."""
        return self.values.get(f"{_ROOT}/{group}/memory.max")

    def processor_share(self, group: str) -> str | None:
        """Return the processor time a group may use, as `150%` or `max`; None when it does not exist."""
        # Microseconds it may run, and in how many.
        quota, _, period = self.values.get(f"{_ROOT}/{group}/cpu.max", "").partition(" ")
        return f"{round(100 * int(quota) / int(period))}%" if quota.isdecimal() else quota or None


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for all groups right below the root, the partition, and the bounds of the telemetry programs."""
    paths = [
        *(f"{_ROOT}/{name}" for name in ("cpuset.cpus.effective", "cpuset.cpus.isolated", "*/cpuset.cpus.effective")),
        f"{_ROOT}/{RT_SLICE}/cpuset.cpus.partition",
    ]
    if questions.programs:
        groups = (AGENTS_SLICE, SLICE, f"{AGENTS_SLICE}/*", f"{SLICE}/*")
        paths += [f"{_ROOT}/{group}/{bound}" for group in groups for bound in _BOUNDS]
    return {"slice_values": read_files(paths)}


def read(answer: Answer) -> Slices:
    """Read what `ask` asked."""
    return Slices(answer.files("slice_values"))
