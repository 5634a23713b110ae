"""The process from start to stop: what starts in which order, and what the main thread does meanwhile."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from typing import Final

from .cli import Options, Role
from .faults import FaultRoute
from .health import HealthStatus
from .metrics import MetricsPage
from .pages import HealthPages
from .parts import Parts
from .settings import Settings
from .supervision import Signals
from .system import EXIT_FAILURE, Schedule
from .tasks import TaskRoute
from .web import HttpServer, Routes

#: Longest the interpreter lets one thread run while another waits for it, in seconds.
SWITCH_INTERVAL_S: Final = 50e-6
#: Seconds between two turns of the sliding window that jitter and miss rate are shown for.
WINDOW_S: Final = 30.0
STATISTICS_S: Final = 10.0
FIRST_CYCLE_S: Final = 10.0
#: Longest wait for one thread at a stop, in seconds; all together must stay below 2 s.
STOP_JOIN_S: Final = 0.5


class Application:
    """Starts the parts in order and stops them in order."""

    def __init__(self, options: Options, role: Role, settings: Settings) -> None:
        self._parts = Parts(options, role, settings)
        self._stop = threading.Event()

    def run(self) -> int:
        """Run until a signal says stop; return the exit status."""
        parts = self._parts
        log = parts.log
        signals = Signals()
        parts.scheduling.settle_helpers()
        parts.threads.start("log-writer", log.run)
        for warning in parts.settings.warnings:
            log.warn(warning)
        try:
            # Ports first: they keep a second instance away from the state of this one.
            servers = self._open_servers()
            parts.state.recover(parts.settings.failover.enable_state_recovery)
            loop_thread = self._start_loop()
        except OSError as error:
            log.error(f"cannot start: {error}")
            log.flush(1.0)
            return EXIT_FAILURE

        parts.threads.start("housekeeping", self._run_housekeeping)
        export_thread = parts.threads.start("span-export", parts.exporter.run)
        parts.threads.start("tasks", parts.tasks.run)
        for name, server in servers.items():
            parts.threads.start(name, server.serve_forever)

        parts.health.status = HealthStatus.HEALTHY
        options = parts.options
        log.info(
            f"ready: period {options.cycle_us} us, health on port {options.health_port}, "
            f"metrics on port {options.metrics_port}, restart count {parts.state.restart_count}"
        )
        parts.notifier.send("READY=1", f"STATUS={parts.status_line()}")
        self._supervise(signals)
        self._shut_down(loop_thread, export_thread)
        return 0

    def _open_servers(self) -> dict[str, HttpServer]:
        parts, options = self._parts, self._parts.options
        pages = HealthPages(parts)
        health_routes: Routes = {
            "/health": {"GET": pages.health},
            "/health/ready": {"GET": pages.ready},
            "/health/live": {"GET": pages.live},
            "/health/details": {"GET": pages.details},
            "/api/v1/task/start": {"POST": TaskRoute(parts.tasks).post},
            "/api/v1/fault": {"POST": FaultRoute(parts.faults, options.enable_faults, parts.log).post},
        }
        metrics_routes: Routes = {"/metrics": {"GET": MetricsPage(parts).get}}
        required = {
            "http-health": (options.bind, options.health_port, health_routes),
            "http-metrics": (options.metrics_bind, options.metrics_port, metrics_routes),
        }
        servers = {}
        for name, (address, port, routes) in required.items():
            try:
                servers[name] = HttpServer(address, port, routes, parts.http_statistics, parts.log)
            except OSError as error:
                raise OSError(f"{address} port {port} cannot be opened: {error.strerror}") from error
        return servers

    def _start_loop(self) -> threading.Thread:
        """Start the loop and wait for its first cycle: only then is the process ready."""
        parts = self._parts
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # Everything made so far lives for ever: keep the collector away from it, and from the loop.
        gc.collect()
        gc.freeze()
        gc.disable()
        if parts.role.realtime:
            parts.scheduling.lock_memory()

        def body() -> None:
            parts.scheduling.settle_loop()
            parts.loop.run()

        thread = parts.threads.start("cycle-loop", body)
        give_up = time.monotonic() + FIRST_CYCLE_S
        while not parts.loop.cycles:
            if time.monotonic() > give_up:
                raise TimeoutError(f"the loop did no cycle in {FIRST_CYCLE_S:.0f} s")
            time.sleep(0.002)
        return thread

    def _supervise(self, signals: Signals) -> None:
        """The main thread's work: signals, watchdog, self check, windows."""
        parts = self._parts
        signals.open()
        schedule = Schedule()
        if parts.watchdog.interval_s:
            schedule.every(parts.watchdog.interval_s, self._feed_watchdog)
        schedule.every(parts.settings.failover.health_check_interval_ms / 1000, parts.health.check)
        schedule.every(WINDOW_S, parts.loop.turn_window)
        tracing = parts.settings.tracing
        if parts.role.realtime and tracing.rt_cycle and tracing.endpoint:
            schedule.every(1.0, self._trace_cycle)
        while True:
            for number in signals.wait(schedule.run_due()):
                if number == signal.SIGHUP:
                    parts.log.reopen()
                    parts.log.info("log file opened again")
                else:
                    parts.log.info(f"stopping: {signal.Signals(number).name}")
                    return

    def _shut_down(self, loop_thread: threading.Thread, export_thread: threading.Thread) -> None:
        parts = self._parts
        parts.health.status = HealthStatus.STOPPING
        parts.notifier.send("STOPPING=1", "STATUS=stopping")
        self._stop.set()
        parts.loop.stop()
        parts.exporter.stop()
        loop_thread.join(STOP_JOIN_S)
        try:
            parts.state.end()
        except OSError as error:
            parts.log.error(f"state at stop is not saved: {error}")
        export_thread.join(STOP_JOIN_S)
        parts.log.info(f"stopped after {parts.loop.cycles} cycles, {parts.loop.misses} deadline misses")
        parts.log.flush(STOP_JOIN_S)

    def _feed_watchdog(self) -> None:
        self._parts.watchdog.feed(self._parts.status_line())

    def _trace_cycle(self) -> None:
        """Make a span of a cycle the loop noted, and ask for the next: once a second, not in every cycle."""
        loop = self._parts.loop
        sample = loop.cycle_sample
        if sample is not None:
            loop.cycle_sample = None
            number, start_ns, done_ns = sample
            to_epoch_ns = time.time_ns() - time.monotonic_ns()
            span = self._parts.tracer.span("rt.cycle", None, {"mxrc.cycle": number})
            span.start_ns = start_ns + to_epoch_ns
            span.end(done_ns + to_epoch_ns)
        loop.sample_wanted = True

    def _run_housekeeping(self) -> None:
        self._measure()
        schedule = Schedule()
        schedule.every(self._parts.settings.failover.checkpoint_interval_sec, self._housekeep)
        schedule.every(STATISTICS_S, self._measure)
        while not self._stop.wait(schedule.run_due()):
            pass

    def _measure(self) -> None:
        self._parts.placement.measure()
        self._parts.resources.measure()

    def _housekeep(self) -> None:
        # Automatic collection is off; what the helpers leave behind is little, so this is short.
        gc.collect()
        if self._stop.is_set():
            return
        try:
            self._parts.state.save()
        except OSError as error:
            self._parts.log.error(f"checkpoint is not written: {error}")
