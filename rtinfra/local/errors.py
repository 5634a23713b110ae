"""The exception of work on this computer: what went wrong, and what to do next."""

from __future__ import annotations


class LocalError(Exception):
    """Something the operator can act on.

    ``message`` says in one sentence what went wrong, ``next_step`` what to do about it, and ``detail``
    carries raw material to look at (the tail of a console, the last lines of a tool).
    """

    def __init__(self, message: str, next_step: str, detail: str = "") -> None:
        self.message = message
        self.next_step = next_step
        self.detail = detail.rstrip()
        super().__init__(message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail:
            parts.append(self.detail)
        parts.append(f"Next step: {self.next_step}")
        return "\n".join(parts)
