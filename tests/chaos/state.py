"""The end state of a host as a value that can be compared, and what two of them differ in, by name."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rtinfra.lab import Machine

_GATHER = Path(__file__).with_name("gather.py")
_NOTHING = "nothing"
# A hash over kernel, initrd and command line. Not a part of a UUID.
_ID = re.compile(r"(?<![0-9a-fA-F-])[0-9a-f]{12}(?![0-9a-fA-F-])")
# Where such ids occur: sections as a whole, and in `files` the directories named by them.
_SECTIONS_WITH_IDS = ("boot", "initrd")
_DIRECTORY_WITH_IDS = "/boot/rtinfra/"


@dataclass(frozen=True)
class Difference:
    """One value that is not what it is elsewhere: of a package, a file, a unit, a boot entry, a value of the kernel."""

    section: str
    name: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.section}: {self.name}: expected {self.expected}, found {self.actual}"


@dataclass(frozen=True)
class HostState:
    """Everything that a deploy may leave behind: section -> name -> value; what, is written in gather.py."""

    sections: Mapping[str, Mapping[str, str]]

    @classmethod
    def parse(cls, text: str) -> HostState:
        """Build one from what gather.py prints; ids of boot entries count as equal."""
        return cls({name: _without_ids(name, values) for name, values in json.loads(text).items()})

    @property
    def size(self) -> int:
        """How many values there are to compare."""
        return sum(map(len, self.sections.values()))


def gather(machine: Machine) -> HostState:
    """Look at a machine, with one command. Raises CommandFailed."""
    return HostState.parse(machine.run("python3 -", input=_GATHER.read_bytes(), timeout=600).stdout)


def differences(expected: HostState, actual: HostState) -> list[Difference]:
    """Every value that is missing, is too many, or differs; ordered by section and name."""
    found = []
    for section in sorted({*expected.sections, *actual.sections}):
        required, there = expected.sections.get(section, {}), actual.sections.get(section, {})
        for name in sorted({*required, *there}):
            if required.get(name) != there.get(name):
                found.append(Difference(section, name, required.get(name, _NOTHING), there.get(name, _NOTHING)))
    return found


def _without_ids(section: str, values: Mapping[str, str]) -> dict[str, str]:
    """Put the same word for all ids; values whose names become the same stand together, in order."""
    together: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        if section in _SECTIONS_WITH_IDS or name.startswith(_DIRECTORY_WITH_IDS):
            together[_ID.sub("<id>", name)].append(_ID.sub("<id>", value))
        else:
            together[name].append(value)
    return {name: " | ".join(sorted(found)) for name, found in together.items()}
