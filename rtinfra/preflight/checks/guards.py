"""Safety switches: what must be off on paper must not be on, what must be on in production must not be off."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rtinfra.preflight.check import Check, Context, Result, Status
from rtinfra.preflight.settings import CheckSettings, GuardSettings

_LONGEST_VALUE = 200


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check for each switch."""
    for guard in settings.guards:
        yield Check(f"guard:{guard.name.replace(' ', '_')}", partial(_run, guard))


def _run(guard: GuardSettings, context: Context) -> Result:
    required: str | None = getattr(guard, context.environment)
    place = guard.variable or str(guard.file)
    if required is None:
        return Result(Status.PASS, f"{guard.name} does not matter in {context.environment}")
    try:
        found = _value(guard, context)
    except OSError as error:
        return _wrong(guard, f"{place} cannot be read ({error.strerror})", required, context)
    if found != required:
        return _wrong(guard, f"{place} is {_shown(found)}", required, context)
    return Result(Status.PASS, f"{guard.name} is {_shown(found)}, as it must be in {context.environment}")


def _shown(value: str) -> str:
    return repr(value) if value else "not set"


def _value(guard: GuardSettings, context: Context) -> str:
    if guard.variable is not None:
        return context.variables.get(guard.variable, "").strip()[:_LONGEST_VALUE]
    with Path(str(guard.file)).open(encoding="utf-8", errors="replace") as file:
        return file.read(_LONGEST_VALUE).strip()


def _wrong(guard: GuardSettings, what: str, required: str, context: Context) -> Result:
    return Result(
        Status.FAIL,
        f"{what}; in {context.environment} it must be {_shown(required)}",
        f"put the switch {guard.name} right before anything moves, and find out who changed it",
    )
