"""Make the lock of an inventory: what its mirror will hold. Read and write it as a file for people."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from roles.shared import MirrorSettings
from rtinfra.config.document import validated
from rtinfra.config.merge import Located
from rtinfra.config.yaml import load_yaml, parse_yaml
from rtinfra.images import LocalStore
from rtinfra.local.archive import Archive
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter
from rtinfra.mirror import images, tool, wheels
from rtinfra.mirror.apt import AptRoot, LocalFile, Solution, read_local
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import ADVISORIES, FORMAT, Blob, Content, Lock, LockedFile, LockedWheel
from rtinfra.mirror.pool import Pool, require_space
from rtinfra.mirror.required import TOOL, Required, WheelSet
from rtinfra.mirror.store import Mirror

_HEADER = """\
# What the offline mirror holds: every package, image, wheel and file with its size and sha256, where it came from and
# why it is there. Written by `rtinfra mirror lock`; keep it under version control. Comments of your own stay with the
# line below them when the mirror is locked again; other changes do not.
"""
_LISTS = ("packages", "images", "wheels", "files")
# Nobody breaks lines in a lock: one fact, one line.
_WIDTH = 1 << 20


@dataclass(frozen=True)
class Sources:
    """Where the connected computer takes things from."""

    archive: Archive
    store: LocalStore
    project: Path
    advisories: tuple[Path, ...] = ()
    """Files with advisories, for audits on the closed side."""


@dataclass(frozen=True)
class Locked:
    """A lock, and what became of the file."""

    lock: Lock
    path: Path
    before: Lock | None
    """The lock that was there; the very same when nothing changed."""

    @property
    def changed(self) -> bool:
        """Whether the file was written."""
        return self.lock is not self.before


def lock(
    required: Required, path: Path, mirror: Mirror, sources: Sources, report: Reporter, *, renew: bool = False
) -> Locked:
    """Find out what `required` comes to today and write it to `path`; a file that says so already is left alone.

    Everything that is no package of an archive is in the pool afterwards; `fetch` brings the packages.

    Args:
        required: what the inventory asks for.
        path: the lock.
        mirror: its folder.
        sources: where things come from.
        report: told what takes long.
        renew: date the lock today even when nothing changed: what is made from it is good for longer then.

    Raises:
        ConfigError: the lock that is there is wrong; with the line.
        MirrorError: something cannot be had, or an archive is older than when it was locked before.
    """
    carried = [_advisories_name(one) for one in sources.advisories]
    if len(set(carried)) != len(carried):
        raise MirrorError("two files with advisories have one name", "name each after its ecosystem: PyPI.zip, Go.zip")
    before = read(path) if path.exists() else None
    with mirror.working("locking a mirror"):
        solution = AptRoot(mirror.root / "apt", sources.archive, required.settings, report).resolve(required.packages)
        if before is not None:
            _require_newer(before, solution, path)
        found = _complete(required, solution, mirror, sources, report)
        if before is not None and not renew and _same(found, before):
            return Locked(before, path, before)
        if before is not None:
            found = _dated_after(before, found, path)
        write(found, path)
    return Locked(found, path, before)


def read(path: Path) -> Lock:
    """Read a lock.

    Raises:
        ConfigError: it is wrong; with the line.
        MirrorError: there is none, or it was made by a newer rtinfra.
    """
    if not path.exists():
        raise MirrorError(f"there is no lock {path}", "make it with: rtinfra mirror lock")
    tree = load_yaml(path, path.name)
    assert isinstance(tree.value, Mapping)
    found = tree.value["format"].value if "format" in tree.value else None
    if found != FORMAT:
        raise MirrorError(
            f"{path} has format {found}, this rtinfra reads format {FORMAT}",
            "use the rtinfra that the file was made with, or lock the mirror again with: rtinfra mirror lock",
        )
    return validated(Lock, tree, path.name)


def write(lock: Lock, path: Path) -> None:
    """Write a lock; comments of the file that is there stay with what they are about."""
    buffer = io.StringIO()
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.dump(_plain(lock), buffer)
    text = buffer.getvalue()
    if path.exists():
        text = _with_comments(text, path.read_text(encoding="utf-8").removeprefix(_HEADER), path.name)
    replace_file(path, (_HEADER + text).encode())


# ---- what belongs into it ---------------------------------------------------------------------------------


def _complete(required: Required, solution: Solution, mirror: Mirror, sources: Sources, report: Reporter) -> Lock:
    settings, pool = required.settings, mirror.pool
    _add_local(read_local(required.packages, settings.architecture), pool)
    locked = tuple(images.lock_image(name, sources.store, why, pool, report) for name, why in required.images.items())
    found = tuple(_wheels(one, settings, mirror, sources, report) for one in required.wheels)
    requirements = (
        _file(pool, one.name, (sources.project / one.requirements).read_bytes(), one.why) for one in required.wheels
    )
    return Lock(
        format=FORMAT,
        created=datetime.now(UTC),
        suite=settings.suite,
        architecture=settings.architecture,
        valid_days=settings.valid_days,
        stanzas=_blob(pool, solution.stanzas),
        origins=dict(solution.origins),
        packages=solution.packages,
        images=locked,
        wheels=wheels.joined(*found),
        files=(
            *requirements,
            _file(pool, tool.archive_name(sources.project), tool.archive(sources.project), (TOOL,)),
            *(_file(pool, _advisories_name(path), path.read_bytes(), ("audits",)) for path in sources.advisories),
        ),
    )


def _wheels(
    wheel_set: WheelSet, settings: MirrorSettings, mirror: Mirror, sources: Sources, report: Reporter
) -> tuple[LockedWheel, ...]:
    record = mirror.root / f"wheels-{Path(wheel_set.name).stem}.json"
    target = wheels.Target(wheel_set.pythons, settings.architecture, settings.suite)
    return wheels.resolve(sources.project / wheel_set.requirements, target, wheel_set.why, mirror.pool, record, report)


def _add_local(files: tuple[LocalFile, ...], pool: Pool) -> None:
    paths = {file.sha256: file.package.path for file in files}
    contents = tuple(Content(file.sha256, file.size, "package", file.package.path.name) for file in files)
    missing = pool.missing(contents)
    require_space(pool.directory, sum(content.size for content in missing), "for local packages")
    for content in missing:
        pool.add_file(content, paths[content.sha256])


def _blob(pool: Pool, data: bytes) -> Blob:
    blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    pool.add_bytes(Content(blob.sha256, blob.size, "index", "Packages"), data)
    return blob


def _file(pool: Pool, name: str, data: bytes, why: tuple[str, ...]) -> LockedFile:
    file = LockedFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest(), why=why)
    pool.add_bytes(Content(file.sha256, file.size, "file", name), data)
    return file


def _advisories_name(path: Path) -> str:
    """What a file with advisories is called in the lock.

    Raises:
        MirrorError: it is no .zip file, or its name is none that can be carried.
    """
    name = f"{ADVISORIES}{path.name}"
    if path.suffix != ".zip" or not path.is_file():
        raise MirrorError(f"{path} is no .zip file", "docs/offline.md, Weaknesses, says where advisories come from")
    try:
        return LockedFile(name=name, size=0, sha256="0" * 64, why=("audits",)).name
    except ValidationError as error:
        raise MirrorError(f"{path.name} is no plain file name", "name it after its ecosystem: PyPI.zip") from error


# ---- against the lock that was there ----------------------------------------------------------------------


def _same(one: Lock, other: Lock) -> bool:
    """Whether two locks say the same, but for when that was found out.

    Archives renew their indexes every few hours although nothing changed that is locked.
    """
    return _undated(one) == _undated(other)


def _undated(lock: Lock) -> dict[str, Any]:
    return {key: value for key, value in lock.to_json().items() if key not in ("created", "origins")}


def _require_newer(before: Lock, solution: Solution, path: Path) -> None:
    """Refuse an archive that offers older indexes than it did: packages with known holes would come back."""
    for suite, now in solution.origins.items():
        then = before.origins.get(suite)
        if then is not None and now.date < then.date:
            raise MirrorError(
                f"the archive is older than when {path.name} was made: its index of {suite} is of"
                f" {now.date:%Y-%m-%d %H:%M} UTC, the lock has one of {then.date:%Y-%m-%d %H:%M} UTC",
                "wait until the archive is up to date, or use another one; to go back on purpose, move"
                f" {path.name} away and lock again",
            )


def _dated_after(before: Lock, found: Lock, path: Path) -> Lock:
    """Return `found` with a time after that of `before`: bundles are ordered by the time of their locks."""
    if before.created > found.created:
        raise MirrorError(
            f"{path.name} is of {before.created:%Y-%m-%d %H:%M} UTC, and this computer's clock says"
            f" {found.created:%Y-%m-%d %H:%M} UTC",
            "set the clock (`timedatectl`), then lock again",
        )
    return found.model_copy(update={"created": max(found.created, before.created + timedelta(seconds=1))})


# ---- the file ---------------------------------------------------------------------------------------------


def _plain(lock: Lock) -> dict[str, Any]:
    """The lock as YAML has it: short lists on one line."""

    def styled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: styled(child) for key, child in value.items()}
        if not isinstance(value, list):
            return value
        items = CommentedSeq(map(styled, value))
        if all(isinstance(item, str) for item in items):
            items.fa.set_flow_style()
        return items

    plain: dict[str, Any] = styled(lock.to_json())
    return plain


_Anchor = tuple[str, ...]
_END: _Anchor = ()


def _with_comments(text: str, before: str, name: str) -> str:
    """Put the comments of a file into another one of the same structure."""
    above, behind = _comments(before, name)
    anchors = _anchors(parse_yaml(text, name))
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        anchor = anchors.get(number)
        if anchor is not None:
            indentation = line[: len(line) - len(line.lstrip())]
            lines += [indentation + comment for comment in above.get(anchor, ())]
            line += behind.get(anchor, "")
        lines.append(line)
    return "\n".join((*lines, *above.get(_END, ()))) + "\n"


def _comments(text: str, name: str) -> tuple[dict[_Anchor, list[str]], dict[_Anchor, str]]:
    """Comments above and behind the lines of a file, by what is said there."""
    anchors = _anchors(parse_yaml(text, name))
    above: dict[_Anchor, list[str]] = {}
    behind: dict[_Anchor, str] = {}
    waiting: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            waiting.append(line.strip())
        elif (anchor := anchors.get(number)) is not None:
            above[anchor], waiting = waiting, []
            # No value of a lock has a blank before a number sign.
            if comment := re.search(r"\s+#.*$", line):
                behind[anchor] = comment[0]
    above[_END] = waiting
    return above, behind


def _anchors(tree: Located) -> dict[int, _Anchor]:
    """What every line says: keys by their names, members of the lists by what they are known by."""
    found: dict[int, _Anchor] = {}
    for line, anchor in _walk(tree, ()):
        found.setdefault(line, anchor)
    return found


def _walk(tree: Located, above: _Anchor) -> Iterator[tuple[int, _Anchor]]:
    if tree.place is not None and above:
        yield tree.place.line, above
    if isinstance(tree.value, Mapping):
        for key, child in tree.value.items():
            yield from _walk(child, (*above, key))
    elif isinstance(tree.value, tuple) and above in {(name,) for name in _LISTS}:
        seen: set[str] = set()
        for child in tree.value:
            known = _known_by(child)
            while known in seen:  # two versions of one package
                known += "'"
            seen.add(known)
            yield from _walk(child, (*above, known))


def _known_by(member: Located) -> str:
    if not isinstance(member.value, Mapping):
        return ""
    words = (member.value[key].value for key in ("name", "architecture") if key in member.value)
    return " ".join(map(str, words))
