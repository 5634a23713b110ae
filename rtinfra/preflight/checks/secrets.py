"""Secrets that must be defined, and must be more than what somebody put there to fill the gap."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result, Status
from rtinfra.preflight.settings import CheckSettings
from rtinfra.secrets import SecretError

# What examples and forgotten templates say instead of a secret.
_PLACEHOLDERS = frozenset(("changeme", "change-me", "password", "secret", "token", "todo", "xxx", "none", "null"))


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check for all secrets."""
    if settings.required_secrets:
        yield Check("secrets", partial(_run, settings.required_secrets))


def _run(names: tuple[str, ...], context: Context) -> Result:
    wrong = []
    for name in names:
        try:
            value = context.secrets.get(name).get_secret_value()
        except SecretError as error:
            wrong.append(error.message)
            continue
        if value.strip("<>").lower() in _PLACEHOLDERS:
            wrong.append(f"the secret {name} is a placeholder")
    if wrong:
        return Result(Status.FAIL, "; ".join(wrong), "define them where the settings' secrets are kept, then deploy")
    return Result(Status.PASS, f"{len(names)} of {len(names)} are defined")
