"""CPU lists in kernel grammar, and CPU masks.

Grammar: https://docs.kernel.org/admin-guide/kernel-parameters.html ("cpu lists").
Masks: https://docs.kernel.org/core-api/kernel-api.html (bitmap_parse: hexadecimal, 32-bit groups).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: The largest CONFIG_NR_CPUS that any Linux distribution builds with; more is a typing mistake.
MAX_CPUS: Final = 8192

# A list that names each of MAX_CPUS on its own, with four digits and a comma, is this long.
_MAX_TEXT = MAX_CPUS * 5
_ITEM = re.compile(
    r"(?:(?P<all>[aA][lL][lL])|(?P<first>[0-9]+|N)(?:(?P<dash>-)(?P<last>[0-9]+|N))?)"
    r"(?P<pattern>:(?P<used>[0-9]+)/(?P<group>[0-9]+))?"
)
_HEX_GROUPS = re.compile(r"[0-9a-fA-F]+(?:,[0-9a-fA-F]{1,8})*")


class CpuListError(ValueError):
    """A CPU list or mask that cannot be used.

    Attributes:
        value: the offending text, the whole list or one element of it.
        reason: what is wrong, in plain words, without a full stop.
        suggestion: what to write instead, or None when nothing can be guessed.
    """

    def __init__(self, value: str, reason: str, suggestion: str | None = None) -> None:
        super().__init__(f"{reason}; {suggestion}" if suggestion else reason)
        self.value = value
        self.reason = reason
        self.suggestion = suggestion


class NeedsTopology(CpuListError):
    """The list is well-formed, but `N` or `all` in it means nothing without a host."""


@dataclass(frozen=True)
class _Element:
    """One element of a list. `None` as a bound stands for `N`; `used` of every `group` CPUs are meant."""

    text: str
    first: int | None
    last: int | None
    used: int
    group: int
    is_all: bool

    @property
    def needs_topology(self) -> bool:
        return self.first is None or self.last is None


def parse_cpu_list(text: str, online: frozenset[int] | None) -> frozenset[int]:
    """Expand a CPU list in kernel grammar: `a`, `a-b`, `a,b-c`, `a-b:used/group`, `N`, `all`.

    Blanks around commas are accepted. `N` is the last online CPU and `all` is every online CPU.

    Args:
        text: the list, for example `2-3`, `2-N` or `0-15:2/4`.
        online: the CPUs of the host; None when there is no host to ask, then only explicit lists work.

    Raises:
        NeedsTopology: `online` is None and the list uses `N` or `all`.
        CpuListError: malformed, empty, backwards, too large, or naming a CPU that is not online.
    """
    elements = _read(text)
    if online is None:
        for element in elements:
            if element.needs_topology:
                raise NeedsTopology(
                    text,
                    f"{element.text} can only be expanded on a host",
                    "name the CPUs, for example 2-3, or state how many CPUs the host has",
                )
    elif not online:
        raise CpuListError(text, "there are no online CPUs to choose from")
    cpus: set[int] = set()
    for element in elements:
        cpus.update(_expand(element, online))
    if online is not None and not cpus <= online:
        raise _unknown(text, frozenset(cpus), online)
    return frozenset(cpus)


def _read(text: str) -> list[_Element]:
    """Split a list into its elements; refuses everything that is wrong on any host."""
    if not text.strip():
        raise CpuListError(text, "the list is empty", 'name at least one CPU, for example "2-3"')
    if len(text) > _MAX_TEXT:
        raise CpuListError(text[:40] + "...", f"the list is longer than one of {MAX_CPUS} CPUs can be")
    return [_read_element(part.strip(), text) for part in text.split(",")]


def _read_element(part: str, text: str) -> _Element:
    match = _ITEM.fullmatch(part)
    if match is None:
        what = f"{part} is not a CPU number or range" if part else "there is nothing between two commas"
        raise CpuListError(text, what, _repair(text))
    if match["pattern"] and not (match["all"] or match["dash"]):
        example = f"{match['first']}-N{match['pattern']}"
        raise CpuListError(text, f"{part} has a group but no range", f"write a range, for example {example}")
    for number in (match["first"], match["last"], match["used"], match["group"]):
        # The length is looked at first, since int() refuses thousands of digits with an error of its own.
        if number not in (None, "N") and (len(number) > 9 or int(number) >= MAX_CPUS):
            raise CpuListError(text, f"{number[:12]} is beyond {MAX_CPUS - 1}, the last CPU Linux can have")
    first = 0 if match["all"] else _bound(match["first"])
    last = None if match["all"] else _bound(match["last"]) if match["dash"] else first
    if first is not None and last is not None and first > last:
        raise CpuListError(text, f"{part} runs backwards", f"did you mean {last}-{first}?")
    used, group = (int(match["used"]), int(match["group"])) if match["pattern"] else (1, 1)
    if group == 0 or used == 0:
        raise CpuListError(text, f"{part} selects nothing: used and group must be at least 1")
    if used > group:
        raise CpuListError(text, f"{part} uses {used} of every {group} CPUs", f"did you mean :{group}/{used} instead?")
    is_all = match["all"] is not None and not match["pattern"]
    return _Element(part, first, last, used, group, is_all)


def _bound(number: str) -> int | None:
    return None if number == "N" else int(number)


def _repair(text: str) -> str:
    """Undo what people and spreadsheets do to lists: other dashes, blanks or brackets, a small n."""
    candidate = re.sub(r"\s*(?:[\u2010-\u2015\u2212~]|\.\.+)\s*", "-", text.strip(" \t\r\n[](){}\"'"))
    candidate = re.sub(r"\s*-\s*", "-", candidate)
    candidate = re.sub(r"[\s,;]+", ",", candidate).strip(",").replace("n", "N")
    if all(_ITEM.fullmatch(part) for part in candidate.split(",")):
        return f"did you mean {candidate}?"
    return 'write numbers and ranges, for example "1,2-3"'


def _expand(element: _Element, online: frozenset[int] | None) -> Iterable[int]:
    if element.is_all and online is not None:
        return online
    end = max(online) if online else 0
    first = end if element.first is None else element.first
    last = end if element.last is None else element.last
    if first > last:
        if element.last is None:
            raise CpuListError(
                element.text,
                f"{element.text} is empty on a host whose last CPU is {end} (N = {end})",
                f"did you mean {end - 1}-{end} or {end}?" if end else "did you mean 0?",
            )
        raise CpuListError(
            element.text,
            f"{element.text} runs backwards on a host whose last CPU is {end} (N = {end})",
            f"did you mean {last}-N?",
        )
    return (cpu for cpu in range(first, last + 1) if (cpu - first) % element.group < element.used)


def _unknown(text: str, cpus: frozenset[int], online: frozenset[int]) -> CpuListError:
    missing, known = cpus - online, cpus & online
    return CpuListError(
        text,
        f"{cpus_are(format_cpu_list(missing))} not online on this host (online: {format_cpu_list(online)})",
        f"did you mean {format_cpu_list(known)}?" if known else f"choose from {format_cpu_list(online)}",
    )


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return the canonical list, ascending and with ranges: `0-1,4`. Empty for no CPUs."""
    parts: list[str] = []
    ordered = sorted(set(cpus))
    start = 0
    for index, cpu in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == cpu + 1:
            continue
        parts.append(str(cpu) if start == index else f"{ordered[start]}-{cpu}")
        start = index + 1
    return ",".join(parts)


def cpu_mask(cpus: Iterable[int]) -> int:
    """Return the bit mask with bit `n` set for CPU `n`. Compare masks as integers, never as text."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def format_cpu_mask(cpus: Iterable[int]) -> str:
    """Return the kernel's bitmap text: hexadecimal, groups of 32 bits with commas, no leading zeros."""
    mask = cpu_mask(cpus)
    groups = []
    while mask >> 32:
        groups.append(f"{mask & 0xFFFFFFFF:08x}")
        mask >>= 32
    groups.append(f"{mask:x}")
    return ",".join(reversed(groups))


def parse_cpu_mask(text: str) -> frozenset[int]:
    """Read a CPU mask as the kernel (`00000000,0000000c`) or taskset (`c`) prints it.

    Raises:
        CpuListError: not hexadecimal groups, or more than MAX_CPUS bits.
    """
    stripped = text.strip()
    if not _HEX_GROUPS.fullmatch(stripped):
        raise CpuListError(text, "is not a CPU mask: hexadecimal digits, in groups of up to eight")
    first, *others = stripped.split(",")
    # A group is 32 bits even where its leading zeros are missing; only the first may be longer (taskset).
    digits = "".join([first, *(group.zfill(8) for group in others)]).lstrip("0")
    if len(digits) * 4 > MAX_CPUS:
        raise CpuListError(text[:40] + "...", f"has more than {MAX_CPUS} bits")
    mask = int(digits or "0", 16)
    return frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def cpus_are(text: str) -> str:
    """Begin a sentence about the CPUs of a list: `CPU 3 is`, `CPUs 2-3 are`."""
    return f"CPU {text} is" if text.isdecimal() else f"CPUs {text} are"
