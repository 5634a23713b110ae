"""The result of a run: verdict, table for people, JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rtinfra.preflight.check import Status, milliseconds
from rtinfra.preflight.parallel import Outcome
from rtinfra.preflight.settings import Environment

#: Exit codes by verdict; see docs/preflight.md.
EXIT_CODES: Final = {Status.PASS: 0, Status.WARN: 1, Status.FAIL: 2}
#: There is no verdict: the settings are wrong, a credential is missing, or the state cannot be written.
EXIT_NO_VERDICT: Final = 3
_MESSAGE_WIDTH = 72


@dataclass(frozen=True)
class Report:
    """One run. `started` is in UTC; `seconds` lasts from there to the last outcome."""

    id: str
    host: str
    environment: Environment
    started: datetime
    seconds: float
    settings_sha256: str
    outcomes: tuple[Outcome, ...]
    notifications: tuple[dict[str, Any], ...] = ()

    @property
    def verdict(self) -> Status:
        """The worst of all outcomes."""
        found = {outcome.result.status for outcome in self.outcomes}
        return next((status for status in (Status.FAIL, Status.WARN) if status in found), Status.PASS)

    @property
    def ready_for_live(self) -> bool:
        """Whether nothing failed. A warning does not forbid going live; somebody has to look at it."""
        return self.verdict is not Status.FAIL

    @property
    def exit_code(self) -> int:
        """0 all passed, 1 with warnings, 2 not ready."""
        return EXIT_CODES[self.verdict]

    def of(self, status: Status) -> tuple[Outcome, ...]:
        """Return the outcomes with a status."""
        return tuple(outcome for outcome in self.outcomes if outcome.result.status is status)

    def to_json(self) -> dict[str, Any]:
        """Return the evidence: everything but secrets, which no part of it has."""
        return {
            "version": 1,
            "run": self.id,
            "host": self.host,
            "environment": self.environment,
            "started": self.started.isoformat(timespec="milliseconds"),
            "duration_seconds": round(self.seconds, 6),
            "settings_sha256": self.settings_sha256,
            "verdict": self.verdict.value,
            "ready_for_live": self.ready_for_live,
            "exit_code": self.exit_code,
            "checks": [_to_json(outcome) for outcome in self.outcomes],
            "notifications": list(self.notifications),
        }

    def table(self) -> str:
        """Return the table for people; plain text, since it also goes to the journal."""
        lines = list(_rows(self.outcomes))
        ready = {Status.PASS: "YES", Status.WARN: "YES, with warnings", Status.FAIL: "NO"}[self.verdict]
        lines.append("")
        lines.append(
            f"{self.host} ({self.environment}): {len(self.outcomes)} checks in {milliseconds(self.seconds)}, "
            f"{len(self.of(Status.FAIL))} failed, {len(self.of(Status.WARN))} with a warning"
        )
        lines.append(f"Ready for live: {ready}")
        return "\n".join(lines)


def _to_json(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    return {
        "check": outcome.check.name,
        "status": result.status.value,
        "message": result.message,
        "next_step": result.next_step,
        "latency_seconds": None if result.latency is None else round(result.latency, 6),
        "seconds": round(outcome.seconds, 6),
    }


def _rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    width = max((len(outcome.check.name) for outcome in outcomes), default=0)
    for outcome in outcomes:
        result = outcome.result
        text = [result.message]
        if result.next_step:
            text.append(f"-> {result.next_step}")
        # Paths and addresses stay in one piece, so that they can be copied.
        lines = [
            line
            for part in text
            for line in textwrap.wrap(
                part, _MESSAGE_WIDTH, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False
            )
        ]
        yield f"{result.status.value:<5} {outcome.check.name:<{width}}  {lines[0]}"
        yield from (f"{'':<6}{'':<{width}}  {line}" for line in lines[1:])
