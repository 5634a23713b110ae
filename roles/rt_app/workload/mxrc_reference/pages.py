"""The pages /health, /health/ready, /health/live and /health/details."""

from __future__ import annotations

import os
import time

from .health import HealthStatus
from .parts import Parts
from .system import NS_PER_MS, format_utc
from .web import Request, Response, json_response


class HealthPages:
    """Answers about the health of the process, each a JSON document."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def health(self, request: Request) -> Response:
        """Say whether the process does its work: 200 only when HEALTHY."""
        return json_response(200 if self._is_healthy() else 503, self._summary(request.began))

    def details(self, request: Request) -> Response:
        """Say the same and more, with status 200 always."""
        return json_response(200, {**self._summary(request.began), **self._more()})

    def ready(self, _request: Request) -> Response:
        """Say whether tasks can be taken."""
        ready = self._is_healthy()
        message = "tasks are taken" if ready else f"no tasks are taken: {self._status_name()}"
        return json_response(200 if ready else 503, {"ready": ready, "message": message})

    def live(self, _request: Request) -> Response:
        """Say that the process answers. A stuck loop is no matter of this: the watchdog handles it."""
        return json_response(200, {"alive": True, "uptime_seconds": self._parts.uptime_s()})

    def _is_healthy(self) -> bool:
        return self._parts.health.status == HealthStatus.HEALTHY

    def _status_name(self) -> str:
        return self._parts.health.status.name

    def _summary(self, began: float) -> dict[str, object]:
        """Return what /health answers to a request that came at `began`, of time.monotonic()."""
        parts = self._parts
        return {
            "status": self._status_name(),
            "process_name": parts.role.name,
            "pid": os.getpid(),
            "last_heartbeat": format_utc(time.time_ns() - parts.health.loop_age_ns()),
            "response_time_ms": round((time.monotonic() - began) * 1000, 3),
            "deadline_miss_count": parts.loop.misses,
            "restart_count": parts.state.restart_count,
        }

    def _more(self) -> dict[str, object]:
        parts = self._parts
        loop, state, scheduling = parts.loop, parts.state, parts.scheduling
        last = state.last_checkpoint
        recovered = state.recovered_from
        return {
            "uptime_seconds": parts.uptime_s(),
            "loop_age_ms": parts.health.loop_age_ns() // NS_PER_MS,
            "start_count": state.start_count,
            "cycles": loop.cycles,
            "cycles_total": state.cycles_total,
            "tasks": {**state.task_counts(), "active": len(parts.tasks.active())},
            "last_checkpoint": last
            and {
                "checkpoint_id": last.id,
                "written": format_utc(last.written_ns),
                "age_seconds": round(last.age_s(), 3),
            },
            "recovered_from": recovered
            and {
                "checkpoint_id": recovered.id,
                "written": format_utc(recovered.written_ns),
                "cycles_total": state.recovered_cycles,
            },
            "scheduling": {
                "policy": scheduling.loop_policy,
                "priority": scheduling.loop_priority,
                "loop_cores": scheduling.loop_cores,
                "configured_cores": parts.settings.affinity.cpu_cores,
                "memory_locked": scheduling.memory_locked,
                "cycle_us": parts.options.cycle_us,
            },
        }
