"""Typed settings of the `rt_tuning` role."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from roles.shared import RT_GROUP
from rtinfra.config.host_types import ModuleName, PackageName, PrintedName, Shutdown, Silence
from rtinfra.config.sections import Section
from rtinfra.config.types import RtPriority, Settings, UnitName


class WatchdogSettings(Settings):
    """The hardware watchdog that systemd feeds; it resets a host that hangs."""

    enabled: bool
    module: ModuleName | None = Field(description="kernel module to load; null when the kernel finds the device")
    identity: PrintedName | None = Field(
        description="text of /sys/class/watchdog/*/identity; device numbers change between boots, this does not"
    )
    runtime: Silence = Field(description="RuntimeWatchdogSec=: reset when systemd is silent for this long")
    reboot: Shutdown = Field(description="RebootWatchdogSec=: reset when a shutdown takes this long")


class KthreadPriorities(Settings):
    """SCHED_FIFO priorities of kernel threads that serve timers and soft interrupts."""

    ksoftirqd: RtPriority
    ktimers: RtPriority


class RtTuningSettings(Settings):
    """Settings of the `rt_tuning` role."""

    packages: tuple[PackageName, ...] = Field(description="tools for tuning and for measuring latency")
    sysctl: dict[str, int | str] = Field(description="kernel settings, written to one file in /etc/sysctl.d")
    transparent_hugepage: Literal["never", "madvise", "always"]
    governor: Literal["performance", "powersave", "ondemand", "conservative", "schedutil", "userspace"] = Field(
        description="cpufreq governor, where the host has cpufreq"
    )
    kthread_priorities: KthreadPriorities
    masked_units: tuple[UnitName, ...] = Field(description="units that would disturb the isolated cores")
    watchdog: WatchdogSettings


#: Key to the settings of this role.
RT_TUNING: Final = Section("rt_tuning", RtTuningSettings, RT_GROUP)
#: Link to the chosen hardware watchdog, made by udev: /dev/watchdog0 and 1 change places between boots.
WATCHDOG_DEVICE: Final = "/dev/watchdog-rtinfra"
TUNE: Final = "rtinfra-tune.service"
IRQ_WATCH: Final = "rtinfra-irq-watch.service"
#: Makes RT_SLICE an isolated cpuset partition and keeps it one.
PARTITION: Final = "rtinfra-partition.service"
#: Slices and the scope that hold everything that is not real-time.
HOUSEKEEPING_GROUPS: Final = ("system.slice", "user.slice", "init.scope")
#: The slice of the real-time application.
RT_SLICE: Final = "rt.slice"
#: Measures how late real-time threads start (templates/rt_tuning/latency.sh.j2).
LATENCY_PROGRAM: Final = "/usr/local/lib/rtinfra/latency"
#: What it measured before any core was isolated.
LATENCY_BEFORE: Final = "/var/lib/rtinfra/latency-before.json"
