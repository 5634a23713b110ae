"""Environment variables that the application cannot do without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result, Status
from rtinfra.preflight.settings import CheckSettings, VariableSettings


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check for all variables."""
    if settings.variables:
        yield Check("variables", partial(_run, settings.variables))


def _run(required: tuple[VariableSettings, ...], context: Context) -> Result:
    wrong = [f"{one.name} {reason}" for one in required if (reason := _reason(one, context.variables.get(one.name)))]
    if wrong:
        return Result(Status.FAIL, "; ".join(wrong), "correct them in the environment file of the application")
    return Result(Status.PASS, f"{len(required)} of {len(required)} are set")


def _reason(one: VariableSettings, value: str | None) -> str:
    if not value:
        return "is not set" if value is None else "is empty"
    if one.pattern is not None and not re.fullmatch(one.pattern, value):
        # Not the value: it may be a secret.
        return f"does not match {one.pattern}"
    return ""
