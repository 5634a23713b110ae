"""All checks. A new one is a module here with a function `checks`, listed below."""

from __future__ import annotations

from rtinfra.preflight.check import Check
from rtinfra.preflight.checks import api, application, git, guards, postgres, realtime, redis, secrets, variables
from rtinfra.preflight.settings import CheckSettings

_MODULES = (variables, secrets, guards, redis, postgres, api, application, git, realtime)


def all_checks(settings: CheckSettings) -> tuple[Check, ...]:
    """Return the checks that the settings ask for, in the order of the table."""
    return tuple(check for module in _MODULES for check in module.checks(settings))
