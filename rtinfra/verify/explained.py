"""Why a control matters and how to mend what it finds: tests/compliance/explanations.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Final

import yaml

from rtinfra.paths import PROJECT

EXPLANATIONS: Final = PROJECT / "tests" / "compliance" / "explanations.yaml"
_KEY: Final = re.compile(r"(?P<row>[A-Z]+-\d+)(?:\.(?P<first>\d+)(?: to (?P<same>[A-Z]+-\d+)\.(?P<last>\d+))?)?")


@dataclass(frozen=True)
class Explanation:
    """Why something matters and what to do when it does not hold; empty when nobody wrote it."""

    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class _Entry:
    """What stands under one key: a requirement, a range of its controls, or one control."""

    row: str
    first: float
    last: float
    texts: Mapping[str, str]

    def covers(self, control: str) -> bool:
        row, _, number = control.partition(".")
        return row == self.row and self.first <= int(number) <= self.last

    @property
    def width(self) -> float:
        return self.last - self.first


@dataclass(frozen=True)
class Explanations:
    """The texts of explanations.yaml by their keys: requirements, ranges of controls, controls."""

    _entries: Mapping[str, _Entry]

    def of(self, control: str) -> Explanation:
        """Return the texts for a control, each from the narrowest entry that has it."""
        fitting = sorted((entry for entry in self._entries.values() if entry.covers(control)), key=lambda it: -it.width)
        merged: dict[str, str] = {}
        for entry in fitting:
            merged |= entry.texts
        return Explanation(**merged)

    def unused(self, controls: set[str]) -> list[str]:
        """Return the keys that stand for none of these controls."""
        return [key for key, entry in self._entries.items() if not any(map(entry.covers, controls))]


@cache
def explanations(path: Path = EXPLANATIONS) -> Explanations:
    """Load explanations.yaml.

    Raises:
        ValueError: a key or an entry is not what the head of the file says.
    """
    found = {}
    for key, texts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        match = _KEY.fullmatch(key)
        if match is None or (match["same"] or match["row"]) != match["row"]:
            raise ValueError(f"{path.name}: {key!r} is no requirement, control or range of controls")
        if not texts or texts.keys() - {"why", "fix"} or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError(f"{path.name}: {key} needs a text for why, fix or both")
        first = float(match["first"] or 0)
        last = float(match["last"] or match["first"] or inf)
        found[key] = _Entry(match["row"], first, last, texts)
    return Explanations(found)
