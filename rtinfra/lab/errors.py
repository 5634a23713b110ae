"""The exceptions of the lab: what went wrong, and what to do next."""

from __future__ import annotations

from rtinfra.local.errors import LocalError


class LabError(LocalError):
    """Something about lab machines that the operator can act on."""


class KernelCrashed(LabError):
    """The kernel of a lab machine panicked and does not restart by itself."""


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
