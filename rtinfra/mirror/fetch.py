"""Bring the packages of a lock into the pool: several at a time, resumed where they were cut off.

A lock names no addresses. Where packages come from is what this computer's apt is configured with at this moment; what
comes from there is believed for its hash alone.

What has arrived of a file waits in `partial/<sha256>` of the mirror's folder, across interruptions and restarts. It
is hashed while it arrives and moved into the pool only when size and hash are right.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from rtinfra.local.archive import Archive
from rtinfra.local.progress import Reporter
from rtinfra.mirror.apt import bases
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LOCAL, Content, Lock
from rtinfra.mirror.pool import Arrived, Pool, require_space
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.web import Answer, Proxies, Web, WebError

CONNECTIONS = 8
_BLOCK = 1 << 20
# Files that enter the pool at once: the disk takes about as long for many as for one.
_TOGETHER = 64
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for. Seconds."""

    attempts: int = 5
    first_pause: float = 0.5
    """Doubles with every attempt."""
    silence: float = 30.0
    """Without a single byte."""


@dataclass(frozen=True)
class Fetched:
    """What a run brought."""

    files: int
    bytes: int
    seconds: float
    there: int
    """Contents that were in the pool before."""


class _Stopped(Exception):
    """The run ends before its files are complete."""


class _NotThere(Exception):
    """This server will not give the file; another one may."""


class _TryAgain(Exception):
    """This server may give the file later."""


def fetch(lock: Lock, mirror: Mirror, archive: Archive, report: Reporter, patience: Patience | None = None) -> Fetched:
    """Bring everything that the pool lacks.

    Raises:
        MirrorError: there is no room, something can only come from where the lock was made, or files could not be
            fetched; the others are in the pool then, and all bad ones are named.
    """
    with mirror.working("fetching"):
        contents = lock.contents()
        missing = mirror.pool.missing(contents)
        items = _items(lock, archive, missing)
        partial = mirror.root / "partial"
        _forget_others(partial, missing)
        total = sum(content.size for content in missing)
        arrived = sum(path.stat().st_size for path in partial.glob("*"))
        require_space(mirror.pool.directory, max(total - arrived, 0), "for what is to be fetched")
        start = time.monotonic()
        if items:
            with report.transfer(f"Fetching {len(items)} packages", total) as advance:
                _run(items, mirror, archive, advance, patience or Patience())
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


@dataclass(frozen=True)
class _Item:
    content: Content
    urls: tuple[str, ...]


@dataclass(frozen=True)
class _Failed:
    content: Content
    error: BaseException


def _items(lock: Lock, archive: Archive, missing: list[Content]) -> list[_Item]:
    """Where to get what is missing: the largest first, so that the last connection does not drag on alone."""
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
    found = [_Item(content, places[content.sha256]) for content in missing]
    return sorted(found, key=lambda item: -item.content.size)


def _forget_others(partial: Path, missing: Iterable[Content]) -> None:
    """What began to arrive for another lock is of no use."""
    partial.mkdir(parents=True, exist_ok=True)
    wanted = {content.sha256 for content in missing}
    for path in partial.iterdir():
        if path.name not in wanted:
            path.unlink()


def _run(
    items: list[_Item], mirror: Mirror, archive: Archive, advance: Callable[[int], None], patience: Patience
) -> None:
    waiting: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    done: queue.SimpleQueue[Arrived | _Failed] = queue.SimpleQueue()
    stop = threading.Event()
    proxies = Proxies(dict(archive.options))

    def work() -> None:
        with Web(archive, proxies, patience.silence) as web:
            worker = _Worker(web, mirror, advance, patience, stop)
            while not stop.is_set():
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put(worker.bring(item))
                except _Stopped:
                    return
                except BaseException as error:
                    done.put(_Failed(item.content, error))

    # Daemons: when this run is interrupted nobody waits for a server that is silent. Whatever they are doing may
    # be cut off at any point.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(CONNECTIONS, len(items)))]
    for thread in threads:
        thread.start()
    try:
        failed = _settle(done, len(items), mirror.pool)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=1)
    if failed:
        raise _failure(failed, len(items))


def _settle(done: queue.SimpleQueue[Arrived | _Failed], count: int, pool: Pool) -> list[_Failed]:
    """Move so many files into the pool, while others still arrive; return those that failed.

    A disk that takes no more ends it early.
    """
    arrived: list[Arrived] = []
    failed: list[_Failed] = []
    for left in reversed(range(count)):
        outcome = done.get()
        try:
            if isinstance(outcome, Arrived):
                arrived.append(outcome)
            else:
                failed.append(outcome)
            if left == 0 or len(arrived) == _TOGETHER:
                pool.adopt(arrived)
                arrived.clear()
        except OSError as error:
            failed.append(_Failed(outcome.content, error))
        if failed and isinstance(failed[-1].error, OSError):
            break
    return failed


def _failure(failed: list[_Failed], of: int) -> BaseException:
    for one in failed:
        if isinstance(one.error, OSError) and one.error.errno in (errno.ENOSPC, errno.EDQUOT):
            return MirrorError(
                f"the disk became full while {one.content.name} arrived",
                "free some space, then fetch again: what has arrived is kept",
            )
        if not isinstance(one.error, MirrorError):
            return one.error
    errors = [one.error for one in failed if isinstance(one.error, MirrorError)]
    if len(errors) == 1:
        return errors[0]
    lines = sorted(error.message for error in errors)
    steps = dict.fromkeys(error.next_step for error in errors)
    return MirrorError(
        f"{len(errors)} of {of} files could not be fetched; the others are in the pool",
        "; or: ".join(steps),
        "\n".join(lines),
    )


@dataclass(frozen=True)
class _Worker:
    """Lets one file arrive after the other, in its own thread."""

    web: Web
    mirror: Mirror
    advance: Callable[[int], None]
    patience: Patience
    stop: threading.Event

    def bring(self, item: _Item) -> Arrived:
        """Let one file arrive; raises MirrorError when no server gives it."""
        reasons: list[str] = []
        arrival = _Arrival(self.mirror.root / "partial" / item.content.sha256, item.content, self.advance)
        with arrival:
            for url in item.urls:
                try:
                    self._from(url, arrival)
                    break
                except _NotThere as reason:
                    reasons.append(f"{urlsplit(url).hostname}: {reason}")
            else:
                raise MirrorError(
                    f"{item.content.name} could not be fetched: {'; '.join(reasons)}",
                    "when the archive has replaced it meanwhile, take the current version with `rtinfra mirror lock`;"
                    " otherwise try again: what has arrived is kept",
                )
        return Arrived(item.content, arrival.path, arrival.sha256)

    def _from(self, url: str, arrival: _Arrival) -> None:
        """Let a file arrive completely from one server."""
        pause = self.patience.first_pause
        for attempt in range(1, self.patience.attempts + 1):
            try:
                resumed = arrival.size > 0
                if arrival.size < arrival.content.size or not resumed:
                    self._request(url, arrival)
                if arrival.sha256 == arrival.content.sha256:
                    return
                arrival.restart()
                if not resumed:
                    raise _NotThere(f"it has another content than was locked (sha256 {arrival.content.sha256})")
                # What was there from before may have been the bad part.
            except (WebError, _TryAgain) as error:
                if attempt == self.patience.attempts:
                    raise _NotThere(f"{error}, {attempt} times") from error
                if self.stop.wait(pause):
                    raise _Stopped from error
                pause *= 2
        raise _NotThere("it has another content than was locked")

    def _request(self, url: str, arrival: _Arrival) -> None:
        start, size = arrival.size, arrival.content.size
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self.web.get(url, headers) as answer:
            status = answer.status
            if status in _AGAIN:
                raise _TryAgain(f"it answers {status}")
            if status == 416:
                arrival.restart()
                raise _TryAgain("it has less than is here already")
            if status not in (200, 206):
                raise _NotThere(f"it answers {status} {answer.reason}")
            if start and status == 200:
                arrival.restart()
            if status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                arrival.restart()
                raise _TryAgain("it gives another part than was asked for")
            offered = _whole_size(answer, arrival.size)
            # The size first: a wrong file need not be read to be refused.
            if offered is not None and offered != size:
                what = "truncated" if offered < size else "too long"
                raise _NotThere(f"it is {what} there: {offered} bytes, {size} are expected")
            # As it comes: collected into full blocks, the last one would be lost when the connection breaks.
            while block := answer.read(_BLOCK):
                if self.stop.is_set():
                    raise _Stopped
                arrival.write(block)
        if arrival.size < size:
            raise _TryAgain("it stopped in the middle")


class _Arrival:
    """A file on its way: the bytes on disk, and the hash over them."""

    def __init__(self, path: Path, content: Content, advance: Callable[[int], None]) -> None:
        self.path = path
        self.content = content
        self.size = 0
        self._advance = advance
        self._hash = hashlib.sha256()
        self._file: io.FileIO | None = None

    def __enter__(self) -> _Arrival:
        # Unbuffered: what is on disk is what was hashed.
        self._file = io.FileIO(self.path, "r+" if self.path.exists() else "w+")
        while block := self._file.read(_BLOCK):
            self._took(block)
        if self.size > self.content.size:
            self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        if self.size == 0:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    @property
    def sha256(self) -> str:
        """Of what has arrived."""
        return self._hash.hexdigest()

    def write(self, block: bytes) -> None:
        """Append; raises _NotThere when it is more than the file should have."""
        if self.size + len(block) > self.content.size:
            self.restart()
            raise _NotThere(f"it is too long there: more than {self.content.size} bytes")
        assert self._file is not None
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._took(block)

    def restart(self) -> None:
        """Throw away what has arrived."""
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._advance(-self.size)
        self.size = 0
        self._hash = hashlib.sha256()

    def _took(self, block: bytes) -> None:
        self._hash.update(block)
        self.size += len(block)
        self._advance(len(block))


def _whole_size(answer: Answer, start: int) -> int | None:
    """What the server says the whole file has; None when it does not say."""
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None
