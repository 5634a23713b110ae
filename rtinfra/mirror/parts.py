"""The parts of a bundle as one archive, read in one go: the contents that its manifest lists, in that order.

Each header is read by itself instead of by a reader of archives: what a header may make such a reader do (long names,
sparse files, links) is none of a bundle's, and bytes that only contents vouch for are never more than 512 at a time.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Carried, Manifest
from rtinfra.mirror.reading import open_plain

_BLOCK = 1 << 20


class Reader(Protocol):
    """What bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


def member_name(sha256: str) -> str:
    """Return the name of a content in the archive."""
    return f"contents/{sha256}"


class _Joined:
    """Reader of all parts as one file."""

    def __init__(self, paths: Iterable[Path], advance: Callable[[int], None]) -> None:
        self._paths, self._advance = iter(paths), advance
        self._file: BinaryIO | None = None
        self._name = ""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end of the last part."""
        try:
            while self._file is not None or self._open_next():
                assert self._file is not None
                if data := self._file.read(size):
                    self._advance(len(data))
                    return data
                self.close()
        except OSError as error:
            raise MirrorError(
                f"{self._name} can no longer be read: {error.strerror}",
                "was the stick pulled out? Put it back and repeat: what was imported already is kept",
            ) from error
        return b""

    def read_all(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end of the last part."""
        data = b""
        while len(data) < size and (more := self.read(size - len(data))):
            data += more
        return data

    def _open_next(self) -> bool:
        path = next(self._paths, None)
        if path is not None:
            self._name = path.name
            self._file = open_plain(path)
        return path is not None

    def close(self) -> None:
        """Close the part that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Window:
    """Reader of the next `size` bytes of an archive."""

    def __init__(self, joined: _Joined, size: int, cut_off: MirrorError) -> None:
        self._joined, self.left, self._cut_off = joined, size, cut_off

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end of the window."""
        wanted = self.left if size < 0 else min(size, self.left)
        if not wanted:
            return b""
        data = self._joined.read(min(wanted, _BLOCK))
        if not data:
            raise self._cut_off
        self.left -= len(data)
        return data


def read_contents(
    folder: Path, manifest: Manifest, take: Callable[[Carried, Reader], None], advance: Callable[[int], None]
) -> None:
    """Give each content with a reader of its bytes to `take`. The archive must be what the manifest says, in its order.

    Raises:
        MirrorError: it is not.
    """
    with _opened(folder, manifest, advance) as joined:
        for content in manifest.carried:
            name, member = member_name(content.sha256), _next(joined, manifest)
            if member is None:
                raise _refusal(manifest, f"it ends before {content.name} ({name})")
            if not member.isreg() or member.name != name or member.size != content.size:
                raise _refusal(
                    manifest,
                    f"{member.name!r} ({member.size} bytes) is where {content.name} ({name}) is expected",
                )
            padding = -content.size % tarfile.BLOCKSIZE
            cut_off = _refusal(manifest, f"it ends in the middle of {content.name} ({name})")
            window = _Window(joined, content.size, cut_off)
            take(content, window)
            # What is here already is passed over.
            while window.read(_BLOCK):
                pass
            if len(joined.read_all(padding)) != padding:
                raise cut_off
        if (member := _next(joined, manifest)) is not None:
            raise _refusal(manifest, f"{member.name!r} is not listed")


@contextmanager
def _opened(folder: Path, manifest: Manifest, advance: Callable[[int], None]) -> Iterator[_Joined]:
    joined = _Joined((folder / part.file for part in manifest.parts), advance)
    try:
        yield joined
    finally:
        joined.close()


def _next(joined: _Joined, manifest: Manifest) -> tarfile.TarInfo | None:
    """Read a header; None at the end of the archive."""
    block = joined.read_all(tarfile.BLOCKSIZE)
    if not block.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise _refusal(manifest, f"it cannot be read: {error}") from error


def _refusal(manifest: Manifest, what: str) -> MirrorError:
    return MirrorError(
        f"the archive of bundle {manifest.id} is not what its manifest says: {what}",
        "do not use this bundle; have it made again, and find out what made it",
    )
