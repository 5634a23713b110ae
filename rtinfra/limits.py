"""The limits that alerts, panels, controls and documents share: metrics/limits.yaml, typed.

A text that uses one writes `[[name]]`, or `[[name:form]]` for people and for PromQL's ranges; `filled` puts it in. No
PromQL and none of Grafana's variables look like that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from rtinfra.config.document import load_document
from rtinfra.config.explain import did_you_mean
from rtinfra.config.types import Duration, SettingError, Settings
from rtinfra.paths import PROJECT

LIMITS: Final = PROJECT / "metrics" / "limits.yaml"

Ratio = Annotated[float, Field(gt=0, lt=1)]
"""A share, 0 to 1."""

Percent = Annotated[float, Field(gt=0, le=100)]
"""A share, 0 to 100, of a metric that counts like that."""

Factor = Annotated[float, Field(gt=1)]
"""How many times more than something."""

Count = Annotated[int, Field(ge=1)]
"""A number of things."""

# The lesser limit of each pair comes first.
_IN_ORDER: Final = (
    ("deadline_burn_factor", "deadline_burn_fast_factor"),
    ("jitter_early_ratio", "jitter_ratio"),
    ("numa_local_low_percent", "numa_local_percent"),
    ("disk_free_critical_ratio", "disk_free_low_ratio"),
    ("check_age", "check_age_long"),
    ("preflight_age_early", "preflight_age"),
    ("host_silence", "service_silence"),
    ("queue_fill_early_ratio", "queue_fill_ratio"),
    ("watchdog_silence", "watchdog_silence_long"),
)


class Limits(Settings):
    """Every limit; what each bounds, and who uses it, stands in metrics/limits.yaml above its value."""

    deadline_miss_ratio: Ratio
    deadline_burn_fast_factor: Factor
    deadline_burn_factor: Factor
    jitter_ratio: Ratio
    jitter_early_ratio: Ratio
    assumed_period_us: Count
    jitter_left_ratio: Ratio
    worst_latency_us: Count
    measured_cycles_ratio: Ratio
    numa_local_percent: Percent
    numa_local_low_percent: Percent
    recovery: Duration
    health_answer: Duration
    tracing_cost_ratio: Ratio
    unit_exposure: float = Field(ge=0, le=10)
    disk_free_low_ratio: Ratio
    disk_free_critical_ratio: Ratio
    disk_ignored_types: str = Field(pattern=r"^[a-z0-9]+(\|[a-z0-9]+)*$")
    memory_free_ratio: Ratio
    clock_difference: Duration
    clock_offset: Duration
    check_age: Duration
    check_age_long: Duration
    preflight_age: Duration
    preflight_age_early: Duration
    certificate_left: Duration
    host_silence: Duration
    service_silence: Duration
    http_error_ratio: Ratio
    http_error_window: Duration
    queue_fill_ratio: Ratio
    queue_fill_early_ratio: Ratio
    watchdog_silence: Duration
    watchdog_silence_long: Duration
    log_delay: Duration
    log_lines_per_second: Count
    gateways: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for lesser, greater in _IN_ORDER:
            if not getattr(self, lesser) < getattr(self, greater):
                raise SettingError(f"{lesser} must be less than {greater}")
        return self

    @property
    def disk_used_low_ratio(self) -> float:
        """Used share of a file system that leaves `disk_free_low_ratio`."""
        return round(1 - self.disk_free_low_ratio, 9)

    @property
    def disk_used_critical_ratio(self) -> float:
        """Used share of a file system that leaves `disk_free_critical_ratio`."""
        return round(1 - self.disk_free_critical_ratio, 9)


@cache
def project_limits() -> Limits:
    """Return the limits of this project.

    Raises:
        ConfigError: the file cannot be read or is wrong; every problem with its line.
    """
    return load_limits(LIMITS)


def load_limits(path: Path) -> Limits:
    """Read a file of limits.

    Raises:
        ConfigError: it cannot be read or is wrong; every problem with its line.
    """
    return load_document(Limits, path, str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path))


#: What a text may name: the limits, and what follows from one.
NAMES: Final = frozenset(Limits.model_fields) | {"disk_used_low_ratio", "disk_used_critical_ratio"}
#: Those of them that are numbers, or times: all but patterns.
NUMBERS: Final = NAMES - {name for name, field in Limits.model_fields.items() if field.annotation is str}
_PLACE = re.compile(r"\[\[([a-z_]+)(?::([a-z_]+))?\]\]")
# Milliseconds of a unit, for people, in Korean, and in PromQL; the largest that needs no fraction is taken.
_UNITS: Final = (
    (86_400_000, "day", "일", "d"),
    (3_600_000, "hour", "시간", "h"),
    (60_000, "minute", "분", "m"),
    (1_000, "second", "초", "s"),
    (1, "millisecond", "밀리초", "ms"),
)


def number(limits: Limits, name: str) -> float:
    """Return a limit as a number: a time in seconds, all others in their own unit."""
    value = getattr(limits, name)
    if isinstance(value, Duration):
        return value.seconds
    if not isinstance(value, (int, float)):
        raise ValueError(f"{name} is no number")
    return value


def _plain(limits: Limits, name: str) -> str:
    value = getattr(limits, name)
    return value if isinstance(value, str) else format(number(limits, name), ".12g")


def _percent(limits: Limits, name: str) -> str:
    value = number(limits, name)
    return f"{value if name.endswith('_percent') else 100 * value:.6g} %"


def _whole(limits: Limits, name: str) -> str:
    return str(int(number(limits, name)))


def _one_in(limits: Limits, name: str) -> str:
    return f"1 in {round(1 / number(limits, name))}"


def _amount(limits: Limits, name: str) -> tuple[int, tuple[int, str, str, str]]:
    """Return a time as a whole number of a unit: 2 days, 36 hours."""
    milliseconds = round(1000 * number(limits, name))
    unit = next(unit for unit in _UNITS if milliseconds % unit[0] == 0)
    return milliseconds // unit[0], unit


def _span(limits: Limits, name: str) -> str:
    amount, unit = _amount(limits, name)
    return f"{amount} {unit[1]}{'' if amount == 1 else 's'}"


def _korean(limits: Limits, name: str) -> str:
    amount, unit = _amount(limits, name)
    return f"{amount}{unit[2]}"


def _range(limits: Limits, name: str) -> str:
    amount, unit = _amount(limits, name)
    return f"{amount}{unit[3]}"


_FORMS: Final[Mapping[str | None, Callable[[Limits, str], str]]] = {
    None: _plain,  # as PromQL computes with it, a time in seconds
    "range": _range,  # 2m, as PromQL writes times
    "percent": _percent,  # 0.01 %
    "whole": _whole,  # 14, of 14.4
    "one_in": _one_in,  # 1 in 10000
    "span": _span,  # 2 minutes
    "korean": _korean,  # 2분
}


def check_places(text: str) -> str:
    """Return the text; whatever `[[...]]` it has names a limit and a form.

    Raises:
        SettingError: one does not.
    """
    for found in re.findall(r"\[\[[^\[\]]*\]\]", text):
        match = _PLACE.fullmatch(found)
        if match is None or match[1] not in NAMES:
            raise SettingError(f"{found} names no limit", did_you_mean(found.strip("[]"), sorted(NAMES)))
        if match[2] not in _FORMS:
            raise SettingError(f"{found} has no known form", did_you_mean(match[2], sorted(filter(None, _FORMS))))
    return text


def filled(text: str, limits: Limits) -> str:
    """Return a text with limits where it names them.

    Raises:
        SettingError: it names one that does not exist.
    """
    return _PLACE.sub(lambda match: _FORMS[match[2]](limits, match[1]), check_places(text))
