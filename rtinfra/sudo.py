"""How an ordinary login becomes root on a host: sudo, told on standard input what to run.

What travels on standard input is in no argument list that others can read, and in no log of sudo's. In this order: the
password, when there is one; a line with the script; the script's own standard input. The words below are the same for
every command and mean the same to any login shell.
"""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from typing import Final

#: Begins the line with the script; a password may not begin so.
MARKER: Final = "rtinfra-runs:"

# Run by root. sudo may keep the user's PATH, which lacks the sbin folders, add up both umasks, drop by which address
# the user came, and leave us in a folder that root may not read (a home on NFS). A password that sudo had no use for is
# still there, before the script. dash reads such lines byte by byte, so that the rest is left for the script.
_AS_ROOT: Final = (
    "umask 022; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH; unset LC_ALL; "
    "SSH_CONNECTION=$1; export SSH_CONNECTION; shift; cd /; "
    "while IFS= read -r rtinfra || exit 90; do case $rtinfra in " + MARKER + "*) break ;; esac; done; "
    f'eval "$(printf %s "${{rtinfra#{MARKER}}}" | base64 -d)"'
)
# Its words are read by `refusal`, so it speaks English.
_SUDO: Final = "env LC_ALL=C sudo"
_WITH_PASSWORD: Final = f'{_SUDO} -S -p "" -H --'
# One wrong password is one attempt: it is tried by itself first. Three, as sudo makes of whatever lines come next, lock
# an account where pam_faillock is set up.
_TRIED_FIRST: Final = (
    f'IFS= read -r password || exit 90; printf "%s\\n" "$password" | {_SUDO} -S -p "" -v && '
    f'{{ printf "%s\\n" "$password"; exec cat; }} | {_WITH_PASSWORD} sh -c "$1" rtinfra "$2"'
)
# Every sshd sets it, and every shell knows these quotes.
_CAME_BY: Final = 'rtinfra "$SSH_CONNECTION"'


@dataclass(frozen=True)
class Refusal:
    """Why sudo ran nothing, and what to do about it."""

    reason: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.reason}. Next step: {self.next_step}"


def command(password: bool = False, tried: bool = True) -> str:
    """Return the words to give to the user's login shell.

    Args:
        password: whether `head` sends one.
        tried: whether sudo has taken it before, over the same connection.
    """
    if not password:
        return f"{_SUDO} -n -H -- sh -c {shlex.quote(_AS_ROOT)} {_CAME_BY}"
    if tried:
        return f"{_WITH_PASSWORD} sh -c {shlex.quote(_AS_ROOT)} {_CAME_BY}"
    return f'sh -c {shlex.quote(_TRIED_FIRST)} rtinfra {shlex.quote(_AS_ROOT)} "$SSH_CONNECTION"'


def head(script: str, password: str | None = None) -> str:
    """Return what comes on standard input before that of the script.

    Raises:
        ValueError: no password can look like this one.
    """
    if password is not None and ("\n" in password or password.startswith(MARKER)):
        raise ValueError("a password is one line")
    before = "" if password is None else f"{password}\n"
    return f"{before}{MARKER}{base64.b64encode(script.encode()).decode()}\n"


def refusal(user: str, said: str) -> Refusal | None:
    """Return why sudo refused, by what came on standard error of a command that failed; None when it did not."""
    for signs, reason, next_step in _REFUSALS:
        if any(sign in said for sign in signs):
            return Refusal(reason.format(user=user), next_step.format(user=user))
    return None


# In the words of sudo 1.9 and of sudo-rs 0.2, with LC_ALL=C.
_REFUSALS: Final = (
    (
        ("incorrect password attempt", "Authentication failed, try again", "incorrect authentication attempt"),
        "sudo does not take the password of {user}",
        "correct the secret that `ssh.become_password` names, or try `sudo -v` on the host as {user}",
    ),
    (
        ("a password is required", "interactive authentication is required", "no password was provided"),
        "sudo asks {user} for a password",
        "on the host, as {user}: `echo '{user} ALL=(ALL:ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/{user}`. Or "
        "write `become_password: ask` below `ssh:`, or there the name of a secret that holds it",
    ),
    (
        ("you must have a tty", "no tty present"),
        "sudo runs nothing for {user} without a terminal (requiretty)",
        "on the host, as {user}: `echo 'Defaults:{user} !requiretty' | sudo tee -a /etc/sudoers.d/{user}`",
    ),
    (
        ("is not in the sudoers file", "may not run sudo on"),
        "sudo does not let {user} become root",
        "on the host, as root (`su -`): `echo '{user} ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}`",
    ),
    (
        ("is not allowed to execute", "not allowed to run"),
        "sudo lets {user} run some commands only",
        "on the host, as root (`su -`): `echo '{user} ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}`",
    ),
    (
        ("sudo: not found", "sudo: command not found", "sudo': No such file", "sudo’: No such file"),
        "the host has no sudo",
        "on the host, as root (`su -`): `apt-get install sudo`, then "
        "`echo '{user} ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}`",
    ),
    (
        ("parse error in", "syntax error", "no valid sudoers sources found", "is owned by uid", "is world writable"),
        "sudo cannot use its own settings",
        "on the host, as root (`su -`): `visudo -c` says what is wrong in /etc/sudoers.d",
    ),
    (
        ("Account or password is expired", "Account expired", "account validation failure"),
        "the account {user} is locked or its password has expired",
        "on the host, as root (`su -`): `chage -l {user}` says which; `passwd {user}` sets a new one",
    ),
)
