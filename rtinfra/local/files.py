"""Files of this computer that are whole at any moment, power cuts included."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotPlainError(OSError):
    """What is there is no file: a link, a folder, a named pipe or a device, which `strerror` says in words."""


def open_plain(path: Path) -> BinaryIO:
    """Open a file that is a file: no link is followed, and no named pipe or device makes anybody wait.

    Raises:
        NotPlainError: it is something else.
        OSError: it cannot be read, or is missing.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPlainError(errno.ELOOP, "is a link, not a file") from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise NotPlainError(errno.EINVAL, "is no plain file")
    return os.fdopen(number, "rb")


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step that survives a power cut: readers see the old or the new content.

    Processes and threads that do it at the same time do it one after the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: what an interrupted call leaves is overwritten by the next one.
    temporary = path.with_name(f".{path.name}.new")
    with _alone_with(temporary) as file:
        file.truncate(0)
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
    sync_directory(path.parent)


def _alone_with(path: Path) -> BinaryIO:
    """Open a file that no other caller has open, until it is closed."""
    while True:
        # Nobody else may read it before its mode is set: the content may be secret.
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever had it before may have renamed it meanwhile: then this is the file in use, and not to be written to.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
