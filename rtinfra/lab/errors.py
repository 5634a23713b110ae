"""The one exception of the lab: what went wrong, and what to do next."""

from __future__ import annotations


class LabError(Exception):
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


class CommandFailed(LabError):
    """A command inside a lab machine ended with an exit code other than 0."""

    def __init__(self, machine: str, command: str, returncode: int, stdout: str, stderr: str) -> None:
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        super().__init__(
            f"on {machine}, this command ended with exit code {returncode}: {command}",
            f"look at its output above, or at the machine itself with `rtinfra lab ssh {machine}`",
            "\n".join(part.rstrip() for part in (stdout[-4000:], stderr[-4000:]) if part.strip()),
        )
