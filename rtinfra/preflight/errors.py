"""Why a run has no verdict."""

from __future__ import annotations

from rtinfra.local.errors import LocalError


class PreflightError(LocalError):
    """The run could not be made: nothing is known about the host."""
