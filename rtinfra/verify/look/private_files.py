"""Files that are for one account alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from rtinfra.facts import output_sections
from rtinfra.verify.look import foreign
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class PrivateFiles:
    """Mode and user of everything in the directories that are for one account, by path."""

    access: Mapping[str, str]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for everything in the directories."""
    if not questions.private_directories:
        return {}
    places = " ".join(shlex.quote(path) for path in questions.private_directories)
    return {"private_files": f"find {places} -printf '%p %m %u\\0' | {foreign.ONE_LINE_EACH}"}


def read(answer: Answer) -> PrivateFiles:
    """Read what `ask` asked."""
    return PrivateFiles(dict(output_sections.pairs(answer.lines("private_files"))))
