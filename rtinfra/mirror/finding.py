"""What an audit has to say."""

from __future__ import annotations

from typing import Literal

from rtinfra.config.types import Settings


class Finding(Settings):
    """Something that is not as it should be."""

    file: str
    problem: str
    next_step: str
    severity: Literal["error", "warning", "waived"] = "error"
