"""Typed settings of the `rt_kernel` role and the kernel command line derived from them."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from roles.shared import RT_GROUP
from rtinfra.config.host_types import PackageName
from rtinfra.config.kernel_names import checked_parameter, name_of
from rtinfra.config.sections import Section
from rtinfra.config.types import Distribution, SettingError, Settings
from rtinfra.cpu import CpuLayout

# One word of a kernel command line: `name`, `name=value` or `module.name=value`. Quotes, spaces and `$`
# would be interpreted by the shell that reads /etc/default/grub.d.
_PARAMETER = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(=[A-Za-z0-9_.,:/@+\-]*)?$")

# Set from the CPU layout alone, so that isolation is written once: `cpu.isolated`.
ISOLATION_PARAMETERS = ("isolcpus", "nohz", "nohz_full", "rcu_nocbs", "irqaffinity")


def _one_word(word: str) -> str:
    if not _PARAMETER.match(word):
        raise SettingError(f"{word!r} is not one kernel parameter (name or name=value, no spaces)")
    if name_of(word) in ISOLATION_PARAMETERS:
        raise SettingError(f"{name_of(word)} is derived from cpu.isolated; remove it from this list")
    return checked_parameter(word)


_Parameter = Annotated[str, AfterValidator(_one_word)]


class NoKernelSource(ValueError):
    """The settings name no kernel for a distribution."""


class KernelSource(Settings):
    """Where the RT kernel of one distribution comes from, and how its image is recognised."""

    packages: tuple[PackageName, ...] = Field(
        description="packages to install; `name/suite` takes one from that apt suite"
    )
    image_pattern: str = Field(
        pattern=r"^[A-Za-z0-9.*+~_\-]+$",
        description="shell pattern of the kernel release in /boot/vmlinuz-<release>",
    )


class RtKernelSettings(Settings):
    """Settings of the `rt_kernel` role."""

    sources: dict[Distribution, KernelSource] = Field(description="by distribution")
    debs: tuple[str, ...] = Field(description="local kernel .deb files, relative to the project folder")
    minimum_release: str = Field(pattern=r"^\d+\.\d+$", description="refuse an RT kernel older than this")
    parameters: tuple[_Parameter, ...] = Field(description="kernel command line beside the isolation parameters")
    headroom_boot_mb: int = Field(ge=0, description="free MB wanted in /boot before an installation")
    headroom_root_mb: int = Field(ge=0, description="free MB wanted in / before an installation")
    reboot: Literal["when-needed", "never"] = Field(description="whether a deploy may reboot the host")
    reboot_timeout_seconds: int = Field(ge=60, le=3600, description="how long a trial may take, coming back included")
    trial_seconds: int = Field(ge=30, le=1800, description="how long a trial may take to prove itself on the host")
    reboots_at_once: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^([1-9]\d?|100)%$")] = Field(
        description="how many hosts may be rebooting at a time: a number, or a share such as 25%"
    )

    @field_validator("parameters")
    @classmethod
    def _are_given_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        seen: set[str] = set()
        for word in value:
            name = name_of(word)
            if name in seen:
                raise ValueError(f"{name} is given twice; the kernel would use only one of them")
            seen.add(name)
        return value

    def source(self, distribution: str) -> KernelSource:
        """Return where the kernel of `distribution` (for example "debian-13") comes from.

        Raises:
            NoKernelSource: there is none for it; the prerequisite checks refuse such a host first.
        """
        found = {str(key): value for key, value in self.sources.items()}.get(distribution)
        if found is None:
            raise NoKernelSource(f"rt_kernel.sources has no kernel for {distribution}")
        return found

    def reboots_of(self, hosts: int) -> int:
        """Return how many of `hosts` real-time hosts may be rebooting at a time; at least one."""
        if isinstance(self.reboots_at_once, int):
            return self.reboots_at_once
        return max(1, hosts * int(self.reboots_at_once.removesuffix("%")) // 100)

    def command_line(self, layout: CpuLayout) -> tuple[str, ...]:
        """Return the words this product puts on the kernel command line, in a stable order.

        `managed_irq` keeps the interrupts that the kernel itself places away from the cores
        (Documentation/admin-guide/kernel-parameters.txt). Not `domain`: taking them out of the scheduler's load
        balancing is what the partition does (rt_tuning), which Linux 6.12 refuses for cores that `domain` names.
        """
        isolated, housekeeping = layout.isolated_list, layout.housekeeping_list
        return (
            f"isolcpus=managed_irq,{isolated}",
            "nohz=on",
            f"nohz_full={isolated}",
            f"rcu_nocbs={isolated}",
            f"irqaffinity={housekeeping}",
            *self.parameters,
        )


#: Parameter with the SCHED_FIFO priority of RCU's threads.
RCU_PRIORITY: Final = "rcutree.kthread_prio"
#: Key to the settings of this role.
RT_KERNEL: Final = Section("rt_kernel", RtKernelSettings, RT_GROUP)
#: Proves a trial; notes what became of one.
JUDGE: Final = "rtinfra-boot-judge.service"
SETTLE: Final = "rtinfra-boot-settle.service"
