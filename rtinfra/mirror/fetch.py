"""Bring the packages of a lock into the pool: several at a time, resumed where they were cut off.

A lock names no addresses. Where packages come from is what this computer's apt is configured with at this moment; what
comes from there is believed for its hash alone, which apt compares.

What has arrived of a file waits in `partial/<sha256>` of the mirror's folder, across interruptions and restarts. It
is moved into the pool only when size and hash are right.
"""

from __future__ import annotations

import errno
import hashlib
import re
import select
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from rtinfra.local import programs
from rtinfra.local.archive import Archive
from rtinfra.local.progress import Reporter
from rtinfra.mirror import download
from rtinfra.mirror.apt import bases
from rtinfra.mirror.download import Call, Outcome, Part, without_login
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LOCAL, Content, Lock
from rtinfra.mirror.pool import Arrived, Pool, require_space
from rtinfra.mirror.store import Mirror

#: Calls of apt's helper side by side: each has one connection to each server, and one core for its hashes.
CALLS = 4
# Of one call: the list of its arguments has a limit.
_MOST_FILES = 256
# Between two looks at how far the files are. Seconds.
_LOOK = 0.1
# What servers answer that may do better later; apt gives up at once. Broken connections it tries again itself.
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUS = re.compile(r"(?P<status>\d{3}) +(?P<words>.*)")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")


@dataclass(frozen=True)
class Patience:
    """How often a server in trouble is asked; how long a silent one is waited for is apt's own configuration."""

    attempts: int = 5
    first_pause: float = 0.5
    """Seconds. Doubles with every attempt."""


@dataclass(frozen=True)
class Fetched:
    """What a run brought."""

    files: int
    bytes: int
    seconds: float
    there: int
    """Contents that were in the pool before."""


def fetch(lock: Lock, mirror: Mirror, archive: Archive, report: Reporter, patience: Patience | None = None) -> Fetched:
    """Bring everything that the pool lacks.

    Raises:
        MirrorError: there is no room, something can only come from where the lock was made, or files could not be
            fetched; the others are in the pool then, and all bad ones are named.
    """
    with mirror.working("fetching"):
        contents = lock.contents()
        missing = mirror.pool.missing(contents)
        partial = mirror.root / "partial"
        items = _items(lock, archive, missing, partial)
        arrived = _tidy(partial, items)
        total = sum(content.size for content in missing)
        require_space(mirror.pool.directory, max(total - arrived, 0), "for what is to be fetched")
        start = time.monotonic()
        if items:
            programs.ensure((download.HELPER,), report)
            with (
                report.transfer(f"Fetching {len(items)} packages", total) as advance,
                download.options((*archive.main, *archive.security), archive.apt_directory) as options,
            ):
                failed = _Run(mirror.pool, partial, options, advance, patience or Patience()).bring(items)
            if failed:
                raise _failure(failed, len(items))
        return Fetched(len(items), total, time.monotonic() - start, len(contents) - len(missing))


def addresses(lock: Lock, archive: Archive) -> dict[str, tuple[str, ...]]:
    """Return where this computer gets each package of the archive from, by sha256; the first that works will do."""
    return {
        package.sha256: tuple(
            # Some servers take a plus sign for a blank.
            f"{base}/{quote(package.path, safe='/~')}"
            for base in bases(archive, lock.origins[package.origin].suite)
        )
        for package in lock.packages
        if package.origin != LOCAL
    }


@dataclass(eq=False)
class _Item:
    """A file that is to arrive."""

    content: Content
    urls: tuple[str, ...]
    """Without logins."""
    path: Path
    """Where it arrives."""
    asked: int = 0
    """How often, at the first of the URLs."""
    told: int = 0
    """Bytes of it that the reporter knows of."""
    resumed: bool = False
    """Something was here before the last call."""
    is_too_long: bool = False
    """It was seen to have more bytes than it may."""
    reasons: list[str] = field(default_factory=list)
    """Why it did not come from where it was looked for."""

    @property
    def rejected(self) -> Path:
        """Where apt leaves a file with another hash."""
        return self.path.with_name(f"{self.path.name}.FAILED")

    def is_begun(self) -> bool:
        """Whether what is here of it is of use: a part, or the whole, which is read and compared."""
        size = self.path.lstat().st_size
        if self.path.is_symlink() or size > self.content.size:
            return False
        return size < self.content.size or self.is_right()

    def is_right(self) -> bool:
        """Read it and compare."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.content.sha256
        except FileNotFoundError:
            return False


def _items(lock: Lock, archive: Archive, missing: list[Content], partial: Path) -> list[_Item]:
    """Where to get what is missing."""
    places = addresses(lock, archive)
    unknown = [content for content in missing if content.sha256 not in places]
    if unknown:
        names = ", ".join(content.name for content in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise MirrorError(
            f"{len(unknown)} contents of the lock are not in the pool and in no archive: {names}",
            "run `rtinfra mirror lock` here, which brings images, wheels and local packages into the pool;"
            " or use the mirror folder of the computer that made the lock",
        )
    without = next((content for content in missing if not places[content.sha256]), None)
    if without is not None:
        raise MirrorError(
            f"{without.name} is from a security archive, and this computer's apt is configured with none",
            "add Debian's security archive to /etc/apt/sources.list.d",
        )
    return [
        _Item(content, tuple(map(without_login, places[content.sha256])), partial / content.sha256)
        for content in missing
    ]


def _tidy(partial: Path, items: Sequence[_Item]) -> int:
    """Remove what began to arrive for another lock, or cannot become what it should; return the bytes that are left."""
    partial.mkdir(parents=True, exist_ok=True)
    by_name = {item.path.name: item for item in items}
    left = 0
    for path in partial.iterdir():
        item = by_name.get(path.name)
        if item is not None and item.is_begun():
            left += path.stat().st_size
        else:
            path.unlink()
    return left


@dataclass(frozen=True)
class _Run:
    """Lets files arrive, and moves them into the pool while others still do."""

    pool: Pool
    partial: Path
    options: Sequence[str]
    advance: Callable[[int], None]
    patience: Patience

    def bring(self, items: Sequence[_Item]) -> list[_Item]:
        """Let all arrive; return those that no server gives.

        Raises:
            MirrorError: the disk takes no more.
        """
        failed: list[_Item] = []
        pause = self.patience.first_pause
        # What had arrived completely before the last run ended needs no server.
        there = [item for item in items if item.path.exists() and item.path.stat().st_size == item.content.size]
        self._adopt(there)
        waiting = [item for item in items if item not in there]
        while waiting:
            refused = self._round(waiting)
            waiting = []
            is_in_trouble = False
            for item, reason in refused:
                if self._may_come_later(item, reason):
                    is_in_trouble = True
                    waiting.append(item)
                elif self._is_to_be_had(item, reason):
                    waiting.append(item)
                else:
                    failed.append(item)
            if is_in_trouble:
                time.sleep(pause)
                pause *= 2
        return failed

    def _may_come_later(self, item: _Item, reason: str) -> bool:
        match = _STATUS.match(reason)
        return match is not None and int(match["status"]) in _AGAIN and item.asked < self.patience.attempts

    def _is_to_be_had(self, item: _Item, reason: str) -> bool:
        """Whether there is somewhere to look next; `reason` is why it did not come, empty when nothing is known."""
        if not reason:
            return True
        match = _STATUS.match(reason)
        words = f"it answers {match['status']} {match['words']}" if match else reason
        times = f", {item.asked} times" if item.asked > 1 else ""
        item.reasons.append(f"{urlsplit(item.urls[0]).hostname or item.urls[0]}: {words}{times}")
        item.urls, item.asked = item.urls[1:], 0
        return bool(item.urls)

    def _round(self, items: Sequence[_Item]) -> list[tuple[_Item, str]]:
        """Ask for each file once; return those that did not arrive, and why."""
        waiting = _shares(items)
        running: dict[Call, list[_Item]] = {}
        refused: list[tuple[_Item, str]] = []
        with ExitStack() as stack:
            while waiting or running:
                while waiting and len(running) < CALLS:
                    share = waiting.pop()
                    running[stack.enter_context(self._call(share))] = share
                ended, _, _ = select.select(list(running), [], [], _LOOK)
                self._look(running)
                for call in ended:
                    refused += self._settle(call.outcome(), running.pop(call))
        return refused

    def _call(self, items: Sequence[_Item]) -> AbstractContextManager[Call]:
        for item in items:
            item.asked += 1
            item.resumed = item.path.exists() and item.path.stat().st_size > 0
        parts = [Part(item.urls[0], item.path, item.content.sha256) for item in items]
        return download.calling(parts, self.options)

    def _look(self, running: dict[Call, list[_Item]]) -> None:
        """Tell how far the files are; end a call of which one becomes longer than it may."""
        for call, items in running.items():
            for item in items:
                try:
                    size = item.path.lstat().st_size
                except FileNotFoundError:
                    continue
                if size > item.content.size and not item.path.is_symlink():
                    item.is_too_long = True
                    call.end()
                self._tell(item, min(size, item.content.size))

    def _tell(self, item: _Item, size: int) -> None:
        if size != item.told:
            self.advance(size - item.told)
            item.told = size

    def _settle(self, outcome: Outcome, items: Sequence[_Item]) -> list[tuple[_Item, str]]:
        """Move what a call brought into the pool; return what it did not bring, and why."""
        # Of a call that failed nothing is known but what it complains of: read the others.
        arrived = [item for item in items if outcome.complete or item.is_right()]
        self._adopt(arrived)
        is_cut = any(item.is_too_long for item in items)
        refused = []
        for item in items:
            if item not in arrived:
                self._tell(item, item.path.stat().st_size if item.path.exists() and not item.is_too_long else 0)
                said = outcome.reasons.get(item.urls[0], "" if is_cut else outcome.said)
                refused.append((item, _reason(item, said)))
        return refused

    def _adopt(self, items: Sequence[_Item]) -> None:
        try:
            for item in items:
                # apt does not copy what is on this computer.
                if item.path.is_symlink():
                    self.pool.add_file(item.content, item.path)
                    item.path.unlink()
                self._tell(item, item.content.size)
            files = [item for item in items if item.path.exists()]
            self.pool.adopt([Arrived(item.content, item.path, item.content.sha256) for item in files])
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(items[0]) from error
            raise


def _shares(items: Sequence[_Item]) -> list[list[_Item]]:
    """What each call is to bring: about as many bytes each, the largest first."""
    count = min(len(items), max(CALLS, -(-len(items) // _MOST_FILES)))
    shares: list[list[_Item]] = [[] for _ in range(count)]
    sizes = [0] * count
    for item in sorted(items, key=lambda item: -item.content.size):
        least = min((at for at in range(count) if len(shares[at]) < _MOST_FILES), key=sizes.__getitem__)
        shares[least].append(item)
        sizes[least] += item.content.size
    return shares


def _reason(item: _Item, said: str) -> str:
    """Return why a file did not arrive, and remove what is of no use of it; empty: it is to be asked for once more.

    Raises:
        MirrorError: the disk takes no more.
    """
    if _FULL.search(said):
        raise _full(item)
    size = item.content.size
    if item.is_too_long:
        item.is_too_long = False
        item.path.unlink(missing_ok=True)
        item.rejected.unlink(missing_ok=True)
        return _too_long(size)
    if not item.rejected.exists():
        return said
    found = item.rejected.stat().st_size
    item.rejected.unlink()
    if item.resumed:
        # What was there from before may have been the bad part.
        return ""
    if found < size:
        return f"it is truncated there: {found} bytes, {size} are expected"
    if found > size:
        return _too_long(size)
    return f"it has another content than was locked (sha256 {item.content.sha256})"


def _too_long(size: int) -> str:
    # How much there is nobody knows: it is given up as soon as it is noticed.
    return f"it is too long there: more than {size} bytes"


def _full(item: _Item) -> MirrorError:
    return MirrorError(
        f"the disk became full while {item.content.name} arrived",
        "free some space, then fetch again: what has arrived is kept",
    )


def _failure(failed: Sequence[_Item], of: int) -> MirrorError:
    lines = sorted(f"{item.content.name} could not be fetched: {'; '.join(item.reasons)}" for item in failed)
    step = (
        "when the archive has replaced it meanwhile, take the current version with `rtinfra mirror lock`;"
        " otherwise try again: what has arrived is kept"
    )
    if len(lines) == 1:
        return MirrorError(lines[0], step)
    return MirrorError(
        f"{len(lines)} of {of} files could not be fetched; the others are in the pool", step, "\n".join(lines)
    )
