"""Contents by their hash: nothing gets in unless it is what it is said to be, and nothing is there half."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rtinfra.local.files import sync_directory
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Content, pool_path

_BLOCK = 1 << 20


class Arrived(NamedTuple):
    """A file whose bytes were hashed while they were written."""

    content: Content
    """What it should be."""
    path: Path
    sha256: str


@dataclass(frozen=True)
class Pool:
    """A folder of contents. Every write is a temporary file, synced, renamed; a name never has another content."""

    directory: Path

    def path(self, sha256: str) -> Path:
        """Where a content is, or would be."""
        return self.directory / pool_path(sha256)

    def has(self, sha256: str, size: int) -> bool:
        """Whether the content is there, judged by its size; `verify` reads it."""
        try:
            return self.path(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def missing(self, contents: Iterator[Content] | tuple[Content, ...]) -> list[Content]:
        """Return the contents that the pool lacks."""
        return [content for content in contents if not self.has(content.sha256, content.size)]

    def read(self, sha256: str) -> bytes:
        """The bytes of a content.

        Raises:
            MirrorError: it is not there.
        """
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise MirrorError(
                f"the content {sha256} is not in {self.directory}", "fetch or import what it belongs to"
            ) from None

    @contextlib.contextmanager
    def writing(self, content: Content) -> Iterator[io.BufferedRandom]:
        """Give a file to write the content to; it enters the pool when it is exactly that content.

        Raises:
            MirrorError: the bytes written are others. Nothing is left behind.
        """
        target = self.path(content.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(number, "w+b") as file:
                yield file
                file.flush()
                check(file, content, str(content.name))
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            temporary.replace(target)
            sync_directory(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def add_bytes(self, content: Content, data: bytes) -> None:
        """Put bytes in, unless they are there."""
        if not self.has(content.sha256, content.size):
            with self.writing(content) as file:
                file.write(data)

    def add_file(self, content: Content, source: Path) -> None:
        """Put a copy of a file in, unless it is there."""
        if not self.has(content.sha256, content.size):
            with self.writing(content) as file, source.open("rb") as reader:
                shutil.copyfileobj(reader, file, _BLOCK)

    def adopt(self, files: Sequence[Arrived]) -> None:
        """Move files of the same file system in.

        Raises:
            MirrorError: the size or the hash of one is another. All stay where they are.
        """
        if not files:
            return
        for content, path, sha256 in files:
            _compare(path.stat().st_size, sha256, content, str(content.name))
            path.chmod(0o644)
            self.path(content.sha256).parent.mkdir(parents=True, exist_ok=True)
        # The bytes before the names: after a power cut no name has half a content.
        make_durable(self.directory)
        for content, path, _ in files:
            path.replace(self.path(content.sha256))
        make_durable(self.directory)

    def verify(self, content: Content) -> None:
        """Read a content and compare.

        Raises:
            MirrorError: it is missing, has another size, or other bytes; the message names it.
        """
        try:
            with self.path(content.sha256).open("rb") as file:
                check(file, content, f"{content.name} in the pool")
        except FileNotFoundError:
            raise MirrorError(
                f"{content.name} is missing from the pool", "fetch it, or import its bundle, again"
            ) from None

    def everything(self) -> Iterator[Path]:
        """Every content that is there; temporary files of others aside."""
        for folder in sorted(self.directory.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def check(file: io.BufferedRandom | io.BufferedReader, content: Content, shown: str) -> None:
    """Compare an open file with the content it should be: the size first, then the hash.

    Raises:
        MirrorError: naming the file, what was expected and what was found.
    """
    size = os.fstat(file.fileno()).st_size
    _compare_size(size, content, shown)
    file.seek(0)
    _compare(size, hashlib.file_digest(file, "sha256").hexdigest(), content, shown)


def _compare_size(size: int, content: Content, shown: str) -> None:
    if size != content.size:
        what = "truncated" if size < content.size else "too long"
        raise MirrorError(
            f"{shown} is {what}: it has {size} bytes, {content.size} are expected",
            "bring it again from where it came from",
        )


def _compare(size: int, sha256: str, content: Content, shown: str) -> None:
    _compare_size(size, content, shown)
    if sha256 != content.sha256:
        raise MirrorError(
            f"{shown} is not what was locked: its sha256 is {sha256}, {content.sha256} is expected",
            "do not use it; bring it again from where it came from, and find out who changed it",
        )


def make_durable(directory: Path) -> None:
    """Make everything on the file system of a folder survive a power cut.

    One call for many files; an fsync of every file and folder takes many times as long.
    """
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(number) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(number)


def require_space(directory: Path, needed: int, purpose: str) -> None:
    """Refuse before the first byte is written when the file system of `directory` has not `needed` bytes and a tenth.

    Raises:
        MirrorError: with both numbers.
    """
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    required = needed + needed // 10
    if free < required:
        raise MirrorError(
            f"not enough disk space {purpose}: {directory} has {free / 1e6:.0f} MB free,"
            f" {required / 1e6:.0f} MB are needed",
            "free some space there, or choose another folder with --directory",
        )
