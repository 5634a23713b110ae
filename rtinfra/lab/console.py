"""The serial console of a machine, from its file: the last lines, and whether the kernel spoke its last words."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

# The last line of a kernel that panicked and does not restart by itself (panic=0).
_STOPPED = b"---[ end Kernel panic"
_LAST_BYTES = 1000
# Terminal control: sequences that end with a letter, titles and colours set by "]", and single characters.
_ESCAPE = re.compile(
    r"\x1b\[[0-9;?!]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[()][A-Z0-9]|\x1b[=>c78]"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)


def tail(path: Path, lines: int) -> str:
    """The last lines that are not blank, without control characters; empty when there is no console yet."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    cleaned = (_ESCAPE.sub("", line.rstrip("\r\n")) for line in text.splitlines())
    return "\n".join([line for line in cleaned if line.strip()][-lines:])


def has_crashed(path: Path) -> bool:
    """Whether the kernel's last words are on the console, and nothing came after them."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as console:
        console.seek(max(0, console.seek(0, os.SEEK_END) - _LAST_BYTES))
        return _STOPPED in console.read().rstrip().rpartition(b"\n")[2]
    return False
