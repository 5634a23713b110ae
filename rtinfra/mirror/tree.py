"""What is served, as a value: which path has which bytes. Writing it never copies a content of the pool."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Blob
from rtinfra.mirror.pool import Pool


@dataclass(frozen=True)
class Tree:
    """Files by their path below some folder."""

    generated: Mapping[str, bytes] = field(default_factory=dict)
    """Files that are made, with their bytes."""
    contents: Mapping[str, Blob] = field(default_factory=dict)
    """Files that are contents of the pool."""

    @property
    def paths(self) -> set[str]:
        """The paths of all files."""
        return {*self.generated, *self.contents}

    @property
    def directories(self) -> list[str]:
        """The folders that the files are in, parents first."""
        return sorted({str(parent) for path in self.paths for parent in PurePosixPath(path).parents} - {"."})

    def below(self, folder: str) -> Tree:
        """Return the same files, one folder deeper."""
        return Tree(
            {f"{folder}/{path}": data for path, data in self.generated.items()},
            {f"{folder}/{path}": blob for path, blob in self.contents.items()},
        )


def united(trees: Iterable[Tree]) -> Tree:
    """Return the files of all trees; of two files with one path, that of the later tree."""
    generated: dict[str, bytes] = {}
    contents: dict[str, Blob] = {}
    for tree in trees:
        generated.update(tree.generated)
        contents.update(tree.contents)
    return Tree(generated, contents)


def write(tree: Tree, pool: Pool, directory: Path, time: datetime) -> None:
    """Lay out a tree in an empty folder: generated files with fixed modes and `time`, hard links into the pool.

    Raises:
        MirrorError: a content is not in the pool, or the pool is on another file system.
    """
    for name in tree.directories:
        path = directory / name
        path.mkdir()
        # Web servers and registries run as users of their own, whatever the umask here is.
        path.chmod(0o755)
    for name, data in tree.generated.items():
        path = directory / name
        path.write_bytes(data)
        path.chmod(0o644)
        # Clients of web servers ask for "changed since": the same time on every machine.
        os.utime(path, (time.timestamp(), time.timestamp()))
    for name, blob in tree.contents.items():
        _link(pool, blob, directory / name)


def files(directory: Path) -> Iterator[str]:
    """Yield the path of everything below a folder that is no folder itself."""
    for folder, folders, names in os.walk(directory):
        # A link to a folder is listed among the folders, and is not entered.
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (str((Path(folder) / name).relative_to(directory)) for name in (*names, *links))


@dataclass(frozen=True)
class Difference:
    """A file that is not as a tree says."""

    path: str
    problem: str


def differences(tree: Tree, pool: Pool, directory: Path) -> Iterator[Difference]:
    """Yield what in a folder is not as the tree says, in order of the paths.

    A file that is the pool's own is not read: whoever asks knows, or finds out, whether the pool is as it should be.
    """
    present = set(files(directory))
    for path in sorted(tree.paths | present):
        if problem := _problem(tree, pool, directory / path, path, path in present):
            yield Difference(path, problem)


def _problem(tree: Tree, pool: Pool, file: Path, path: str, present: bool) -> str | None:
    """What is wrong with one file, a phrase; None when it is right."""
    if path not in tree.paths:
        return "does not belong here"
    if not present:
        return "is missing"
    if file.is_symlink() or not file.is_file():
        return "is not a plain file"
    if path in tree.generated:
        return None if file.read_bytes() == tree.generated[path] else "is not what the lock gives"
    blob = tree.contents[path]
    own = pool.path(blob.sha256)
    if own.exists() and file.samefile(own):
        return None
    if (size := file.stat().st_size) != blob.size:
        return f"has {size} bytes, {blob.size} are expected"
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    return None if found == blob.sha256 else f"has sha256 {found}, {blob.sha256} is expected"


def _link(pool: Pool, blob: Blob, path: Path) -> None:
    source = pool.path(blob.sha256)
    try:
        path.hardlink_to(source)
    except FileNotFoundError:
        raise MirrorError(
            f"the content {blob.sha256} for {path.name} is not in {pool.directory}",
            "fetch or import what it belongs to",
        ) from None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise MirrorError(
            f"{path.parent} and the pool {pool.directory} are on different file systems",
            "keep the whole folder of the mirror on one file system: what is published shares its files with the pool",
        ) from error
