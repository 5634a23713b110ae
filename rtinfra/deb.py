"""What a .deb file says of itself, read on the control machine without installing anything."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class LocalPackage:
    """A .deb file of the control machine with its package name and version."""

    path: Path
    name: str
    version: str


def read(path: Path) -> LocalPackage:
    """Return what the .deb file `path` contains. A file that is the same as before is not read again.

    Raises:
        ValueError: when the file is not a readable Debian package, or dpkg-deb is missing.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise ValueError(f"{path} is not a Debian package: {error.strerror}") from error
    return _read(path, state.st_ino, state.st_size, state.st_mtime_ns)


@cache
def _read(path: Path, inode: int, size: int, modified_ns: int) -> LocalPackage:
    # Every host of a fleet asks for the same few packages, and starting a program costs more than all else of a plan.
    try:
        done = subprocess.run(
            ["dpkg-deb", "--show", "--showformat", "${Package} ${Version}", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ValueError("dpkg-deb is needed to read local packages; install the package dpkg") from error
    if done.returncode != 0:
        raise ValueError(f"{path} is not a Debian package: {done.stderr.strip()}")
    name, version = done.stdout.split()
    return LocalPackage(path, name, version)


def control(path: Path) -> str:
    """Return the control file of a .deb: its stanza in an index, without path, size and hash.

    Raises:
        ValueError: when the file is not a readable Debian package.
    """
    done = subprocess.run(["dpkg-deb", "--field", str(path)], capture_output=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"{path} is not a Debian package: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode("utf-8", "surrogateescape").strip("\n") + "\n"
