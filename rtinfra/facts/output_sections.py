"""Scripts that report several things in one round trip, as named sections of their output.

A script prints `@@name` before each section; the lines up to the next marker belong to it. What files, programs and
other people say is printed raw between them, so for hosts the marker is another one in each run, which nobody can know
before: `SectionsFact` for facts, `guarded` for other scripts.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase

MARKER = "@@"
T = TypeVar("T")


def unguessable_marker() -> str:
    """Return a marker for one run: text that others wrote, printed raw in a section, cannot begin another one."""
    return f"{MARKER}{secrets.token_hex(8)}:"


class SectionsFact(FactBase[T]):
    """A fact that looks at several things; each look has a marker of its own.

    The marker is in the command only: neither in the arguments by which pyinfra knows a fact, nor in its value, of
    which plans keep fingerprints.
    """

    def __init__(self) -> None:
        self.marker = unguessable_marker()

    def asking(self, commands: Mapping[str, str]) -> StringCommand:
        """Return the command that asks for the sections.

        pyinfra loses all that follows a byte that is no UTF-8: such bytes are left out, on the host.
        """
        asked = script(commands, self.marker)
        return StringCommand(f"{{\n{asked}\n}} | {{ iconv -c -f UTF-8 -t UTF-8 2>/dev/null || true; }}")

    def sections(self, output: Iterable[str]) -> dict[str, list[str]]:
        """Return what the host answered to `asking`."""
        return parse(output, self.marker)


def script(commands: Mapping[str, str], marker: str = MARKER) -> str:
    """Join shell commands into one script that prints a section for each.

    A command that fails leaves its section empty; it never ends the script, because what is absent on a
    host is an observation too.
    """
    # The empty line ends a last line that has no end of its own; `parse` takes it away.
    parts = [
        f"echo\necho {shlex.quote(marker + name)}\n( {command} ) 2>/dev/null" for name, command in commands.items()
    ]
    return "\n".join([*parts, "true"])


def guarded(script: str, marker: str) -> str:
    """Return a script that was made with MARKER with another marker for this run."""
    return script.replace(f"echo {MARKER}", f"echo {marker}")


def unguarded(text: str, marker: str) -> str:
    """Return the output of a guarded script as if it had been made with MARKER; lines of others begin no section."""
    return "\n".join(
        f"{MARKER}{line.removeprefix(marker)}"
        if line.startswith(marker)
        else f" {line}"
        if line.startswith(MARKER)
        else line
        for line in text.split("\n")
    )


def parse(lines: Iterable[str], marker: str = MARKER) -> dict[str, list[str]]:
    """Split the output of `script` into its sections. Lines before the first marker are dropped."""
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if line.startswith(marker):
            if current and not current[-1]:
                current.pop()
            current = sections.setdefault(line[len(marker) :].strip(), [])
        elif current is not None:
            current.append(line)
    return sections


def pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the first word of each line and what follows it."""
    for line in lines:
        key, _, value = line.partition(" ")
        if key:
            yield key, value.strip()


def blocks(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the answers of `systemctl show`, which have an empty line between units."""
    block: dict[str, str] = {}
    for line in [*lines, ""]:
        if line:
            key, _, value = line.partition("=")
            block[key] = value
        elif block:
            yield block
            block = {}
