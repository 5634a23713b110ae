"""Making room: old releases and bundles on request, and contents that nobody can need any more.

A content stays while any of these lists it:
- the live release;
- a release whose Valid-Until has not passed: clients may still have its index and install what it names;
- one of the last releases or bundles, as many as the caller keeps;
- the lock imported last, and every lock imported and not yet published that is newer than the live one;
- a lock that the caller names: the lock file of the connected side, what is being fetched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rtinfra.config.types import Settings
from rtinfra.local.progress import Reporter
from rtinfra.mirror import tree as trees
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Lock
from rtinfra.mirror.release import (
    ASIDE,
    DESCRIPTION,
    KEY,
    describe,
    discard,
    live_release,
    read_lock,
    recover,
    release_folders,
    served,
)
from rtinfra.mirror.store import Mirror, State

# What a write left that was cut off; a running one is younger.
_ABANDONED = timedelta(days=1)


class Freed(Settings):
    """A content that a collection removes or would remove; `size` in bytes."""

    name: str
    sha256: str
    size: int


class Garbage(Settings):
    """What a collection removed, or would remove."""

    releases: tuple[str, ...]
    contents: tuple[Freed, ...]
    temporary: tuple[str, ...]
    """What interrupted writes left."""
    freed: int
    """Bytes of disk."""


@dataclass(frozen=True)
class _Needed:
    """Records and contents that a collection keeps."""

    state: State
    contents: frozenset[str]


def collect(
    mirror: Mirror, *, keep: int, locks: Sequence[Lock], now: datetime, dry_run: bool, report: Reporter
) -> Garbage:
    """Remove what nobody can need any more (the rule stands above), or say what that is.

    Args:
        mirror: where.
        keep: how many of the last releases, and of the last bundles made here, stay whatever their age.
        locks: whose contents stay as well.
        now: this machine's time.
        dry_run: change nothing.
        report: is told what happens.

    Raises:
        MirrorError: a lock that decides what stays cannot be read. Nothing has changed.
    """
    with mirror.working("collecting garbage"):
        state = mirror.state() if dry_run else recover(mirror, report)
        needed = _needed(mirror, state, keep, locks, now)
        names = _names(mirror, state)
        stays = {release.name for release in needed.state.published}
        folders = [folder for folder in release_folders(mirror) if folder.name not in stays]
        gone = [path for path in mirror.pool.everything() if path.name not in needed.contents]
        left = list(_abandoned(mirror, now))
        garbage = Garbage(
            releases=tuple(folder.name for folder in folders),
            contents=tuple(
                Freed(name=names.get(path.name, "unknown"), sha256=path.name, size=path.stat().st_size) for path in gone
            ),
            temporary=tuple(path.name for path in left),
            freed=sum(path.stat().st_size for path in (*gone, *left)),
        )
        if not dry_run:
            with report.step(f"Removing {len(gone)} contents, {garbage.freed / 1e6:.0f} MB", usual=2):
                _remove(mirror, needed, folders, gone, left)
        return garbage


def remove(
    mirror: Mirror, *, releases: Sequence[str] = (), bundles: Sequence[str] = (), report: Reporter
) -> tuple[str, ...]:
    """Remove the folders of old releases and of bundles made here; return their names.

    The contents stay in the pool, and clients with the index of such a release are served by the live one: `collect`
    decides about them. A removed release can be rolled back to while its contents are there, and a removed bundle is
    still one that differences can build on.

    Raises:
        MirrorError: one is not there, or is live. Nothing has changed.
    """
    with mirror.working("removing"):
        recover(mirror, report)
        live = live_release(mirror)
        folders = [_folder(mirror.published, name, "release") for name in releases]
        folders += [_folder(mirror.bundles, name, "bundle") for name in bundles]
        if live is not None and live.name in releases:
            raise MirrorError(
                f"release {live.name} is live and stays",
                "publish another one first; rtinfra mirror rollback goes back to the one before",
            )
        for folder in folders:
            _discard_aside(folder)
        return tuple(folder.name for folder in folders)


def _folder(parent: Path, name: str, what: str) -> Path:
    known = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    known = [each for each in known if each != "current"]
    if name not in known:
        raise MirrorError(f"there is no {what} {name}", f"name one of: {', '.join(known) or '(there is none)'}")
    return parent / name


def _discard_aside(folder: Path) -> None:
    """Remove a folder that never looks complete when it is not."""
    aside = folder.with_name(f"{folder.name}{ASIDE}removed")
    folder.rename(aside)
    discard(aside)


def _needed(mirror: Mirror, state: State, keep: int, locks: Sequence[Lock], now: datetime) -> _Needed:
    live = live_release(mirror)
    recent = {release.name for release in state.published[-keep:]} if keep else set()
    if live is not None:
        recent.add(live.name)
    # The last date given is remembered: the next one must be later.
    published = tuple(
        release
        for release in state.published
        if release.valid_until > now or release.name in recent or release is state.published[-1]
    )
    once = {release.lock for release in state.published}
    newest = read_lock(mirror, live.lock).created if live is not None else None
    served_locks = {release.lock for release in published}
    imported = tuple(
        bundle
        for bundle in state.imported
        if bundle is state.imported[-1]
        or bundle.lock in served_locks
        or (bundle.lock not in once and (newest is None or bundle.created > newest))
    )
    decisive = served_locks | {bundle.lock for bundle in imported}
    # Nothing is served from bundles: one whose lock is not in the pool needs no content of it.
    kept_bundles = state.bundles[-max(keep, 1) :]
    made = {bundle.lock for bundle in kept_bundles if mirror.pool.path(bundle.lock).exists()}
    contents = {*decisive, *made}
    for lock in (*locks, *(read_lock(mirror, sha256) for sha256 in sorted(decisive | made))):
        contents.update(content.sha256 for content in lock.contents())
    return _Needed(
        state.model_copy(update={"published": published, "imported": imported}),
        frozenset(contents),
    )


def _names(mirror: Mirror, state: State) -> dict[str, str]:
    """Names for people, as far as the locks are still there."""
    names: dict[str, str] = {}
    bundles = {bundle.lock for bundle in (*state.imported, *state.bundles)}
    for sha256 in bundles | {release.lock for release in state.published}:
        with contextlib.suppress(MirrorError):
            lock = read_lock(mirror, sha256)
            names.update({content.sha256: content.name for content in lock.contents()})
            names[sha256] = f"lock {lock.id}"
    return names


def _abandoned(mirror: Mirror, now: datetime) -> Iterator[Path]:
    for path in sorted(mirror.pool.directory.glob("[0-9a-f][0-9a-f]/.new-*")):
        if path.stat().st_mtime < (now - _ABANDONED).timestamp():
            yield path


def _remove(mirror: Mirror, needed: _Needed, folders: list[Path], gone: list[Path], left: list[Path]) -> None:
    """Remove. A call that is cut off leaves what the next one finds again: contents go last."""
    mirror.record(needed.state)
    for folder in folders:
        _discard_aside(folder)
    for folder in release_folders(mirror):
        _prune(mirror, folder, needed)
    for path in (*gone, *left):
        path.unlink(missing_ok=True)


def _prune(mirror: Mirror, folder: Path, needed: _Needed) -> None:
    """Take away what a release serves for earlier locks that nobody needs."""
    release = describe(folder)
    if release is None:
        return
    earlier = tuple(sha256 for sha256 in release.earlier if sha256 in needed.contents)
    tree = served(mirror, release.model_copy(update={"earlier": earlier}), lambda text: text)
    for name in set(trees.files(folder)) - tree.paths - {KEY, DESCRIPTION}:
        (folder / name).unlink()
    stays = {folder, *(folder / name for name in tree.directories)}
    for parent, _, _ in os.walk(folder, topdown=False):
        if Path(parent) not in stays:
            Path(parent).rmdir()
