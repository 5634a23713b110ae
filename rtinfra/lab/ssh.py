"""Talking to a machine: commands over one kept ssh connection, and whether its ssh server is there."""

from __future__ import annotations

import shlex
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtinfra.lab import qemu
from rtinfra.lab.errors import CommandFailed, LabError


@dataclass(frozen=True)
class Connection:
    """The kept ssh connection to a machine; the first command opens it (ControlMaster of ssh_config(5))."""

    machine: str
    config: Path
    control: Path
    """Its socket."""
    user: str = "root"

    def run(
        self, command: str, *, input: bytes | None, timeout: float, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root on the machine.

        Raises LabError when ``timeout`` seconds pass, CommandFailed (with ``check``) for an exit code other than 0.
        """
        as_root = command if self.user == "root" else f"sudo -n sh -c {shlex.quote(command)}"
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        try:
            result = subprocess.run(
                self.command("--", as_root), capture_output=True, timeout=timeout, check=False, **stdin
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"on {self.machine}, this command did not finish within {timeout:.0f} s: {command}",
                f"see what the machine is doing with `rtinfra lab ssh {self.machine}`",
                (error.stdout or b"").decode(errors="replace")[-2000:],
            ) from error
        stdout, stderr = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
        if check and result.returncode != 0:
            raise CommandFailed(self.machine, command, result.returncode, stdout, stderr)
        return subprocess.CompletedProcess(command, result.returncode, stdout, stderr)

    def command(self, *words: str) -> list[str]:
        """The command line of an interactive session, or of ``words``."""
        return ["ssh", "-F", str(self.config), self.machine, *words]

    def drop(self) -> None:
        """End the kept connection, which does not survive what comes next."""
        if self.control.exists():
            subprocess.run(
                ["ssh", "-F", str(self.config), "-O", "exit", self.machine],
                capture_output=True,
                timeout=30,
                check=False,
            )
            self.control.unlink(missing_ok=True)


def greets(port: int, timeout: float) -> bool:
    """Whether an ssh server says hello. QEMU accepts connections even when nobody listens inside."""
    try:
        with socket.create_connection((qemu.LOOPBACK, port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
