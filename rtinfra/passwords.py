"""The passwords that sudo asks for on hosts: secrets by name, or asked of whoever sits at the terminal."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from threading import Lock
from typing import Any, Final

from pydantic import SecretStr

from rtinfra.config import FleetHost, SshSettings
from rtinfra.local.errors import LocalError
from rtinfra.secrets import operator_secrets


class NobodyToAsk(LocalError):
    """A password is to be asked for, and there is no terminal."""


def ask_on_terminal(question: str) -> str:
    """Ask for a password without showing it.

    Raises:
        NobodyToAsk: this process has no terminal.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        raise NobodyToAsk(
            "there is no terminal to ask for sudo's password on",
            "name a secret in `ssh.become_password` instead of `ask`, or run the command on a terminal",
        ) from error
    return getpass.getpass(question)


class Passwords:
    """What sudo is told on each host. What was typed is kept for the run, and for all hosts that ask."""

    def __init__(self) -> None:
        self._typed: SecretStr | None = None
        self._lock = Lock()

    def of(self, ssh: SshSettings) -> SecretStr | None:
        """Return the password for a host; None where sudo needs none.

        Raises:
            SecretError: the secret is not defined, or cannot be fetched.
            NobodyToAsk: it has to be typed, and there is no terminal.
        """
        if ssh.become_password is None:
            return None
        if ssh.become_password != SshSettings.ASK:
            return operator_secrets().get(ssh.become_password)
        with self._lock:
            if self._typed is None:
                self._typed = SecretStr(ask_on_terminal(_question(ssh)))
            return self._typed

    def question(self, hosts: Iterable[FleetHost[Any]]) -> str | None:
        """Return what is to be asked before hosts are worked on; None when nothing is."""
        asking = (host.ssh for host in hosts if host.ssh.become_password == SshSettings.ASK)
        return next(map(_question, asking), None) if self._typed is None else None

    def take(self, answer: str) -> None:
        """Keep what was typed."""
        self._typed = SecretStr(answer)

    def ask_early(self, hosts: Iterable[FleetHost[Any]]) -> None:
        """Ask now, where some host will want it: before anything else is shown or waited for. Raises NobodyToAsk."""
        if (question := self.question(hosts)) is not None:
            self.take(ask_on_terminal(question))

    def handed_on(self) -> str:
        """Return what was typed, for another process of ours; empty when nothing was."""
        return "" if self._typed is None else self._typed.get_secret_value()


def _question(ssh: SshSettings) -> str:
    return f"Password of {ssh.user} for sudo: "


#: Those of this process.
PASSWORDS: Final = Passwords()
