"""The page /metrics, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .loop import Distribution
from .parts import Parts
from .system import NS_PER_US
from .web import HttpStatistics, Request, Response


class MetricsText:
    """Builds a page in Prometheus' text format 0.0.4."""

    CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, common_labels: Mapping[str, str]) -> None:
        self._common = dict(common_labels)
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str) -> None:
        """Begin a metric family."""
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def sample(self, name: str, value: float, **labels: str) -> None:
        """Add a sample with the common labels and some of its own."""
        self.bare_sample(name, value, **self._common, **labels)

    def bare_sample(self, name: str, value: float, **labels: str) -> None:
        """Add a sample with exactly these labels."""
        pairs = ",".join(f'{key}="{self._escape(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{pairs}}} {value}")

    def single(self, name: str, kind: str, text: str, value: float, **labels: str) -> None:
        """Add a family of one sample."""
        self.family(name, kind, text)
        self.sample(name, value, **labels)

    def histogram(self, name: str, text: str, distribution: Distribution, sum_us: float) -> None:
        """Add a histogram in microseconds."""
        self.family(name, "histogram", text)
        for edge in Distribution.EDGES_US:
            self.sample(f"{name}_bucket", distribution.below(edge), le=str(edge))
        count = distribution.total()
        self.sample(f"{name}_bucket", count, le="+Inf")
        self.sample(f"{name}_sum", sum_us)
        self.sample(f"{name}_count", count)

    def render(self) -> bytes:
        """Return the page."""
        return ("\n".join(self._lines) + "\n").encode()

    @staticmethod
    def _escape(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class MetricsPage:
    """GET /metrics."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def get(self, _request: Request) -> Response:
        """Return the page."""
        page = MetricsText({"process": self._parts.role.name})
        if self._parts.role.realtime:
            self._add_loop_metrics(page)
        else:
            page.single("mxrc_non_rt_cycle_count_total", "counter", "Cycles of the loop.", self._parts.loop.cycles)
        self._add_process_metrics(page)
        self._add_pipeline_metrics(page)
        self._add_service_metrics(page)
        return Response(200, page.render(), MetricsText.CONTENT_TYPE)

    def _add_loop_metrics(self, page: MetricsText) -> None:
        # Counters begin at 0 with the process. Were they recovered from a checkpoint, they would step back
        # by up to a minute, and Prometheus would take the whole count for new.
        loop, scheduling = self._parts.loop, self._parts.scheduling
        recent = loop.recent()
        page.single("mxrc_rt_cycle_count_total", "counter", "Cycles executed by this process.", loop.cycles)
        text = "Cycles done too late or skipped."
        page.single("mxrc_rt_deadline_miss_count_total", "counter", text, loop.misses)
        text = "Share of missed cycles, 0 to 1, last 30 to 60 s."
        page.single("mxrc_rt_deadline_miss_rate", "gauge", text, recent.miss_rate)
        text = "Start latency of cycles, 99 % quantile, last 30 to 60 s."
        page.single("mxrc_rt_jitter_us", "gauge", text, recent.jitter_p99_us)
        text = "Start latency of cycles, maximum, last 30 to 60 s."
        page.single("mxrc_rt_jitter_max_us", "gauge", text, recent.jitter_max_us)
        text = "Start latency of all cycles."
        page.histogram("mxrc_rt_start_latency_us", text, loop.latency(), loop.latency_sum_us)
        text = "Execution time of all cycles."
        page.histogram("mxrc_rt_cycle_time_us", text, loop.cycle_time, loop.busy_ns / NS_PER_US)
        page.single("mxrc_rt_period_us", "gauge", "Period of the loop.", self._parts.options.cycle_us)
        text = "Cycles of earlier runs, from the checkpoint."
        page.single("mxrc_rt_recovered_cycles", "gauge", text, self._parts.state.recovered_cycles)
        page.single(
            "mxrc_rt_scheduling_info",
            "gauge",
            "Effective scheduling of the loop.",
            1,
            policy=scheduling.loop_policy,
            priority=str(scheduling.loop_priority),
            cores=",".join(map(str, scheduling.loop_cores)),
        )
        locked = int(scheduling.memory_locked)
        page.single("mxrc_rt_memory_locked", "gauge", "1: all memory is locked.", locked)

    def _add_process_metrics(self, page: MetricsText) -> None:
        parts = self._parts
        affinity, placement = parts.settings.affinity, parts.placement
        page.single(
            "mxrc_process_health_status",
            "gauge",
            "0=STOPPED, 1=STARTING, 2=HEALTHY, 3=DEGRADED, 4=UNHEALTHY, 5=STOPPING.",
            int(parts.health.status),
        )
        page.single("mxrc_process_uptime_seconds", "gauge", "Time since the process started.", parts.uptime_s())
        restarts = parts.state.restart_count
        page.single("mxrc_restart_count", "gauge", "Starts after an unclean end, over all runs.", restarts)
        # The same two under the names the application gives them.
        page.single("mxrc_process_restart_count_total", "counter", "Same as mxrc_restart_count.", restarts)
        last = parts.state.last_checkpoint
        if last is not None:
            age_s = round(last.age_s(), 3)
            page.single("mxrc_checkpoint_age_seconds", "gauge", "Age of the last checkpoint.", age_s)
            text = "Same as mxrc_checkpoint_age_seconds."
            page.single("mxrc_failover_checkpoint_age_seconds", "gauge", text, age_s)
            text = "Size of the last checkpoint."
            page.single("mxrc_failover_checkpoint_size_bytes", "gauge", text, last.size_bytes)
        page.single(
            "mxrc_cpu_affinity_info",
            "gauge",
            "Configured cores.",
            1,
            configured_cores=",".join(map(str, affinity.cpu_cores)),
            isolation_mode=affinity.isolation_mode,
        )
        page.single("mxrc_numa_node", "gauge", "Configured NUMA node.", placement.node)
        percent = placement.local_percent()
        if percent is not None:
            page.single(
                "mxrc_numa_local_memory_percent",
                "gauge",
                "Share of resident memory on the configured node.",
                round(percent, 2),
                numa_node=str(placement.node),
            )
            page.family("mxrc_numa_resident_bytes", "gauge", "Resident memory by node.")
            for number, size in sorted(placement.bytes_by_node.items()):
                page.sample("mxrc_numa_resident_bytes", size, numa_node=str(number))

    def _add_pipeline_metrics(self, page: MetricsText) -> None:
        log, exporter = self._parts.log, self._parts.exporter
        page.family("mxrc_logging_events_total", "counter", "Log events by level.")
        for level, count in log.events.items():
            page.sample("mxrc_logging_events_total", count, level=level)
        page.single("mxrc_logging_dropped_total", "counter", "Log events that were not written.", log.dropped)
        rate = self._parts.settings.tracing.sampling_rate
        page.single("mxrc_tracing_sampling_rate", "gauge", "Share of traces that are kept, 0 to 1.", rate)
        page.single("mxrc_tracing_spans_total", "counter", "Spans that were made and kept.", exporter.made)
        page.single("mxrc_tracing_spans_exported_total", "counter", "Spans delivered.", exporter.exported)
        page.single("mxrc_tracing_spans_dropped_total", "counter", "Spans lost.", exporter.dropped)
        page.single("mxrc_tracing_queue_length", "gauge", "Spans waiting.", exporter.queued())
        page.single("mxrc_eventbus_events_total", "counter", "Events published.", self._parts.bus.published)
        page.family("mxrc_tasks_total", "counter", "Tasks by result, in this process.")
        page.sample("mxrc_tasks_total", self._parts.tasks.completed, result="completed")
        page.sample("mxrc_tasks_total", self._parts.tasks.failed, result="failed")

    def _add_service_metrics(self, page: MetricsText) -> None:
        service = self._parts.settings.tracing.service_name
        statistics = self._parts.http_statistics
        page.family("http_requests_total", "counter", "HTTP requests.")
        for (method, status), count in sorted(statistics.requests.items()):
            page.bare_sample("http_requests_total", count, service=service, method=method, status=str(status))
        name = "http_request_duration_seconds"
        page.family(name, "histogram", "Duration of HTTP requests.")
        for endpoint, (counts, total_s) in sorted(statistics.durations.items()):
            labels = {"service": service, "endpoint": endpoint}
            below = 0
            for edge, count in zip(HttpStatistics.EDGES_S, counts, strict=False):
                below += count
                page.bare_sample(f"{name}_bucket", below, **labels, le=str(edge))
            page.bare_sample(f"{name}_bucket", sum(counts), **labels, le="+Inf")
            page.bare_sample(f"{name}_sum", round(total_s, 6), **labels)
            page.bare_sample(f"{name}_count", sum(counts), **labels)
        page.family("system_resource_usage", "gauge", "Processor (percent of one core) and memory (bytes).")
        resources = self._parts.resources
        usage = {"cpu_percent": round(resources.cpu_percent, 2), "memory_bytes": resources.memory_bytes}
        for kind, value in usage.items():
            page.bare_sample("system_resource_usage", value, service=service, resource_type=kind)
