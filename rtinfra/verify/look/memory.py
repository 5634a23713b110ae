"""Memory of the real-time process: on which NUMA nodes it lies, by which policy, whether it is locked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

_NODE_PAGES: Final = re.compile(r" N(\d+)=(\d+)")
_OWN_PAGES: Final = re.compile(r" anon=(\d+)")
_SIZE: Final = re.compile(r"(\w+): +(\d+) kB")
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
    """Memory of the real-time process: all of it, and that without files.

    `kb_by_policy` is the memory that the process has written, by the policy of its mappings in the words of numa(7).
    `unlocked_kb` is what is in RAM and may leave it; None when the kernel does not tell.
    """

    everything: Resident
    private: Resident
    kb_by_policy: Mapping[str, int]
    unlocked_kb: int | None

    def policy_share(self, policy: str) -> float:
        """Return the share of written memory that is placed by a policy, in percent."""
        total = sum(self.kb_by_policy.values())
        return 100.0 * self.kb_by_policy.get(policy, 0) / total if total else 0.0


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the mappings of the real-time process, `$rt`."""
    if not questions.application:
        return {}
    return {"numa_maps": 'cat "/proc/$rt/numa_maps"', "smaps_rollup": 'cat "/proc/$rt/smaps_rollup"'}


def read(answer: Answer) -> Memory:
    """Read what `ask` asked."""
    lines = answer.filled("numa_maps")
    return Memory(
        everything=_resident(lines),
        private=_resident(line for line in lines if " file=" not in line),
        kb_by_policy=_by_policy(lines),
        unlocked_kb=_unlocked(answer.lines("smaps_rollup")),
    )


def _by_policy(lines: Iterable[str]) -> dict[str, int]:
    """Sum pages that belong to the process alone (`anon`: written at least once) by the policy of their mapping."""
    found: dict[str, int] = {}
    for line in lines:
        pages, size, words = _OWN_PAGES.search(line), _PAGE_KB.search(line), line.split()
        if pages and len(words) > 1:
            found[words[1]] = found.get(words[1], 0) + int(pages[1]) * (int(size[1]) if size else 4)
    return found


def _unlocked(lines: Iterable[str]) -> int | None:
    """Return what is resident and not locked, proc_pid_smaps(5): `Locked` counts shared pages as `Pss` does."""
    sizes = {match[1]: int(match[2]) for line in lines if (match := _SIZE.match(line))}
    return sizes["Pss"] - sizes["Locked"] if {"Pss", "Locked"} <= sizes.keys() else None


def _resident(lines: Iterable[str]) -> Resident:
    """Sum resident memory by node, over all given mappings, as `numastat -p` does."""
    counted: dict[int, int] = {}
    for line in lines:
        size = _PAGE_KB.search(line)
        for node, pages in _NODE_PAGES.findall(line):
            counted[int(node)] = counted.get(int(node), 0) + int(pages) * (int(size[1]) if size else 4)
    return Resident(counted)
