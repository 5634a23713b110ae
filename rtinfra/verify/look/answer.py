"""A host's answer, by sections, and the ways in which looks write and read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rtinfra.cpu import parse_cpu_list

_LIMIT: Final = re.compile(r"(?P<name>Max [a-z-]+(?: [a-z]+)*?) {2,}(?P<soft>\S+) +(?P<hard>\S+)")


@dataclass(frozen=True)
class Answer:
    """The sections of a host's answer; one that was not asked or stayed silent reads as nothing."""

    sections: Mapping[str, Sequence[str]]

    def has(self, name: str) -> bool:
        """Whether a section is there, even an empty one."""
        return name in self.sections

    def lines(self, name: str) -> list[str]:
        """All lines of a section."""
        return list(self.sections.get(name, ()))

    def filled(self, name: str) -> tuple[str, ...]:
        """The lines of a section that are not blank."""
        return tuple(line for line in self.sections.get(name, ()) if line.strip())

    def line(self, name: str) -> str:
        """The first line of a section."""
        return next(iter(self.sections.get(name, ())), "").strip()

    def text(self, name: str) -> str:
        """A section as one text."""
        return "\n".join(self.sections.get(name, ()))

    def files(self, name: str) -> dict[str, str]:
        """Contents by path of files that `read_files` asked for; a file that does not exist is absent."""
        return dict(named(self.sections.get(name, ())))


def read_files(paths: Iterable[str]) -> str:
    """Return a command that prints files of one line each, by the hundred in one fork; paths may be patterns.

    NUL stands between name and value: names of workqueues may hold colons.
    """
    return f"grep -sHZ '' {' '.join(paths)}"


def named(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield path and line of `grep -HZ`."""
    for line in lines:
        path, separator, value = line.partition("\0")
        if separator:
            yield path, value.strip()


def cpu_list(text: str) -> frozenset[int]:
    """Read a CPU list of the kernel; empty when it is empty or absent."""
    # nohz_full prints "(null)" on a kernel that could, but was not told to.
    return parse_cpu_list(text, None) if text and text != "(null)" else frozenset()


def hard_limits(lines: Iterable[str]) -> dict[str, str]:
    """Read /proc/PID/limits: hard limits by name without `Max `."""
    return {match["name"].removeprefix("Max "): match["hard"] for line in lines if (match := _LIMIT.match(line))}


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object; empty when it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
