"""Memory of the real-time process: on which NUMA nodes it lies, by which policy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

_NODE_PAGES: Final = re.compile(r" N(\d+)=(\d+)")
_PAGE_KB: Final = re.compile(r" kernelpagesize_kB=(\d+)")


@dataclass(frozen=True)
class Resident:
    """Resident memory by NUMA node, in kB."""

    kb_by_node: Mapping[int, int]

    @property
    def total_kb(self) -> int:
        """All of it."""
        return sum(self.kb_by_node.values())

    def share(self, node: int) -> float:
        """Return the share on one node in percent."""
        return 100.0 * self.kb_by_node.get(node, 0) / self.total_kb if self.total_kb else 0.0


@dataclass(frozen=True)
class Memory:
    """Memory of the real-time process: all of it, that without files, and the policies of its mappings, numa(7)."""

    everything: Resident
    private: Resident
    policies: frozenset[str]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the mappings of the real-time process, `$rt`."""
    return {"numa_maps": "cat /proc/$rt/numa_maps"} if questions.application else {}


def read(answer: Answer) -> Memory:
    """Read what `ask` asked."""
    lines = answer.filled("numa_maps")
    return Memory(
        everything=_resident(lines),
        private=_resident(line for line in lines if " file=" not in line),
        policies=frozenset(line.split()[1] for line in lines if len(line.split()) > 1),
    )


def _resident(lines: Iterable[str]) -> Resident:
    """Sum resident memory by node, over all given mappings, as `numastat -p` does."""
    counted: dict[int, int] = {}
    for line in lines:
        size = _PAGE_KB.search(line)
        for node, pages in _NODE_PAGES.findall(line):
            counted[int(node)] = counted.get(int(node), 0) + int(pages) * (int(size[1]) if size else 4)
    return Resident(counted)
