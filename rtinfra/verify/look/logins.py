"""The group of real-time users, and what a new login of one of them gets."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from rtinfra.verify.look.answer import Answer, hard_limits
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Login:
    """A new login session of a user: groups, and hard limits by the kernel's names."""

    groups: tuple[str, ...]
    limits: Mapping[str, str]


@dataclass(frozen=True)
class Logins:
    """Whether the group exists, and a new login of a member; None when nobody is one or it is refused."""

    group_exists: bool
    member: Login | None


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the group and, where it has members, log one in."""
    commands = {"group": f"getent group {shlex.quote(questions.group)}"}
    if questions.login_user is not None:
        # runuser opens a session with pam_limits as a login does, and starts no user manager.
        user = shlex.quote(questions.login_user)
        commands["login"] = f"runuser -l -s /bin/sh {user} -c 'id -nG; cat /proc/self/limits'"
    return commands


def read(answer: Answer) -> Logins:
    """Read what `ask` asked."""
    lines = answer.lines("login")
    return Logins(
        group_exists=bool(answer.line("group")),
        member=Login(tuple(lines[0].split()), hard_limits(lines[1:])) if lines else None,
    )
