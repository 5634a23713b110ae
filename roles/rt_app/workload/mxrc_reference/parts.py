"""What the process is made of, put together; application.py starts and stops it."""

from __future__ import annotations

import os
import socket
import time

from .cli import Options, Role
from .export import SpanExporter
from .faults import Faults
from .health import HealthMonitor, MemoryPlacement, ResourceUsage
from .log import EcsLog
from .loop import Controller, CycleLoop
from .scheduling import Scheduling, Threads
from .settings import Settings
from .spans import Attributes, Tracer
from .state import ProcessState
from .supervision import Notifier, Watchdog
from .tasks import Event, EventBus, TaskExecutor
from .web import HttpStatistics


class Parts:
    """All parts of one process, by the names that the pages and the application know them by."""

    def __init__(self, options: Options, role: Role, settings: Settings) -> None:
        self.options = options
        self.role = role
        self.settings = settings
        self._started_at = time.monotonic()

        tracing = settings.tracing
        self.log = EcsLog(options.log_file, role.name, tracing.service_name)
        self.threads = Threads(self.log)
        self.scheduling = Scheduling(settings.affinity, role.realtime, self.log)
        self.faults = Faults()
        self.loop = CycleLoop(options.cycle_us, options.deadline_us, Controller(), self.faults)
        self.health = HealthMonitor(settings.failover, self.loop, self.log)
        self.notifier = Notifier(os.environ)
        self.watchdog = Watchdog(os.environ, self.notifier, lambda: self.loop.cycles)
        self.placement = MemoryPlacement(settings.numa.numa_node)
        self.resources = ResourceUsage()
        self.http_statistics = HttpStatistics()

        resource: Attributes = {
            "service.name": tracing.service_name,
            "process.pid": os.getpid(),
            "process.executable.name": role.name,
            "host.name": socket.gethostname(),
        }
        self.exporter = SpanExporter(tracing.endpoint, resource, self.log)
        self.tracer = Tracer(tracing.sampling_rate, self.exporter.add)
        self.bus = EventBus(self.tracer, tracing.eventbus)
        self.bus.subscribe(self._log_event)
        self.tasks = TaskExecutor(self.loop, self.bus, self.tracer, tracing.task_executor, self.log)
        self.state = ProcessState(options.checkpoint_dir, role.name, self.loop, self.tasks, self.log)

    def uptime_s(self) -> float:
        """Return how long ago the process began, in seconds."""
        return round(time.monotonic() - self._started_at, 3)

    def status_line(self) -> str:
        """Return what systemctl status shows."""
        return f"{self.health.status.name}, {self.loop.cycles} cycles, {self.loop.misses} deadline misses"

    def _log_event(self, event: Event) -> None:
        fields = {"mxrc.task_id": event.task_id, "event.action": event.topic}
        self.log.info(f"Event {event.topic}: {event.payload['action']}", event.context, fields)
