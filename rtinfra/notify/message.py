"""What people are told: what failed, when, where, what to do, where to read on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

# UTF-16 code units: of a title in a message that was cut, and in the shortest one.
_TITLE = 300
_BRIEF_TITLE = 100
# A problem is cut rather than left out when so many characters of its detail are left.
_DETAIL = 40


def utf16_units(text: str) -> int:
    """Return the length of a text as services count it that are written in languages with 16-bit characters."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def short(text: str, most: int) -> str:
    """Return a text of at most so many UTF-16 code units, which says so when it was cut."""
    units = text.encode("utf-16-le", "surrogatepass")
    return text if len(units) <= 2 * most else f"{units[: 2 * (most - 3)].decode('utf-16-le', 'ignore')}..."


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

    def __len__(self) -> int:
        return len(self.what) + len(self.detail) + len(self.next_step)


@dataclass(frozen=True, kw_only=True)
class Notification:
    """One message. `source` is who says it (preflight, drift); `runbook` the address of the page to read.

    `left_out` counts problems that are not in it because it was cut; one that is `brief` says where and nothing else.
    """

    priority: Priority
    source: str
    host: str
    environment: str
    title: str
    problems: tuple[Problem, ...]
    runbook: str | None = None
    withheld_before: int = 0
    left_out: int = 0
    is_brief: bool = False
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def headline(self) -> str:
        """The first line."""
        return f"[{self.priority}] {self.title}"

    @property
    def facts(self) -> Mapping[str, str]:
        """When and where, in the order people want to know."""
        if self.is_brief:
            return {"Host": self.host}
        found = {
            "Host": self.host,
            "Environment": self.environment,
            "Time": f"{self.at:%Y-%m-%d %H:%M:%S} UTC",
            "Reported by": self.source,
        }
        if self.withheld_before:
            found["Held back before"] = f"{self.withheld_before} warnings"
        return found

    @property
    def more(self) -> str:
        """What stands in place of the problems that were left out; empty without any."""
        return f"... and {self.left_out} more" if self.left_out else ""

    def body(self) -> str:
        """Everything but the headline, as plain text."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for problem in self.problems:
            lines += ["", f"{problem.what}: {problem.detail}"]
            if problem.next_step:
                lines.append(f"What to do: {problem.next_step}")
        lines += ["", self.more] if self.left_out else []
        lines += ["", f"Runbook: {self.runbook}"] if self.runbook else []
        return "\n".join(lines)

    def cut(self, room: int) -> Notification:
        """Return it with at most so many characters of problems, those that were named first."""
        kept: list[Problem] = []
        for problem in self.problems:
            if len(problem) > room:
                detail = room - len(problem.what) - len(problem.next_step)
                if detail >= _DETAIL:
                    kept.append(replace(problem, detail=short(problem.detail, detail)))
                break
            kept.append(problem)
            room -= len(problem)
        left_out = len(self.problems) - len(kept)
        return replace(self, title=short(self.title, _TITLE), problems=tuple(kept), left_out=left_out)

    def brief(self) -> Notification:
        """Return the shortest message that still helps: what it is about, the host, the runbook."""
        title = short(self.title, _BRIEF_TITLE)
        return replace(self, title=title, problems=(), left_out=len(self.problems), is_brief=True)

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
