"""How the process is: the self check, resident memory by NUMA node, processor time."""

from __future__ import annotations

import enum
import os
import re
import time
from pathlib import Path
from typing import Final

from .log import EcsLog
from .loop import CycleLoop
from .settings import FailoverSettings
from .system import NS_PER_MS


class HealthStatus(enum.IntEnum):
    """States of a process, with the numbers the application shows in mxrc_process_health_status."""

    STOPPED = 0
    STARTING = 1
    HEALTHY = 2
    DEGRADED = 3
    UNHEALTHY = 4
    STOPPING = 5


class HealthMonitor:
    """Checks every interval that the loop moved within the timeout.

    A failed check makes the process DEGRADED, as many in a row as the threshold make it UNHEALTHY. Deadline
    misses are no matter of health: they have metrics and alerts, and a restart would not cure them.
    """

    def __init__(self, settings: FailoverSettings, loop: CycleLoop, log: EcsLog) -> None:
        #: The application sets it when it is ready and when it stops.
        self.status = HealthStatus.STARTING
        self._loop = loop
        self._log = log
        self._timeout_ns = max(settings.health_check_timeout_ms * NS_PER_MS, 3 * loop.period_ns)
        self._threshold = settings.failure_threshold
        self._failures = 0

    def loop_age_ns(self) -> int:
        """Return how long ago the loop finished a cycle."""
        return max(0, time.monotonic_ns() - self._loop.last_done_ns)

    def check(self) -> None:
        """Do one self check."""
        age_ns = self.loop_age_ns()
        self._failures = self._failures + 1 if age_ns > self._timeout_ns else 0
        if self._failures >= self._threshold:
            status = HealthStatus.UNHEALTHY
        elif self._failures:
            status = HealthStatus.DEGRADED
        else:
            status = HealthStatus.HEALTHY
        if status != self.status:
            level = "info" if status == HealthStatus.HEALTHY else "error"
            self._log.write(level, f"health is {status.name}, last cycle {age_ns // NS_PER_MS} ms ago")
            self.status = status


class MemoryPlacement:
    """Counts resident memory by NUMA node, over all mappings as `numastat -p` does."""

    _NODE_PAGES: Final = re.compile(r" N(\d+)=(\d+)")
    _PAGE_SIZE: Final = re.compile(r" kernelpagesize_kB=(\d+)")

    def __init__(self, node: int, path: Path = Path("/proc/self/numa_maps")) -> None:
        self.node = node
        #: Resident bytes by node; empty on a kernel without NUMA.
        self.bytes_by_node: dict[int, int] = {}
        self._path = path

    def measure(self) -> None:
        """Read the kernel's figures."""
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return
        counted: dict[int, int] = {}
        for line in lines:
            size = self._PAGE_SIZE.search(line)
            page_bytes = int(size[1]) * 1024 if size else 4096
            for node, pages in self._NODE_PAGES.findall(line):
                counted[int(node)] = counted.get(int(node), 0) + int(pages) * page_bytes
        self.bytes_by_node = counted

    def local_percent(self) -> float | None:
        """Return the share on the configured node in percent, or None when it is not known."""
        total = sum(self.bytes_by_node.values())
        return 100.0 * self.bytes_by_node.get(self.node, 0) / total if total else None


class ResourceUsage:
    """Processor time and resident memory of this process."""

    def __init__(self) -> None:
        self.cpu_percent = 0.0
        self.memory_bytes = 0
        self._measured_at = time.monotonic()
        self._cpu_s = time.process_time()

    def measure(self) -> None:
        """Measure since the last time."""
        now, cpu_s = time.monotonic(), time.process_time()
        if now > self._measured_at:
            self.cpu_percent = 100.0 * (cpu_s - self._cpu_s) / (now - self._measured_at)
        self._measured_at, self._cpu_s = now, cpu_s
        pages = Path("/proc/self/statm").read_text().split()[1]
        self.memory_bytes = int(pages) * os.sysconf("SC_PAGE_SIZE")
