"""Interrupts: who uses each, where it may go, where it goes, what arrived while we watched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.cpu import parse_cpu_mask
from rtinfra.verify.look.answer import Answer, cpu_list, read_files
from rtinfra.verify.questions import Questions

_DEFAULT: Final = "/proc/irq/default_smp_affinity"
_FILES: Final = (
    _DEFAULT,
    "/proc/irq/[0-9]*/smp_affinity_list",
    "/proc/irq/[0-9]*/effective_affinity_list",
    "/sys/kernel/irq/[0-9]*/actions",
)
_COUNTS: Final = "cat /proc/interrupts"
# An interrupt that refuses even the value it has is placed by the kernel alone (managed, per CPU, timer). Only
# those are tried that are not where the default puts them: shell built-ins, no fork.
_IMMOVABLE: Final = f"""read -r default <{_DEFAULT}
for d in /proc/irq/[0-9]*; do
    read -r mask <"$d/smp_affinity" || continue
    [ "$mask" = "$default" ] || echo "$mask" >"$d/smp_affinity" || echo "${{d##*/}}"
done"""


@dataclass(frozen=True)
class Interrupt:
    """One interrupt line: who uses it, where it may go, where it goes.

    `arrivals` counts by CPU what arrived while the snapshot was taken.
    """

    number: int
    users: str
    requested: frozenset[int]
    effective: frozenset[int]
    is_movable: bool
    arrivals: Mapping[int, int]

    def __str__(self) -> str:
        return f"{self.number} ({self.users or 'unused'})"


@dataclass(frozen=True)
class Interrupts:
    """All interrupt lines, and the CPUs that a new one may go to (`default`)."""

    all: tuple[Interrupt, ...]
    default: frozenset[int]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask where interrupts go, and for their counts at both ends of the watch."""
    return {
        "interrupts_before": _COUNTS,
        "interrupt_values": read_files(_FILES),
        "immovable": _IMMOVABLE,
        "interrupts_after": _COUNTS,
    }


def read(answer: Answer) -> Interrupts:
    """Read what `ask` asked."""
    values = answer.files("interrupt_values")
    default = values.get(_DEFAULT, "")
    return Interrupts(
        all=tuple(_interrupts(values, answer)), default=parse_cpu_mask(default) if default else frozenset()
    )


def _interrupts(values: Mapping[str, str], answer: Answer) -> Iterator[Interrupt]:
    fixed = {int(line) for line in answer.lines("immovable") if line.strip().isdecimal()}
    before, after = (_counts(answer.lines(name)) for name in ("interrupts_before", "interrupts_after"))
    for path, text in values.items():
        match = re.fullmatch(r"/proc/irq/(\d+)/smp_affinity_list", path)
        if match is None:
            continue
        number = int(match[1])
        earlier = before.get(number, {})
        yield Interrupt(
            number=number,
            users=values.get(f"/sys/kernel/irq/{number}/actions", ""),
            requested=cpu_list(text),
            effective=cpu_list(values.get(f"/proc/irq/{number}/effective_affinity_list", "")),
            is_movable=number not in fixed,
            arrivals={cpu: count - earlier.get(cpu, 0) for cpu, count in after.get(number, {}).items()},
        )


def _counts(lines: list[str]) -> dict[int, dict[int, int]]:
    """Read /proc/interrupts: for each numbered interrupt the count of every online CPU."""
    if not lines:
        return {}
    cpus = [int(word.removeprefix("CPU")) for word in lines[0].split()]
    counts = {}
    for line in lines[1:]:
        number, _, rest = line.partition(":")
        if number.strip().isdecimal():
            counts[int(number)] = dict(zip(cpus, map(int, rest.split()[: len(cpus)]), strict=False))
    return counts
