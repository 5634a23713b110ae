"""Releases: what a mirror serves. One is made aside, complete, and goes live by the switch of one symbolic link.

Whatever cuts a publication off, the release before is served until that switch, and the next call completes it or
starts it anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from rtinfra.config.types import Settings
from rtinfra.local.files import sync_directory
from rtinfra.local.progress import Reporter
from rtinfra.mirror import gpg, trust
from rtinfra.mirror import tree as trees
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.gpg import SigningKey, signing_key
from rtinfra.mirror.model import FORMAT, Instant, Lock, Sha256, canonical, read_document
from rtinfra.mirror.pool import make_durable, require_space
from rtinfra.mirror.registry import registry
from rtinfra.mirror.repository import Sign, repository
from rtinfra.mirror.store import Mirror, Published, State
from rtinfra.mirror.tree import Tree
from rtinfra.mirror.wheelindex import wheel_index

#: Folders of a release.
APT, REGISTRY, WHEELS = "apt", "registry", "wheels"
#: The public key that clients need, and what a release says of itself.
KEY, DESCRIPTION = "key.asc", "release.json"
#: In the name of what is not complete, or being removed.
ASIDE = ".new-"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}")
# Smallest piece of a disk that a file or folder takes.
_BLOCK = 4096
#: How far ahead of their clock clients accept a Date: Acquire::Max-FutureTime of apt.conf(5).
TOLERANCE = timedelta(seconds=10)
_SIGN_AGAIN = "rtinfra mirror publish --again"


class Description(Settings):
    """What a release says of itself, in its release.json."""

    format: Literal[1]
    name: str
    lock_id: str
    lock: Sha256
    date: Instant
    valid_until: Instant
    fingerprint: str
    """Of the key that signed its apt repository."""
    suite: str
    architecture: str
    earlier: tuple[Sha256, ...]
    """Locks of earlier releases that clients may still know: their files are served as well, unlisted."""

    @property
    def record(self) -> Published:
        """The release as the mirror's state remembers it."""
        return Published(name=self.name, lock=self.lock, date=self.date, valid_until=self.valid_until)


@dataclass(frozen=True)
class Publication:
    """The outcome of a publication."""

    release: Description
    changed: bool
    """False: it was live already, complete."""


def publish(mirror: Mirror, which: str | None, *, now: datetime, report: Reporter, again: bool = False) -> Publication:
    """Publish a lock whose contents are in the pool.

    Args:
        mirror: where.
        which: id of a bundle, lock or release; None: the lock imported last.
        now: this machine's time.
        report: is told what happens.
        again: even if it is live, and under a newer date: so that it is good for longer.

    Raises:
        MirrorError: nothing fits `which`, contents are missing, the clock is wrong, or it would be expired at once.
            Nothing has changed.
    """
    with mirror.working("publishing"):
        state = recover(mirror, report)
        return _publish(mirror, state, choose(state, which), now=now, report=report, again=again)


def rollback(mirror: Mirror, to: str | None, *, now: datetime, report: Reporter) -> Publication:
    """Publish what was published earlier, under a newer date: clients ignore an index that is older than theirs.

    Args:
        mirror: where.
        to: id of a bundle, lock or release; None: what was live before the present release.
        now: this machine's time.
        report: is told what happens.

    Raises:
        MirrorError: there is nothing to go back to, or as for `publish`.
    """
    with mirror.working("rolling back"):
        state = recover(mirror, report)
        live = live_release(mirror)
        if to is None:
            others = [release.lock for release in state.published if live is None or release.lock != live.lock]
            if not others:
                raise MirrorError(
                    "there is no earlier release to go back to", "name an imported bundle: rtinfra mirror publish ID"
                )
            sha256 = others[-1]
        else:
            sha256 = choose(state, to)
        if live is not None and sha256 == live.lock:
            raise MirrorError(
                f"the content of {to} is live already, as release {live.name}",
                f"to give it a newer date: {_SIGN_AGAIN}",
            )
        return _publish(mirror, state, sha256, now=now, report=report, again=False)


def live_release(mirror: Mirror) -> Description | None:
    """Return what is live; None when nothing is, or nothing complete.

    Raises:
        MirrorError: `current` is not the symbolic link that it should be.
    """
    if mirror.current.exists() and not mirror.current.is_symlink():
        raise MirrorError(
            f"{mirror.current} is not a symbolic link", "move it out of the way, then: rtinfra mirror publish"
        )
    return describe(mirror.current)


def describe(release: Path) -> Description | None:
    """Return what the release in a folder says of itself; None when it says nothing readable."""
    try:
        return read_document(Description, (release / DESCRIPTION).read_bytes(), DESCRIPTION)
    except (OSError, MirrorError):
        return None


def release_folders(mirror: Mirror) -> list[Path]:
    """Return the folders of all releases, oldest first."""
    if not mirror.published.is_dir():
        return []
    return sorted(path for path in mirror.published.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))


def layout(mirror: Mirror, release: Description, key: SigningKey) -> Tree:
    """Return every file of a release, from the contents of the pool.

    Raises:
        MirrorError: as for `served`.
    """
    return trees.united([served(mirror, release, lambda text: key.clearsign(text, release.date)), _own(release, key)])


def expected(mirror: Mirror, release: Description, key: SigningKey) -> Tree:
    """Return every file of a release that is there, as it should be.

    What is there is not signed again: another version of gpg would give other bytes, as good as those. A signature is
    right when it is our key's and covers the right text.

    Raises:
        MirrorError: as for `served`.
    """
    signed = mirror.published / release.name / APT / "dists" / release.suite / "InRelease"

    def signature(text: bytes) -> bytes:
        with contextlib.suppress(OSError, MirrorError):
            present = signed.read_bytes()
            if gpg.verify(present, signed, key).rstrip() == text.rstrip():
                return present
        return key.clearsign(text, release.date)

    return trees.united([served(mirror, release, signature), _own(release, key)])


def _own(release: Description, key: SigningKey) -> Tree:
    return Tree({KEY: key.public, DESCRIPTION: canonical(release.to_json())})


def served(mirror: Mirror, release: Description, sign: Sign) -> Tree:
    """Return the repository, registry and wheels of a release, from the contents of the pool.

    Earlier locks that have been collected as garbage since are left out.

    Raises:
        MirrorError: a lock, index or manifest is not in the pool, or they contradict each other.
    """
    lock, pool = read_lock(mirror, release.lock), mirror.pool
    earlier = [read_lock(mirror, sha256) for sha256 in release.earlier if pool.path(sha256).exists()]
    apt = repository(
        lock,
        pool.read(lock.stanzas.sha256),
        release.date,
        release.valid_until,
        sign,
        [(old, pool.read(old.stanzas.sha256)) for old in earlier],
    )
    manifests = {image.manifest.sha256: pool.read(image.manifest.sha256) for image in lock.images}
    return trees.united(
        [
            apt.below(APT),
            registry(lock, manifests, earlier).below(REGISTRY),
            wheel_index(lock, earlier).below(WHEELS),
        ]
    )


def read_lock(mirror: Mirror, sha256: str) -> Lock:
    """Return the lock that is this content of the pool.

    Raises:
        MirrorError: it is not there or not readable.
    """
    return read_document(Lock, mirror.pool.read(sha256), f"the lock {sha256[:16]} in the pool")


def choose(state: State, which: str | None) -> str:
    """Return the sha256 of the lock that is meant: by the id of a bundle, lock or release; None: imported last.

    Raises:
        MirrorError: nothing is known by that id; the message says what is.
    """
    if which is None:
        if not state.imported:
            raise MirrorError("nothing has been imported into this mirror yet", "rtinfra mirror import FOLDER")
        return state.imported[-1].lock
    known = [(bundle.id, bundle.lock) for bundle in (*state.bundles, *state.imported)]
    known += [(release.name, release.lock) for release in state.published]
    for name, sha256 in reversed(known):
        # A bundle is known by its time and the id of its lock, and so is a release.
        if which in (name, name.partition("-")[2], sha256):
            return sha256
    names = ", ".join(dict.fromkeys(name for name, _ in known)) or "(there is none)"
    raise MirrorError(f"this mirror knows no bundle or release {which}", f"name one of: {names}")


def expiry_notice(release: Published | Description, now: datetime) -> str | None:
    """Return the warning that a release expires soon, or has expired; None while there is time."""
    left = release.valid_until - now
    # A quarter of its time, at most two weeks: time to carry a new bundle in.
    if left > min(timedelta(days=14), (release.valid_until - release.date) / 4):
        return None
    when = f"{release.valid_until:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta():
        what = f"release {release.name} expired on {when}: clients refuse it"
    else:
        what = f"release {release.name} expires on {when}, in {left.days} days: from then on clients refuse it"
    return f"{what}; import and publish a newer bundle, or sign the same content again: {_SIGN_AGAIN}"


def recover(mirror: Mirror, report: Reporter) -> State:
    """Clean up after a call that was cut off; return what has happened so far. The caller holds the mirror.

    Raises:
        MirrorError: the record is damaged.
    """
    state = mirror.state()
    for left in [*sorted(mirror.published.glob(f"*{ASIDE}*")), *sorted(mirror.bundles.glob(f"*{ASIDE}*"))]:
        report.note(f"Removing what an interrupted call left: {left.name}")
        discard(left)
    live = live_release(mirror)
    if live is not None and live.name not in {release.name for release in state.published}:
        state = _recorded(mirror, state, live)
    return state


def discard(path: Path) -> None:
    """Remove a file, link or whole folder."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def _publish(mirror: Mirror, state: State, sha256: str, *, now: datetime, report: Reporter, again: bool) -> Publication:
    lock = read_lock(mirror, sha256)
    _require_contents(mirror, lock)
    last = max((release.date for release in state.published), default=None)
    _require_clock(lock, last, now)
    key = signing_key(mirror.keys, report, now)
    _require_key(mirror, key)
    live = live_release(mirror)
    # A link turned back by hand to an older release is not enough: clients ignore that one.
    newest = live is not None and state.published[-1] == live.record
    if live is not None and newest and live.lock == sha256 and not again and _whole(mirror, live, key):
        report.note(f"Release {live.name} is live already; nothing changed")
        if notice := expiry_notice(live, now):
            report.note(notice)
        return Publication(live, changed=False)
    release = _described(lock, sha256, _date(lock, last, now, again), key, _earlier(mirror, state, sha256, now, report))
    if release.valid_until <= now:
        raise MirrorError(
            f"lock {lock.id} of {lock.created:%Y-%m-%d} was good for {lock.valid_days} days, until"
            f" {release.valid_until:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC: clients would refuse it",
            "bring a newer bundle. If there is none, and packages this old will do, sign it as of today:"
            f" {_SIGN_AGAIN} {lock.id}",
        )
    tree = layout(mirror, release, key)
    require_space(mirror.published, _space(tree), "to publish")
    with report.step(f"Publishing release {release.name}", usual=2):
        _go_live(mirror, tree, release)
        _recorded(mirror, state, release)
    if notice := expiry_notice(release, now):
        report.note(notice)
    return Publication(release, changed=True)


def _require_key(mirror: Mirror, key: SigningKey) -> None:
    """Refuse to sign with a key that was given up: clients would refuse it too."""
    given_up = {entry.fingerprint for entry in trust.refused_keys(mirror)}
    if bad := [fingerprint for fingerprint in key.fingerprints if fingerprint in given_up]:
        raise MirrorError(
            f"the key {bad[0]} would sign the repository, but it was given up: was {key.home} restored from a backup?",
            f"rtinfra mirror keys revoke {bad[0]}, which makes a new one; then publish again",
        )


def _require_contents(mirror: Mirror, lock: Lock) -> None:
    missing = mirror.pool.missing(lock.contents())
    if not missing:
        return
    problems = [
        f"{content.name} ({content.kind}, sha256 {content.sha256}) {_found(mirror.pool.path(content.sha256))},"
        f" {content.size} bytes are expected"
        for content in missing[:10]
    ]
    if len(missing) > len(problems):
        problems.append(f"and {len(missing) - len(problems)} more")
    raise MirrorError(
        f"{len(missing)} of the contents of lock {lock.id} are not in the pool as they should be; the live release"
        " stays as it is",
        "import the bundle again",
        "\n".join(problems),
    )


def _found(path: Path) -> str:
    return f"has {path.stat().st_size} bytes" if path.exists() else "is missing"


def _require_clock(lock: Lock, last: datetime | None, now: datetime) -> None:
    """Refuse a clock that is behind the last release or the lock: clients take no release older than what they have."""
    limits = [("the last release is dated", last), (f"lock {lock.id} was made", lock.created)]
    for what, limit in limits:
        if limit is not None and now + TOLERANCE < limit:
            raise MirrorError(
                f"this machine's clock is wrong: it says {now:%Y-%m-%d %H:%M:%S} UTC,"
                f" and {what} {limit:%Y-%m-%d %H:%M:%S} UTC",
                "set the clock of this machine, for example: timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
            )


def _date(lock: Lock, last: datetime | None, now: datetime, again: bool) -> datetime:
    """The Date of a new release: the lock's own time, unless clients would take it for older than what they have."""
    if not again and (last is None or lock.created > last):
        return lock.created
    current = now.astimezone(UTC).replace(microsecond=0)
    return current if last is None else max(current, last + timedelta(seconds=1))


def _described(lock: Lock, sha256: str, date: datetime, key: SigningKey, earlier: tuple[str, ...]) -> Description:
    return Description(
        format=FORMAT,
        name=f"{date:%Y%m%dT%H%M%SZ}-{lock.id}",
        lock_id=lock.id,
        lock=sha256,
        date=date,
        valid_until=date + timedelta(days=lock.valid_days),
        fingerprint=key.fingerprint,
        suite=lock.suite,
        architecture=lock.architecture,
        earlier=earlier,
    )


def _earlier(mirror: Mirror, state: State, sha256: str, now: datetime, report: Reporter) -> tuple[str, ...]:
    """Locks that clients may have the index of: it has been published and is not expired."""
    known = dict.fromkeys(release.lock for release in state.published if release.valid_until > now)
    known.pop(sha256, None)
    whole = []
    for old in known:
        if not mirror.pool.path(old).exists() or mirror.pool.missing(read_lock(mirror, old).contents()):
            report.note(
                f"Contents of the earlier lock {old[:16]} are gone from the pool: clients that still have its"
                " index must run `apt-get update` before they install anything"
            )
        else:
            whole.append(old)
    return tuple(whole)


def _whole(mirror: Mirror, live: Description, key: SigningKey) -> bool:
    """Whether the live release is as it should be; files that are the pool's are not read."""
    tree = expected(mirror, live, key)
    return next(trees.differences(tree, mirror.pool, mirror.published / live.name), None) is None


def _space(tree: Tree) -> int:
    """Bytes that a release takes on the disk; what it shares with the pool is there already."""
    return sum(-(-len(data) // _BLOCK) * _BLOCK for data in tree.generated.values()) + _BLOCK * len(tree.directories)


def _go_live(mirror: Mirror, tree: Tree, release: Description) -> None:
    mirror.published.chmod(0o755)
    new, target = mirror.published / f"{release.name}{ASIDE}{os.getpid()}", mirror.published / release.name
    new.mkdir()
    new.chmod(0o755)
    trees.write(tree, mirror.pool, new, release.date)
    make_durable(new)
    cut_off = mirror.published / f"{release.name}{ASIDE}cut-off"
    if target.exists():
        # Made by a call that did not come to the switch: it has never been served.
        target.rename(cut_off)
    new.rename(target)
    sync_directory(mirror.published)
    link = mirror.published / f"{mirror.current.name}{ASIDE}{os.getpid()}"
    link.symlink_to(release.name)
    link.replace(mirror.current)
    sync_directory(mirror.published)
    if cut_off.exists():
        discard(cut_off)


def _recorded(mirror: Mirror, state: State, release: Description) -> State:
    state = state.model_copy(update={"published": (*state.published, release.record)})
    mirror.record(state)
    return state
