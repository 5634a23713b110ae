"""Take a bundle in: nothing that is not signed is read, and nothing is changed before everything has been checked.

What is served stays as it is: contents are added to the pool, and a release is only made by publishing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from rtinfra.config.types import Settings
from rtinfra.local import programs, signatures
from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle, bundle_keys, signing, trust
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
from rtinfra.mirror.parts import Reader, read_contents
from rtinfra.mirror.pool import Pool, require_space
from rtinfra.mirror.reading import open_plain, read_plain
from rtinfra.mirror.signing import PublicKey
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.trust import Lists

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
    lists: Lists
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
    told: str | None = None,
    now: datetime | None = None,
    architecture: str | None = None,
    report: Reporter | None = None,
) -> BundleReport:
    """Check a bundle to its last byte and change nothing.

    Args:
        mirror: the mirror that would take it.
        folder: the bundle.
        told: number or fingerprint of the key that must have signed it; needed before the first import.
        now: the time, unless it is this computer's.
        architecture: dpkg architecture, unless it is this computer's.
        report: told what happens.

    Raises:
        MirrorError: the first thing that is wrong.
    """
    report = report or Reporter()
    accepted = _accept(mirror, folder, told, now, architecture, report)
    _read_archive(accepted, "Checking every content of the bundle", report, _check_stream)
    return accepted.report("known" if accepted.known and not accepted.missing else "new")


def import_bundle(
    mirror: Mirror,
    folder: Path,
    *,
    told: str | None = None,
    now: datetime | None = None,
    architecture: str | None = None,
    report: Reporter | None = None,
) -> BundleReport:
    """Check a bundle and put its contents into the pool. Interrupted anywhere, the next call does the rest.

    Args: as of `verify_bundle`. What is trusted from now on are the keys that the bundle lists.

    Raises:
        MirrorError: the first thing that is wrong. Unless it is a content inside the archive, nothing was changed.
    """
    report = report or Reporter()
    with mirror.working("importing a bundle"):
        accepted = _accept(mirror, folder, told, now, architecture, report)
        _remove_leftovers(mirror.pool)
        if accepted.missing:
            purpose = f"Importing {len(accepted.missing)} contents"
            _read_archive(accepted, purpose, report, partial(_add, mirror.pool))
        _check_lock(mirror, accepted.manifest)
        trust.take_over(mirror, accepted.lists)
        if accepted.known:
            return accepted.report("imported" if accepted.missing else "known")
        entry, state = bundle.keep_manifest(mirror, accepted.manifest), mirror.state()
        mirror.record(state.model_copy(update={"imported": (*state.imported, entry)}))
        return accepted.report("imported")


# ---- what is refused, in this order -----------------------------------------------------------------------


def _accept(
    mirror: Mirror,
    folder: Path,
    told: str | None,
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
    with _reading(folder):
        read = _read_signed(mirror, folder, told, now)
        manifest = read.manifest
        _check_files(folder, read)
        lists = _check_lists(mirror, folder, read, now)
    warnings = (*_check_time(manifest, now), *filter(None, [trust.ending(lists.trusted, now)]))
    known = _check_order(mirror, manifest)
    _check_architecture(mirror, manifest, architecture)
    missing = _check_left_out(mirror.pool, manifest)
    # The folder of the mirror may not exist yet, and checking makes none.
    place = next(path for path in (mirror.root, *mirror.root.parents) if path.exists())
    require_space(place, sum(content.size for content in missing), "for the contents of the bundle")
    total = sum(part.size for part in manifest.parts)
    checking = f"Checking {len(manifest.parts)} parts of the bundle"
    with _reading(folder), report.transfer(checking, total) as advance:
        _check_hashes(folder, manifest, advance)
    return _Accepted(folder, manifest, read.key, lists, known, missing, warnings)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Say in plain words that the folder went away, or changes, while it is read.

    Raises:
        MirrorError: something in it cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise MirrorError(
            f"{error.filename or folder} cannot be read: {error.strerror}",
            "was the stick pulled out? Put it back and repeat; nobody else may change the folder meanwhile",
        ) from error


@dataclass(frozen=True)
class _Signed:
    """What a key signed: the manifest, and the bytes it was read from."""

    key: PublicKey
    manifest: Manifest
    data: Mapping[str, bytes]
    """By the name of the file. Nothing of this is read again."""


def _read_signed(mirror: Mirror, folder: Path, told: str | None, now: datetime) -> _Signed:
    """Read what is signed, once, and check its signatures."""
    brought = PublicKey.of_signers(read_plain(folder / signing.SIGNERS_NAME, trust.MOST), signing.SIGNERS_NAME)
    key = trust.accepted_signer(mirror, brought, told, bundle_keys.own_keys(mirror), now)
    data = {}
    for name in bundle.SIGNED:
        signature = folder / signatures.signature_of(Path(name))
        if not signature.exists():
            raise MirrorError(
                f"{name} is not signed: {signature.name} is missing",
                "do not use this bundle unless its signature can be carried here from where it was made",
            )
        data[name] = read_plain(folder / name)
        signing.verify(name, data[name], read_plain(signature, trust.MOST), key)
    manifest = read_document(Manifest, data[bundle.MANIFEST_NAME], bundle.MANIFEST_NAME)
    return _Signed(key, manifest, data)


def _check_lists(mirror: Mirror, folder: Path, read: _Signed, now: datetime) -> Lists:
    """Return which keys are trusted and refused once the bundle is imported."""
    lists = {}
    for name in (trust.TRUSTED_NAME, trust.REFUSED_NAME):
        listed = next((part for part in read.manifest.files if part.file == name), None)
        if listed is None:
            raise MirrorError(f"{bundle.MANIFEST_NAME} does not list {name}", "have the bundle made again")
        lists[name] = read_plain(folder / name, trust.MOST)
        if hashlib.sha256(lists[name]).hexdigest() != listed.sha256:
            raise MirrorError(f"{name} is not what was signed", f"only this file has to be carried again: {name}")
    return trust.merged(
        mirror,
        read.key,
        trust.parse_trusted(lists[trust.TRUSTED_NAME], trust.TRUSTED_NAME),
        trust.parse_refused(lists[trust.REFUSED_NAME], trust.REFUSED_NAME),
        now,
    )


def _check_files(folder: Path, read: _Signed) -> None:
    """Refuse a folder that lacks a file of the manifest or has another one."""
    manifest = read.manifest
    derived = bundle.manifest_files(manifest)
    listed = {part.file for part in (*manifest.parts, *manifest.files)} | derived.keys() | {signing.SIGNERS_NAME}
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
        if (read.data.get(name) or read_plain(folder / name)) != data:
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
        try:
            with open_plain(folder / part.file) as file:
                size = os.fstat(file.fileno()).st_size
                if size != part.size:
                    what = "truncated" if size < part.size else "too long"
                    wrong[part.file] = f"{part.file} is {what}: it has {size} bytes, {part.size} are expected"
                    continue
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


def _read_archive(accepted: _Accepted, purpose: str, report: Reporter, take: Callable[[Carried, Reader], None]) -> None:
    manifest = accepted.manifest
    with report.transfer(purpose, sum(part.size for part in manifest.parts)) as advance:
        read_contents(accepted.folder, manifest, take, advance)


def _check_stream(content: Carried, reader: Reader) -> None:
    found = _sha256(reader, lambda count: None)
    if found != content.sha256:
        raise MirrorError(
            f"{content.name} in the bundle is not what was locked: its sha256 is {found}, {content.sha256} is expected",
            "do not use this bundle; have it made again, and find out who changed it",
        )


def _add(pool: Pool, carried: Carried, reader: Reader) -> None:
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


def _sha256(file: Reader, advance: Callable[[int], None]) -> str:
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
        advance(len(block))
    return found.hexdigest()


def _time(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
