"""Make the folder that is carried to a closed network.

    part-0001 ...            in order one tar archive: the lock, then every content by its hash
    manifest.json            what is in it (rtinfra.mirror.model.Manifest), with its signature
    manifest.txt, SHA256SUMS the same for a shell, with a signature of their own (rtinfra.mirror.installer)
    install.sh, Packages     to start on a computer that has nothing but Debian
    sbom.cdx.json            bill of materials
    README.txt               what to type, in English and Korean
    bundle.signers           the public key, as ssh-keygen takes it; its sha256 is told on another way
    trusted_keys             all keys whose bundles are to be taken from now on (rtinfra.mirror.trust)
    refused_keys             those whose bundles are never taken again

One lock and one key make the same bundle, byte for byte, wherever and whenever.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rtinfra.local.files import replace_file, sync_directory
from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, installer, signing, trust
from rtinfra.mirror.bundle_keys import Signer
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import (
    FORMAT,
    Carried,
    Content,
    Lock,
    Manifest,
    Part,
    bundle_id,
    lock_content,
    read_document,
)
from rtinfra.mirror.parts import member_name
from rtinfra.mirror.pool import Pool, require_space
from rtinfra.mirror.sbom import sbom
from rtinfra.mirror.store import Imported, Mirror

#: Bytes of a part, unless told otherwise: fits any file system of a USB stick, and little to carry again.
PART_SIZE = 1 << 30
MANIFEST_NAME = "manifest.json"
SBOM_NAME = "sbom.cdx.json"
#: Of the manifest and of the sums for a shell.
SIGNED = (MANIFEST_NAME, installer.SUMS_NAME)

# Parts have four digits.
_MOST_PARTS = 9999
_UNFINISHED = ".new-"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was made."""

    folder: Path
    manifest: Manifest
    signer: Signer

    @property
    def number(self) -> str:
        """Of the key that signed it: to be told to the closed side on another way."""
        return self.signer.entry.key.number

    @property
    def fingerprint(self) -> str:
        """The same key as ssh-keygen shows it."""
        return self.signer.entry.key.fingerprint


def make_bundle(
    mirror: Mirror,
    lock: Lock,
    base: str | None = None,
    *,
    part_size: int = PART_SIZE,
    now: datetime | None = None,
    report: Reporter | None = None,
) -> Bundle:
    """Make the bundle of a lock whose contents are all in the pool, or its difference to an earlier bundle.

    An interrupted call leaves nothing that looks like a bundle; the next one starts over. A bundle that is there
    already is made again and replaced.

    Args:
        mirror: where the pool is and bundles are made.
        lock: what the bundle brings.
        base: id of an earlier bundle made here; what that one brought is left out.
        part_size: most bytes of one part.
        now: the time, unless it is this computer's; it decides which key signs.
        report: told what happens.

    Raises:
        MirrorError: contents are missing or damaged, the earlier bundle is not known or not older, the lock lacks what
            the installer needs, the disk is too small, or no key signs now.
    """
    report = report or Reporter()
    with mirror.working("making a bundle"):
        installer.require(lock)
        missing = mirror.pool.missing(lock.contents())
        if missing:
            raise MirrorError(
                f"{len(missing)} contents of lock {lock.id} are not in {mirror.pool.directory}: {_some(missing)}",
                "get them with: rtinfra mirror fetch",
            )
        contents = _contents(lock, _base_contents(mirror, lock, base))
        carried = [content for content in contents if content.inside]
        size = _tar_size(carried)
        if size > _MOST_PARTS * part_size:
            raise MirrorError(
                f"parts of {part_size} bytes would be more than {_MOST_PARTS}", "choose a larger size of parts"
            )
        require_space(mirror.bundles, size, "for the bundle")
        key = bundle_keys.signer(mirror, now or datetime.now(UTC), report)
        mirror.pool.add_bytes(*lock_content(lock))
        folder = mirror.bundles / _folder_name(lock, base)
        with writing_to(mirror.bundles), _staged(folder) as staging:
            with report.transfer(f"Writing the bundle: {len(carried)} contents", size) as advance:
                parts = _write_parts(_Splitter(staging, part_size, advance), mirror.pool, lock, carried)
            manifest = Manifest(
                format=FORMAT,
                id=bundle_id(lock),
                base=base,
                created=lock.created,
                valid_until=lock.valid_until,
                suite=lock.suite,
                architecture=lock.architecture,
                lock=lock_content(lock)[0].sha256,
                contents=contents,
                parts=parts,
                files=_write_files(staging, mirror, lock, key),
            )
            _sign(staging, manifest, key)
        _remember(mirror, manifest)
    return Bundle(folder, manifest, key)


@contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Say in plain words that something else filled the disk after its space was checked.

    Raises:
        MirrorError: there is no space left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MirrorError(
            f"the disk of {directory} became full", "free some space there, then repeat: it goes on from here"
        ) from error


def load_manifest(mirror: Mirror, entry: Imported) -> Manifest:
    """Return the manifest of a bundle that was made or imported here.

    Raises:
        MirrorError: it is gone.
    """
    path = manifest_path(mirror, entry.manifest)
    try:
        return read_document(Manifest, path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise MirrorError(
            f"the manifest of bundle {entry.id} is missing: {path}", "use a full bundle instead of a difference"
        ) from error


def manifest_path(mirror: Mirror, sha256: str) -> Path:
    """Return where the manifest of a bundle is kept for good."""
    return mirror.root / "manifests" / f"{sha256}.json"


def keep_manifest(mirror: Mirror, manifest: Manifest) -> Imported:
    """Keep a manifest for good; return the entry for the mirror's state."""
    data = manifest.canonical()
    sha256 = hashlib.sha256(data).hexdigest()
    replace_file(manifest_path(mirror, sha256), data)
    return Imported(
        id=manifest.id,
        created=manifest.created,
        valid_until=manifest.valid_until,
        lock=manifest.lock,
        manifest=sha256,
    )


def _remember(mirror: Mirror, manifest: Manifest) -> None:
    entry, state = keep_manifest(mirror, manifest), mirror.state()
    if entry not in state.bundles:
        mirror.record(state.model_copy(update={"bundles": (*state.bundles, entry)}))


def _base_contents(mirror: Mirror, lock: Lock, base: str | None) -> set[str]:
    """What the closed side has after the earlier bundle."""
    if base is None:
        return set()
    made = mirror.state().bundles
    entry = next((entry for entry in made if entry.id == base), None)
    if entry is None:
        known = ", ".join(dict.fromkeys(entry.id for entry in made)) or "none"
        raise MirrorError(f"no bundle {base} was made here; known: {known}", "choose one of these, or make a full one")
    if entry.created >= lock.created:
        raise MirrorError(
            f"bundle {base} is not older than the lock, which is of {lock.created:%Y-%m-%d %H:%M:%S} UTC",
            "make a new lock first: rtinfra mirror lock",
        )
    manifest = load_manifest(mirror, entry)
    if (manifest.suite, manifest.architecture) != (lock.suite, lock.architecture):
        raise MirrorError(
            f"bundle {base} is for {manifest.suite} {manifest.architecture},"
            f" the lock for {lock.suite} {lock.architecture}",
            "make a full bundle",
        )
    return {content.sha256 for content in manifest.contents}


def _contents(lock: Lock, there: set[str]) -> tuple[Carried, ...]:
    first, _ = lock_content(lock)
    # The lock always travels: it is what the closed side reads first.
    carried = [Carried(**first._asdict(), inside=True)]
    carried += [Carried(**content._asdict(), inside=content.sha256 not in there) for content in lock.contents()]
    return tuple(carried)


def _folder_name(lock: Lock, base: str | None) -> str:
    return bundle_id(lock) if base is None else f"{bundle_id(lock)}-from-{base}"


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give an empty folder that gets its name when everything in it is on disk."""
    for leftover in folder.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    staging = folder.with_name(f"{_UNFINISHED}{folder.name}")
    try:
        staging.mkdir()
        yield staging
        for path in staging.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(staging)
        if folder.exists():
            folder.rename(folder.with_name(f"{_UNFINISHED}replaced-{folder.name}"))
        staging.rename(folder)
        sync_directory(folder.parent)
    finally:
        for leftover in folder.parent.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover)


def _tar_size(contents: Iterable[Carried]) -> int:
    blocks = sum(tarfile.BLOCKSIZE + -(-content.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for content in contents)
    return -(-(blocks + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


@dataclass
class _Splitter(io.RawIOBase):
    """Writer that splits one archive into parts of `part_size` bytes."""

    folder: Path
    part_size: int
    advance: Callable[[int], None]
    parts: list[Part] = field(default_factory=list)
    _file: IO[bytes] | None = None
    _left: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        while view:
            if self._file is None:
                self._file = (self.folder / f"part-{len(self.parts) + 1:04d}").open("wb")
                self._left, self._hash = self.part_size, hashlib.sha256()
            piece = view[: self._left]
            self._file.write(piece)
            self._hash.update(piece)
            self._left -= len(piece)
            view = view[len(piece) :]
            if not self._left:
                self.finish()
        self.advance(len(data))
        return len(data)

    def finish(self) -> None:
        """End the part that is being written."""
        if self._file is not None:
            name, size = Path(self._file.name).name, self.part_size - self._left
            self._file.close()
            self.parts.append(Part(file=name, size=size, sha256=self._hash.hexdigest()))
            self._file = None


class _Hashing(io.RawIOBase):
    """Reader that hashes what it reads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _write_parts(splitter: _Splitter, pool: Pool, lock: Lock, contents: Iterable[Carried]) -> tuple[Part, ...]:
    with tarfile.open(fileobj=splitter, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for content in contents:
            member = tarfile.TarInfo(member_name(content.sha256))
            member.size, member.mtime, member.mode = content.size, int(lock.created.timestamp()), 0o644
            with pool.path(content.sha256).open("rb") as file:
                reader = _Hashing(file)
                archive.addfile(member, reader)
            if reader.sha256.hexdigest() != content.sha256:
                raise MirrorError(
                    f"{content.name} in the pool is damaged: {pool.path(content.sha256)}",
                    "remove that file, get it again with `rtinfra mirror fetch`, and check this computer's disk",
                )
    splitter.finish()
    return tuple(splitter.parts)


def _write_files(folder: Path, mirror: Mirror, lock: Lock, key: Signer) -> tuple[Part, ...]:
    """Write what is in the folder besides parts and manifest."""
    files = {
        SBOM_NAME: sbom(lock),
        trust.TRUSTED_NAME: trust.trusted_text(key.keys),
        trust.REFUSED_NAME: trust.refused_text(trust.refused_keys(mirror)),
        **installer.files(lock, mirror.pool.read(lock.stanzas.sha256), member_name),
    }
    for name, data in sorted(files.items()):
        (folder / name).write_bytes(data)
    return tuple(
        Part(file=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())
    )


def _sign(folder: Path, manifest: Manifest, key: Signer) -> None:
    """Write the manifest, for programs and for a shell, and sign it."""
    for name, data in manifest_files(manifest).items():
        (folder / name).write_bytes(data)
    (folder / signing.SIGNERS_NAME).write_bytes(key.entry.key.signers)
    for name in SIGNED:
        signing.sign(key.private, folder / name)


def manifest_files(manifest: Manifest) -> dict[str, bytes]:
    """Return the files of a bundle that follow from its manifest alone, the manifest itself among them."""
    data = manifest.canonical()
    return {MANIFEST_NAME: data, **installer.manifest_files(manifest, MANIFEST_NAME, data)}


def _some(contents: list[Content]) -> str:
    names = [content.name for content in contents[:5]]
    return ", ".join(names) + (", ..." if len(contents) > len(names) else "")
