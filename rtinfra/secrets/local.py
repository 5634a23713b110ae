"""Secrets of this computer: from the environment, or from files that only their owner can read.

`RTINFRA_SECRET_SLACK_WEBHOOK` or the file `secrets/slack_webhook` of the project folder, which git ignores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from rtinfra.paths import PROJECT
from rtinfra.secrets.errors import SecretError

_PREFIX = "RTINFRA_SECRET_"


def variable_of(name: str) -> str:
    """Return the environment variable that may hold a secret."""
    return _PREFIX + name.upper().replace("-", "_")


@dataclass(frozen=True)
class LocalSecrets:
    """Environment first, then files."""

    directory: Path = PROJECT / "secrets"
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def find(self, name: str) -> SecretStr | None:
        """Return a secret, without a line break at its end; None when it is in neither place.

        Raises:
            SecretError: it is empty, or its file can be read by others or not by us.
        """
        if value := self.environment.get(variable_of(name)):
            return SecretStr(value)
        path = self.directory / name
        try:
            content = read_private(path).rstrip("\n")
        except FileNotFoundError:
            return None
        if not content:
            raise SecretError(f"{path} is empty", "write the secret into it")
        return SecretStr(content)

    def where(self, name: str) -> str:
        """Say where a secret would be looked for."""
        return f"put it into {self.directory / name} (mode 0600), or into the environment variable {variable_of(name)}"

    def get(self, name: str) -> SecretStr:
        """Return a secret; raises SecretError when it is not defined or lies open."""
        found = self.find(name)
        if found is None:
            raise SecretError(f"the secret {name} is not defined", self.where(name))
        return found

    def read(self, name: str) -> bytes:
        """Return the value of a secret for a file that is about to be written; raises SecretError."""
        return self.get(name).get_secret_value().encode()


def read_private(path: Path) -> str:
    """Return the text of a file that only its owner can read.

    Raises:
        FileNotFoundError: there is none.
        SecretError: others can read it, or we cannot.
    """
    try:
        # The permissions of what is read, not of what was there a moment before.
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SecretError(f"{path} cannot be read ({error.strerror})", "make it a file that you own") from None
    if mode & 0o077:
        raise SecretError(f"{path} can be read by others", f"chmod 600 {path}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not text", "write the secret into it as UTF-8") from None
