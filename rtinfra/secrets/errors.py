"""What is wrong with a secret, without its value."""

from __future__ import annotations

from rtinfra.local.errors import LocalError


class SecretError(LocalError):
    """A secret that is not defined, lies open, or cannot be fetched; no value is in its text."""

    def __str__(self) -> str:
        """One line: it is quoted in lists of problems."""
        return f"{self.message}: {self.next_step}"
