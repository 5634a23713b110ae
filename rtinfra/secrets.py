"""Secrets by name: from the environment, or from files that only their owner can read.

`RTINFRA_SECRET_SLACK_WEBHOOK` or the file `secrets/slack_webhook` of the project folder, which git ignores. A
secret is read when it is written to a host and at no other time; nothing here ever shows its value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rtinfra.paths import PROJECT

_PREFIX = "RTINFRA_SECRET_"


class SecretError(Exception):
    """A secret that is not defined, or lies open; the text says what to do and has no value in it."""


@dataclass(frozen=True)
class LocalSecrets:
    """Secrets of this computer."""

    directory: Path = PROJECT / "secrets"
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def read(self, name: str) -> bytes:
        """Return the value of a secret, without a line break at its end.

        Raises:
            SecretError: it is not defined, empty, or its file can be read by others.
        """
        variable = _PREFIX + name.upper().replace("-", "_")
        path = self.directory / name
        if value := self.environment.get(variable):
            return value.encode()
        try:
            mode = path.stat().st_mode
            content = path.read_bytes().rstrip(b"\n")
        except OSError:
            raise SecretError(
                f"the secret {name} is not defined: put it into {path} (mode 0600), or into the environment "
                f"variable {variable}"
            ) from None
        if mode & 0o077:
            raise SecretError(f"{path} can be read by others: chmod 600 {path}")
        if not content:
            raise SecretError(f"{path} is empty")
        return content
