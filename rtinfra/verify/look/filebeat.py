"""Filebeat's own opinion of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from roles.agents.model import FILEBEAT_UNIT
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Filebeat:
    """What `filebeat test config` says; its last line is `Config OK` when it is right."""

    messages: tuple[str, ...]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask Filebeat, where it ships the logs."""
    if not any(program.unit == FILEBEAT_UNIT for program in questions.programs):
        return {}
    return {"filebeat": "filebeat test config 2>&1"}


def read(answer: Answer) -> Filebeat:
    """Read what `ask` asked."""
    return Filebeat(answer.filled("filebeat"))
