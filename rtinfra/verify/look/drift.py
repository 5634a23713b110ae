"""The last result of the host's own drift checker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roles.drift.model import RESULT
from rtinfra.verify.look.answer import Answer, json_object
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Drift:
    """The checker's result; empty without one."""

    result: Mapping[str, Any]

    @property
    def finished(self) -> int:
        """When the check ended, in seconds since the epoch; 0 without a result."""
        return int(self.result.get("finished", 0))


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the file that the checker leaves."""
    return {"drift": f"cat {RESULT}"}


def read(answer: Answer) -> Drift:
    """Read what `ask` asked."""
    return Drift(json_object(answer.text("drift")))
