"""Comparisons that say expected and actual in plain words, in a failing test and in the report alike.

A compliance test reads `expect.equal(snapshot.isolated, layout.isolated, "isolated cores")`. Every comparison is
recorded, passed ones too: the report shows what was seen, not only that it was right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

import pytest

from rtinfra.config.types import Duration, SettingError
from rtinfra.cpu import format_cpu_list

T = TypeVar("T")

#: What systemd-detect-virt(1) says of a machine emulated without KVM.
EMULATED = "qemu"

_MOST_OFFENDERS_SHOWN = 8


@dataclass(frozen=True)
class Observation:
    """One comparison: what was looked at, what it should be and what it is."""

    what: str
    expected: str
    actual: str


@dataclass
class Record:
    """Everything observed while one control ran.

    `measured` holds why a value was only measured and not judged; None when it was judged.
    """

    observations: list[Observation] = field(default_factory=list)
    measured: str | None = None


class Mismatch(AssertionError):
    """What is there is not what should be there."""

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        super().__init__(f"{observation.what}: expected {observation.expected}, found {observation.actual}")


_record: ContextVar[Record | None] = ContextVar("record", default=None)


@contextmanager
def recording() -> Iterator[Record]:
    """Collect the comparisons made within the block."""
    record = Record()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def that(holds: bool, actual: object, expected: object, what: str) -> None:
    """Expect `holds`; the other arguments are for the reader.

    Raises:
        Mismatch: it does not hold.
    """
    observation = Observation(what, shown(expected), shown(actual))
    if not holds:
        raise Mismatch(observation)
    if record := _record.get():
        record.observations.append(observation)


def found(value: T | None, what: str, instead: object, expected: object = "there") -> T:
    """Expect something to be there and return it; `instead` says what was seen in its place."""
    if value is None:
        raise Mismatch(Observation(what, shown(expected), shown(instead)))
    return value


def equal(actual: object, expected: object, what: str) -> None:
    """Expect two values to be the same."""
    that(actual == expected, actual, expected, what)


def at_least(actual: float, minimum: float, what: str, unit: str = "") -> None:
    """Expect a number not below a minimum."""
    that(actual >= minimum, f"{_number(actual)} {unit}", f"at least {_number(minimum)} {unit}", what)


def below(actual: float, limit: float, what: str, unit: str = "") -> None:
    """Expect a number below a limit."""
    that(actual < limit, f"{_number(actual)} {unit}", f"less than {_number(limit)} {unit}", what)


def time_span(actual: str, expected: Duration, what: str) -> None:
    """Expect a time span as systemd prints it to be as long as a setting, in whatever units either is written."""
    try:
        holds = Duration.parse(actual) == expected
    except SettingError:
        holds = False  # nothing, or `infinity`
    that(holds, actual, expected, what)


def entries(actual: Mapping[str, object], expected: Mapping[str, object], what: str) -> None:
    """Expect every key of `expected` with its value; further keys do not matter. Shows what differs, or all."""
    wrong = [key for key, value in expected.items() if key not in actual or actual[key] != value]
    keys = wrong or list(expected)
    that(
        not wrong,
        ", ".join(f"{key} {shown(actual[key]) if key in actual else 'absent'}" for key in keys),
        ", ".join(f"{key} {shown(expected[key])}" for key in keys),
        what,
    )


def nothing(offenders: Iterable[object], what: str) -> None:
    """Expect that there are no offenders; names the first few."""
    found = [shown(offender) for offender in offenders]
    listed = ", ".join(found[:_MOST_OFFENDERS_SHOWN])
    if len(found) > _MOST_OFFENDERS_SHOWN:
        listed += f" and {len(found) - _MOST_OFFENDERS_SHOWN} more"
    that(not found, listed or "none", "none", what)


def below_on_a_real_processor(value: float, limit: float, what: str, unit: str, virtualisation: str) -> None:
    """Hold a time against its limit; one that an emulated processor took too long for is reported, not judged.

    Without KVM the processor's work is done by the computer around it, beside everything else that runs there: within
    the limit proves something, beyond it does not.
    """
    if value >= limit and virtualisation == EMULATED:
        measured(f"{value:.1f} {unit}", what, f"{limit:g} {unit} are for a real processor; this one is emulated")
    else:
        below(value, limit, what, unit)


def measured(actual: object, what: str, why_not_judged: str) -> None:
    """Report a value without comparing it with anything, and say why."""
    if record := _record.get():
        record.observations.append(Observation(what, "not compared", shown(actual)))
        record.measured = why_not_judged


def not_applicable(reason: str) -> NoReturn:
    """End the control: it has no meaning on this host."""
    pytest.skip(reason)


def shown(value: object) -> str:
    """Return a value for a human: CPU sets as lists, nothing as a word."""
    if isinstance(value, frozenset) and all(isinstance(item, int) for item in value):
        return format_cpu_list(value) or "none"
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    return str(value).strip()


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
