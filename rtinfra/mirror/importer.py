"""Take a bundle in: nothing that is not signed is read, and nothing is changed before everything has been checked.

What is served stays as it is: contents are added to the pool, and a release is only made by publishing.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Literal

from rtinfra.config.types import Settings
from rtinfra.local import programs, signatures
from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle, signing
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import (
    Carried,
    Content,
    Instant,
    Lock,
    Manifest,
    bundle_id,
    lock_content,
    read_document,
)
from rtinfra.mirror.pool import Pool, require_space
from rtinfra.mirror.signing import PublicKey
from rtinfra.mirror.store import Mirror

#: A bundle that is good for fewer days than this is warned about.
WARN_DAYS = 30

_BLOCK = 1 << 20
_AGAIN = "carry the bundle again from where it was made"
_NEW_BUNDLE = (
    "make a new bundle where there is a network (`rtinfra mirror lock`, then `fetch`, then `bundle`) and carry it here;"
    " what is served here meanwhile stays as it is"
)


class BundleReport(Settings):
    """What a bundle is, and what importing it does or did."""

    id: str
    base: str | None
    created: Instant
    valid_until: Instant
    fingerprint: str
    """Of the key that signed it."""
    state: Literal["new", "imported", "known"]
    """new: can be imported; imported: has been, just now; known: had been before."""
    contents: int
    """How many there are after the import, the left-out ones of a delta included."""
    added: int
    """Contents that are (verify: will be) added to the pool."""
    added_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Accepted:
    """A bundle that passed every check: `missing` are the contents that the pool lacks."""

    folder: Path
    manifest: Manifest
    key: PublicKey
    known: bool
    missing: tuple[Carried, ...]
    warnings: tuple[str, ...]

    def report(self, state: Literal["new", "imported", "known"]) -> BundleReport:
        return BundleReport(
            id=self.manifest.id,
            base=self.manifest.base,
            created=self.manifest.created,
            valid_until=self.manifest.valid_until,
            fingerprint=self.key.fingerprint,
            state=state,
            contents=len(self.manifest.contents),
            added=len(self.missing),
            added_bytes=sum(content.size for content in self.missing),
            warnings=self.warnings,
        )


def verify_bundle(
    mirror: Mirror,
    folder: Path,
    *,
    fingerprint: str | None = None,
    now: datetime | None = None,
    architecture: str | None = None,
    report: Reporter | None = None,
) -> BundleReport:
    """Check a bundle to its last byte and change nothing.

    Args:
        mirror: the mirror that would take it.
        folder: the bundle.
        fingerprint: of the key that must have signed it; needed before the first import.
        now: the time, unless it is this computer's.
        architecture: dpkg architecture, unless it is this computer's.
        report: told what happens.

    Raises:
        MirrorError: the first thing that is wrong.
    """
    report = report or Reporter()
    accepted = _accept(mirror, folder, fingerprint, now, architecture, report)
    _read_archive(accepted, "Checking every content of the bundle", report, _check_stream)
    return accepted.report("known" if accepted.known and not accepted.missing else "new")


def import_bundle(
    mirror: Mirror,
    folder: Path,
    *,
    fingerprint: str | None = None,
    now: datetime | None = None,
    architecture: str | None = None,
    report: Reporter | None = None,
) -> BundleReport:
    """Check a bundle and put its contents into the pool. Interrupted anywhere, the next call does the rest.

    Args: as of `verify_bundle`; a `fingerprint` makes its key the one that is trusted from now on.

    Raises:
        MirrorError: the first thing that is wrong. Unless it is a content inside the archive, nothing was changed.
    """
    report = report or Reporter()
    with mirror.working("importing a bundle"):
        accepted = _accept(mirror, folder, fingerprint, now, architecture, report)
        _remove_leftovers(mirror.pool)
        if accepted.missing:
            purpose = f"Importing {len(accepted.missing)} contents"
            _read_archive(accepted, purpose, report, partial(_add, mirror.pool))
        _check_lock(mirror, accepted.manifest)
        signing.pin(mirror, accepted.key)
        if accepted.known:
            return accepted.report("imported" if accepted.missing else "known")
        entry, state = bundle.keep_manifest(mirror, accepted.manifest), mirror.state()
        mirror.record(state.model_copy(update={"imported": (*state.imported, entry)}))
        return accepted.report("imported")


# ---- what is refused, in this order -----------------------------------------------------------------------


def _accept(
    mirror: Mirror,
    folder: Path,
    fingerprint: str | None,
    now: datetime | None,
    architecture: str | None,
    report: Reporter,
) -> _Accepted:
    programs.ensure((signatures.TOOL,), report)
    now = now or datetime.now(UTC)
    if not (folder / bundle.MANIFEST_NAME).is_file():
        raise MirrorError(
            f"{folder} is no bundle: it has no {bundle.MANIFEST_NAME}",
            "give the folder that has the files manifest.json and part-0001 in it",
        )
    key = signing.trusted_key(mirror, folder, fingerprint)
    for name in bundle.SIGNED:
        signing.verify(folder / name, key)
    manifest = read_document(Manifest, (folder / bundle.MANIFEST_NAME).read_bytes(), bundle.MANIFEST_NAME)
    _check_files(folder, manifest)
    warnings = _check_time(manifest, now)
    known = _check_order(mirror, manifest)
    _check_architecture(mirror, manifest, architecture)
    missing = _check_left_out(mirror.pool, manifest)
    # The folder of the mirror may not exist yet, and checking makes none.
    place = next(path for path in (mirror.root, *mirror.root.parents) if path.exists())
    require_space(place, sum(content.size for content in missing), "for the contents of the bundle")
    total = sum(part.size for part in manifest.parts)
    with report.transfer(f"Checking {len(manifest.parts)} parts of the bundle", total) as advance:
        _check_hashes(folder, manifest, advance)
    return _Accepted(folder, manifest, key, known, missing, warnings)


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that lacks a file of the manifest or has another one."""
    derived = bundle.manifest_files(manifest)
    listed = {part.file for part in (*manifest.parts, *manifest.files)} | derived.keys() | {signing.PUBLIC_NAME}
    listed |= {signatures.signature_of(folder / name).name for name in bundle.SIGNED}
    found = {path.name: path.lstat().st_mode for path in folder.iterdir()}
    if missing := sorted(listed - found.keys()):
        raise MirrorError(
            f"the bundle in {folder} is incomplete, missing: {', '.join(missing)}",
            f"only this has to be carried again: {', '.join(missing)}",
        )
    extra = sorted(name for name, mode in found.items() if name not in listed or not stat.S_ISREG(mode))
    if extra:
        raise MirrorError(
            f"the bundle in {folder} has files that its manifest does not list: {', '.join(extra)}",
            "find out who put them there; after removing them the bundle can be used",
        )
    for name, data in derived.items():
        if (folder / name).read_bytes() != data:
            raise MirrorError(f"{name} does not say the same as {bundle.MANIFEST_NAME}", _AGAIN)


def _check_time(manifest: Manifest, now: datetime) -> tuple[str, ...]:
    """Return a warning when there is little time left."""
    if now < manifest.created:
        raise MirrorError(
            f"bundle {manifest.id} was made at {_time(manifest.created)}, but this computer's clock says {_time(now)}",
            "when this clock is slow, set it: date --utc --set 'YYYY-MM-DD HH:MM:SS' (or repair its time server), then"
            " repeat; when it is right, the clock of the computer that made the lock is fast: correct it there, and"
            " make lock and bundle again",
        )
    if now >= manifest.valid_until:
        raise MirrorError(
            f"bundle {manifest.id} expired at {_time(manifest.valid_until)}; it is now {_time(now)}", _NEW_BUNDLE
        )
    left = (manifest.valid_until - now).days
    if left >= WARN_DAYS:
        return ()
    return (f"bundle {manifest.id} expires in {left} days, at {_time(manifest.valid_until)}; {_NEW_BUNDLE}",)


def _check_order(mirror: Mirror, manifest: Manifest) -> bool:
    """Return whether it is the bundle that was imported last: repeating that one is harmless."""
    imported = mirror.state().imported
    last = imported[-1] if imported else None
    if last is not None and manifest.id == last.id:
        return True
    if last is not None and manifest.created <= last.created:
        raise MirrorError(
            f"bundle {manifest.id} is not newer than {last.id}, which was imported last",
            "to serve older content again use `rtinfra mirror rollback`; it is still here",
        )
    if manifest.base is not None and (last is None or manifest.base != last.id):
        first = f"the last one imported here is {last.id}" if last else "nothing has been imported here"
        raise MirrorError(
            f"bundle {manifest.id} only brings what is new since {manifest.base}, and {first}",
            f"import bundle {manifest.base} first"
            + (f", or have a difference made with --base {last.id}" if last else "")
            + ", or a full bundle",
        )
    return False


def _check_architecture(mirror: Mirror, manifest: Manifest, architecture: str | None) -> None:
    here = architecture or programs.execute(["dpkg", "--print-architecture"], timeout=30).stdout.strip()
    if manifest.architecture != here:
        raise MirrorError(
            f"bundle {manifest.id} is for the architecture {manifest.architecture}, this computer is {here}",
            f"make a bundle for {here}, or import this one on a computer of {manifest.architecture}",
        )
    imported = mirror.state().imported
    before = bundle.load_manifest(mirror, imported[-1]).architecture if imported else here
    if before != manifest.architecture:
        raise MirrorError(
            f"bundle {manifest.id} is for the architecture {manifest.architecture}, but {mirror.root} is a mirror"
            f" for {before}",
            "use a folder of its own for each architecture: --directory",
        )


def _check_left_out(pool: Pool, manifest: Manifest) -> tuple[Carried, ...]:
    """Return what has to be added. What a difference leaves out must be there."""
    missing = [content for content in manifest.contents if not pool.has(content.sha256, content.size)]
    gone = [content.name for content in missing if not content.inside]
    if gone:
        raise MirrorError(
            f"bundle {manifest.id} leaves out what {manifest.base} brought, but this is no longer here:"
            f" {', '.join(gone[:5])}{', ...' if len(gone) > 5 else ''}",
            f"import bundle {manifest.base} again, or have a full bundle made",
        )
    return tuple(missing)


def _check_hashes(folder: Path, manifest: Manifest, advance: Callable[[int], None]) -> None:
    """Read parts and files, all of them, so that everything bad is named at once."""
    wrong: dict[str, str] = {}
    for part in (*manifest.parts, *manifest.files):
        size = (folder / part.file).stat().st_size
        if size != part.size:
            what = "truncated" if size < part.size else "too long"
            wrong[part.file] = f"{part.file} is {what}: it has {size} bytes, {part.size} are expected"
            continue
        try:
            with (folder / part.file).open("rb") as file:
                found = _sha256(file, advance)
        except OSError as error:
            wrong[part.file] = f"{part.file} cannot be read: {error.strerror}"
            continue
        if found != part.sha256:
            wrong[part.file] = f"{part.file} is damaged: its sha256 is {found}, {part.sha256} is expected"
    if wrong:
        these = "this file has" if len(wrong) == 1 else "these files have"
        raise MirrorError("; ".join(wrong.values()), f"only {these} to be carried again: {', '.join(wrong)}")


# ---- the archive ------------------------------------------------------------------------------------------


class _Joined(io.RawIOBase):
    """Reader of all parts as one file."""

    def __init__(self, paths: Iterable[Path], advance: Callable[[int], None]) -> None:
        self._paths, self._advance = iter(paths), advance
        self._file: IO[bytes] | None = None
        self._name = ""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            while self._file is not None or self._open_next():
                assert self._file is not None
                if data := self._file.read(size):
                    self._advance(len(data))
                    return data
                self._file.close()
                self._file = None
        except OSError as error:
            raise MirrorError(
                f"{self._name} can no longer be read: {error.strerror}",
                "was the stick pulled out? Put it back and repeat: what was imported already is kept",
            ) from error
        return b""

    def _open_next(self) -> bool:
        path = next(self._paths, None)
        if path is not None:
            self._name = path.name
            self._file = path.open("rb")
        return path is not None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _read_archive(
    accepted: _Accepted, purpose: str, report: Reporter, take: Callable[[Carried, IO[bytes]], None]
) -> None:
    """Give each content with a reader of its bytes to `take`. The archive must be what the manifest says, in its order.

    Raises:
        MirrorError: it is not.
    """
    manifest = accepted.manifest

    def refusal(what: str) -> MirrorError:
        return MirrorError(
            f"the archive of bundle {manifest.id} is not what its manifest says: {what}",
            "do not use this bundle; have it made again, and find out what made it",
        )

    paths = [accepted.folder / part.file for part in manifest.parts]
    try:
        with (
            report.transfer(purpose, sum(part.size for part in manifest.parts)) as advance,
            _Joined(paths, advance) as joined,
            tarfile.open(fileobj=joined, mode="r|", bufsize=_BLOCK) as archive,
        ):
            for content in manifest.carried:
                name, member = bundle.member_name(content.sha256), archive.next()
                if member is None:
                    raise refusal(f"it ends before {content.name} ({name})")
                reader = archive.extractfile(member) if member.isreg() else None
                if reader is None or member.name != name or member.size != content.size:
                    raise refusal(f"{member.name} ({member.size} bytes) is where {content.name} ({name}) is expected")
                take(content, reader)
            if (member := archive.next()) is not None:
                raise refusal(f"{member.name} is not listed")
    except tarfile.TarError as error:
        raise refusal(f"it cannot be read: {error}") from error


def _check_stream(content: Carried, reader: IO[bytes]) -> None:
    found = _sha256(reader, lambda count: None)
    if found != content.sha256:
        raise MirrorError(
            f"{content.name} in the bundle is not what was locked: its sha256 is {found}, {content.sha256} is expected",
            "do not use this bundle; have it made again, and find out who changed it",
        )


def _add(pool: Pool, carried: Carried, reader: IO[bytes]) -> None:
    content = Content(carried.sha256, carried.size, carried.kind, f"{carried.name} in the bundle")
    if not pool.has(content.sha256, content.size):
        with bundle.writing_to(pool.directory), pool.writing(content) as file:
            shutil.copyfileobj(reader, file, _BLOCK)


def _check_lock(mirror: Mirror, manifest: Manifest) -> None:
    """Refuse a lock that asks for anything else than what the manifest lists."""
    lock = read_document(Lock, mirror.pool.read(manifest.lock), "the lock in the bundle")
    expected = {content.sha256 for content in (lock_content(lock)[0], *lock.contents())}
    if expected != {content.sha256 for content in manifest.contents} or bundle_id(lock) != manifest.id:
        raise MirrorError(
            f"the manifest of bundle {manifest.id} does not list what its lock needs",
            "do not use this bundle; have it made again",
        )


def _remove_leftovers(pool: Pool) -> None:
    """Remove what an import that was ended from outside had not finished; we hold the mirror's lock."""
    for path in pool.directory.glob("[0-9a-f][0-9a-f]/.new-*"):
        path.unlink(missing_ok=True)


def _sha256(file: IO[bytes], advance: Callable[[int], None]) -> str:
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
        advance(len(block))
    return found.hexdigest()


def _time(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
