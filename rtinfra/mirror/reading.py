"""Files of a bundle's folder, which may be on a stick that somebody else prepared: plain files, each opened once.

What is checked and what is used are the same bytes only when a file is read once: a name may lead elsewhere the next
time. No link is followed, and no named pipe or device makes anybody wait.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from rtinfra.local import files
from rtinfra.local.files import NotPlainError
from rtinfra.mirror.errors import MirrorError

#: Most bytes of a file that is read as a whole, a manifest of a hundred thousand contents among them.
MOST = 64 << 20

_NOT_OURS = "find out who put it there; carry the bundle again from where it was made"


def open_plain(path: Path) -> BinaryIO:
    """Open a file that is a file.

    Raises:
        MirrorError: it is a link, a folder, a named pipe or a device.
        OSError: it cannot be read, or is missing.
    """
    try:
        return files.open_plain(path)
    except NotPlainError as error:
        raise MirrorError(f"{path.name} {error.strerror}", _NOT_OURS) from error


def read_plain(path: Path, most: int = MOST) -> bytes:
    """Return the bytes of a file of at most `most` bytes.

    Raises:
        MirrorError: it is longer, no plain file, missing, or cannot be read.
    """
    try:
        with open_plain(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise MirrorError(f"{path.name} is missing", "carry it again from where it was made") from error
    except OSError as error:
        raise MirrorError(
            f"{path.name} cannot be read: {error.strerror}", "carry it again from where it was made"
        ) from error
    if len(data) > most:
        raise MirrorError(f"{path.name} has more than {most} bytes", _NOT_OURS)
    return data
