"""Whether a mirror is what it should be: every content of the pool is read, every file that is served compared.

The registry is looked at as files: a registry that runs does not read a blob again that it has seen.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from rtinfra import openpgp
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import Reporter
from rtinfra.mirror import gpg, trust
from rtinfra.mirror import tree as trees
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.finding import Finding
from rtinfra.mirror.gpg import SigningKey
from rtinfra.mirror.model import Content
from rtinfra.mirror.release import (
    APT,
    DESCRIPTION,
    KEY,
    TOLERANCE,
    Description,
    expected,
    expiry_notice,
    live_release,
    read_lock,
    served,
)
from rtinfra.mirror.store import Mirror, State

_PUBLISH = "rtinfra mirror publish"


def audit(mirror: Mirror, *, now: datetime, report: Reporter) -> tuple[Finding, ...]:
    """Return everything that is wrong; nothing is changed.

    Raises:
        MirrorError: the record of the mirror is damaged.
        LocalError: gpg is missing and cannot be installed.
    """
    with mirror.working("auditing"):
        state = mirror.state()
        return (*_pool(mirror, state, report), *_live(mirror, state, now, report), *_trusted(mirror, now))


def _trusted(mirror: Mirror, now: datetime) -> Iterator[Finding]:
    try:
        if notice := trust.ending(trust.pinned(mirror), now):
            problem, _, step = notice.partition("; ")
            yield Finding(file=str(mirror.root), problem=problem, next_step=step, severity="warning")
        trust.refused_keys(mirror)
    except MirrorError as error:
        yield _finding(mirror.root, error.message, error.next_step)


def _pool(mirror: Mirror, state: State, report: Reporter) -> Iterator[Finding]:
    pool = mirror.pool
    known, findings = _known(mirror, state)
    yield from findings
    present = list(pool.everything())
    size = sum(path.lstat().st_size for path in present)
    with report.transfer(f"Reading {len(present)} contents of the pool", size) as advance:
        for path in present:
            advance(path.lstat().st_size)
            if not re.fullmatch(r"[0-9a-f]{64}", path.name) or path.parent.name != path.name[:2] or not _plain(path):
                yield _finding(path, "is no content of a pool", "move it elsewhere")
                continue
            content = known.get(path.name) or Content(path.name, path.stat().st_size, "file", path.name)
            try:
                pool.verify(content)
            except MirrorError as error:
                yield _finding(
                    path, error.message, f"remove this file, import the bundle that has it again, then: {_PUBLISH}"
                )
            if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                yield _finding(path, "can be changed by other users of this machine", f"chmod 644 {path}")
    for content in pool.missing(tuple(known.values())):
        path = pool.path(content.sha256)
        if not path.exists():
            yield _finding(path, f"{content.name} is missing from the pool", "import the bundle that has it again")


def _known(mirror: Mirror, state: State) -> tuple[dict[str, Content], list[Finding]]:
    """The contents of all locks that were imported or published, by hash."""
    known: dict[str, Content] = {}
    findings = []
    locks = [*(bundle.lock for bundle in state.imported), *(release.lock for release in state.published)]
    for sha256 in dict.fromkeys(locks):
        try:
            known.update({content.sha256: content for content in read_lock(mirror, sha256).contents()})
        except MirrorError as error:
            findings.append(_finding(mirror.pool.path(sha256), error.message, "import its bundle again"))
    return known, findings


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _live(mirror: Mirror, state: State, now: datetime, report: Reporter) -> Iterator[Finding]:
    try:
        release = live_release(mirror)
    except MirrorError as error:
        yield _finding(mirror.current, error.message, error.next_step)
        return
    if release is None:
        if state.published or mirror.current.is_symlink():
            yield _finding(mirror.current, "leads to no complete release", _PUBLISH)
        return
    if str(mirror.current.readlink()) != release.name:
        yield _finding(mirror.current, f"leads to {mirror.current.readlink()}, not to {release.name}", _PUBLISH)
    if not state.published or state.published[-1] != release.record:
        yield _finding(mirror.current, f"release {release.name} is live, but not the last one recorded", _PUBLISH)
    if now + TOLERANCE < release.date:
        yield _finding(
            mirror.current,
            f"is dated {release.date:%Y-%m-%d %H:%M:%S} UTC, and this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC",
            "set the clock of this machine",
        )
    if notice := expiry_notice(release, now):
        problem, _, step = notice.partition("; ")
        severity: Literal["error", "warning"] = "error" if release.valid_until <= now else "warning"
        yield Finding(file=str(mirror.current), problem=problem, next_step=step, severity=severity)
    folder = mirror.published / release.name
    with report.step(f"Comparing release {release.name} with its lock", usual=1):
        key, findings = _key(mirror, now, report)
        yield from findings
        yield from _changed_keys(folder, key)
        yield from _signature(folder, release, key)
        yield from _files(mirror, folder, release, key)


def _key(mirror: Mirror, now: datetime, report: Reporter) -> tuple[SigningKey | None, list[Finding]]:
    home = gpg.home_of(mirror.keys)
    if home is None:
        # Looking must not make one.
        missing = "the repository's signing key is missing"
        return None, [_finding(mirror.keys / "repository", missing, "restore it from a backup")]
    try:
        return gpg.signing_key(mirror.keys, report, now), []
    except LocalError as error:
        return None, [_finding(home, error.message, error.next_step)]


def _changed_keys(folder: Path, key: SigningKey | None) -> Iterator[Finding]:
    """Tell that keys were changed since the release was published: what differs in it then is nobody's fault."""
    path = folder / KEY
    if key is None or not _plain(path):
        return
    try:
        served_keys = openpgp.fingerprints(path.read_bytes())
    except ValueError as error:
        yield _finding(path, str(error), f"find out who changed it, then: {_PUBLISH}")
        return
    if set(served_keys) != set(key.fingerprints):
        yield _finding(
            path,
            f"is of the key {' and '.join(served_keys)}, and what signs now is {' and '.join(key.fingerprints)}",
            f"{_PUBLISH} --again, then deploy: hosts get the keys",
        )


def _signature(folder: Path, release: Description, key: SigningKey | None) -> Iterator[Finding]:
    path = folder / APT / "dists" / release.suite / "InRelease"
    if key is None or not _plain(path):
        return
    try:
        gpg.verify(path.read_bytes(), path, key)
    except MirrorError as error:
        yield _finding(path, error.message, error.next_step)


def _files(mirror: Mirror, folder: Path, release: Description, key: SigningKey | None) -> Iterator[Finding]:
    try:
        if key is not None:
            tree = expected(mirror, release, key)
        else:
            # What cannot be made again without the key is taken as it is.
            own = {name: (folder / name).read_bytes() for name in (KEY, DESCRIPTION) if _plain(folder / name)}
            signed = folder / APT / "dists" / release.suite / "InRelease"
            present = signed.read_bytes() if _plain(signed) else b""
            tree = trees.united([served(mirror, release, lambda _: present), trees.Tree(own)])
    except MirrorError as error:
        yield _finding(folder, error.message, error.next_step)
        return
    for difference in trees.differences(tree, mirror.pool, folder):
        path = folder / difference.path
        yield _finding(path, difference.problem, f"find out who changed it, then: {_PUBLISH}")


def _finding(path: Path, problem: str, next_step: str) -> Finding:
    return Finding(file=str(path), problem=problem, next_step=next_step)
