"""What boots next: GRUB's menu, the last known good entry, the last trial."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.facts.boot import GRUB_READER, KEPT_SCRIPT, TRIAL_SCRIPT, Kept, Trial, parse_kept, parse_trial
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

_ENTRY_ID: Final = re.compile(r"menuentry_id_option'? '([^']+)'|--id '?([^' ]+)'?")
_ENTRY_TITLE: Final = re.compile(r"(?:menuentry|submenu) '([^']*)'")


@dataclass(frozen=True)
class BootEntry:
    """A bootable entry of GRUB's menu."""

    path: tuple[str, ...]
    image: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class BootMenu:
    """GRUB's menu: every entry, and the path of identifiers of the one that boots by default."""

    entries: tuple[BootEntry, ...]
    default: str

    @property
    def default_entry(self) -> BootEntry | None:
        """The entry that boots when nobody chooses."""
        required = tuple(self.default.split(">"))
        if self.default.isdecimal():
            top = [entry for entry in self.entries if len(entry.path) == 1]
            return top[int(self.default)] if int(self.default) < len(top) else None
        return next((entry for entry in self.entries if entry.path == required), None)


@dataclass(frozen=True)
class Boot:
    """The menu; the frozen kernel that the host comes back to; what became of the last trial."""

    menu: BootMenu
    last_known_good: Kept | None
    trial: Trial | None


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for what GRUB reads when the host starts."""
    return {
        # The last known good entry is in a file that grub.cfg reads.
        "boot_menu": f"{GRUB_READER} menu /boot/grub/grub.cfg /boot/grub/rtinfra.cfg",
        "grubenv": "grep -a '^saved_entry=' /boot/grub/grubenv",
        "kept": KEPT_SCRIPT,
        "trial": TRIAL_SCRIPT,
    }


def read(answer: Answer) -> Boot:
    """Read what `ask` asked."""
    return Boot(
        menu=_menu(answer.lines("boot_menu"), answer.lines("grubenv")),
        last_known_good=parse_kept(answer.lines("kept")),
        trial=parse_trial(answer.lines("trial")),
    )


def _menu(lines: Iterable[str], environment: Iterable[str]) -> BootMenu:
    entries: list[BootEntry] = []
    default = ""
    submenus: list[str] = []
    entry: str | None = None
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("set default="):
            value = stripped.partition("=")[2].strip("\"'")
            # `${next_entry}` is a one-shot choice; the default is the last word, from the file or from grubenv.
            default = value if value != "${next_entry}" else default
        elif stripped.startswith("submenu "):
            submenus.append(_entry_id(stripped))
        elif stripped.startswith("menuentry "):
            entry = _entry_id(stripped)
        elif stripped.startswith("linux") and entry is not None:
            image, *words = stripped.split()[1:]
            entries.append(BootEntry((*submenus, entry), image, tuple(words)))
        elif stripped.startswith("}"):
            if entry is not None:
                entry = None
            elif submenus:
                submenus.pop()
    if default == "${saved_entry}":
        default = next((line.partition("=")[2] for line in environment), "0")
    return BootMenu(tuple(entries), default)


def _entry_id(line: str) -> str:
    if match := _ENTRY_ID.search(line):
        return match[1] or match[2]
    title = _ENTRY_TITLE.search(line)
    return title[1] if title else ""
