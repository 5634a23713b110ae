"""The clock, as chrony keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Clock:
    """Columns of `chronyc -c tracking`; empty when chrony does not answer."""

    tracking: tuple[str, ...]

    @property
    def leap_status(self) -> str:
        """`Normal` while the clock is synchronised."""
        return self.tracking[-1] if self.tracking else "chrony does not answer"

    @property
    def is_synchronised(self) -> bool:
        """Whether chrony follows a source."""
        return len(self.tracking) > 4 and self.leap_status != "Not synchronised"

    @property
    def offset_seconds(self) -> float:
        """What remains between the clock and its source."""
        return float(self.tracking[4])


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask chrony."""
    return {"clock_tracking": "chronyc -c tracking"}


def read(answer: Answer) -> Clock:
    """Read what `ask` asked."""
    text = answer.line("clock_tracking")
    return Clock(tuple(text.split(",")) if text else ())
