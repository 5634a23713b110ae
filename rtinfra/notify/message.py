"""What people are told: what failed, when, where, what to do, where to read on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4


class Priority(StrEnum):
    """P0: something has failed; never held back. P1: a warning; at most one in a while."""

    P0 = "P0"
    P1 = "P1"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong and what to do about it."""

    what: str
    detail: str
    next_step: str


@dataclass(frozen=True, kw_only=True)
class Notification:
    """One message. `source` is who says it (preflight, drift); `runbook` the address of the page to read."""

    priority: Priority
    source: str
    host: str
    environment: str
    title: str
    problems: tuple[Problem, ...]
    runbook: str | None = None
    withheld_before: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def headline(self) -> str:
        """The first line."""
        return f"[{self.priority}] {self.title}"

    @property
    def facts(self) -> Mapping[str, str]:
        """When and where, in the order people want to know."""
        found = {
            "Host": self.host,
            "Environment": self.environment,
            "Time": f"{self.at:%Y-%m-%d %H:%M:%S} UTC",
            "Reported by": self.source,
        }
        if self.withheld_before:
            found["Held back before"] = f"{self.withheld_before} warnings"
        return found

    def body(self, limit: int = 3500) -> str:
        """Everything but the headline, as plain text of at most `limit` characters."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for problem in self.problems:
            lines += ["", f"{problem.what}: {problem.detail}"]
            if problem.next_step:
                lines.append(f"What to do: {problem.next_step}")
        text = "\n".join(lines)
        end = f"\n\nRunbook: {self.runbook}" if self.runbook else ""
        room = limit - len(end)
        # The way to the runbook is what must not be cut off.
        return (text if len(text) <= room else f"{text[: room - 4]}\n...") + end

    def to_json(self) -> dict[str, Any]:
        """Return what a program gets."""
        return {
            "version": 1,
            "id": self.id,
            "priority": self.priority.value,
            "source": self.source,
            "host": self.host,
            "environment": self.environment,
            "at": self.at.isoformat(timespec="milliseconds"),
            "title": self.title,
            "problems": [{"what": one.what, "detail": one.detail, "next_step": one.next_step} for one in self.problems],
            "runbook": self.runbook,
            "withheld_before": self.withheld_before,
        }
