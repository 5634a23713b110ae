"""The apt repository of a lock (https://wiki.debian.org/DebianRepository/Format): the same bytes from the same lock.

The stanzas of the packages are those of the signed indexes that the lock was made from; only the path is ours. Every
.deb has a path with its sha256, and every index also a name that is its hash (Acquire-By-Hash), so that a client in
the middle of an update or installation while another release is published still finds what its index names.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from email.utils import format_datetime

from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Blob, Lock, LockedPackage, ordered
from rtinfra.mirror.tree import Tree, united

#: Origin and Label of the repository.
ORIGIN = "rtinfra"
COMPONENT = "main"

Sign = Callable[[bytes], bytes]
"""From the text of a Release file to the clear-signed InRelease."""


def repository(
    lock: Lock,
    stanzas: bytes,
    date: datetime,
    valid_until: datetime,
    sign: Sign | None = None,
    earlier: Iterable[tuple[Lock, bytes]] = (),
) -> Tree:
    """Return the apt repository of a lock. Without `sign` it has no InRelease: for clients told to trust it.

    Args:
        lock: what it offers.
        stanzas: the content `lock.stanzas`.
        date: of the Release file.
        valid_until: of the Release file.
        sign: makes InRelease.
        earlier: locks, each with its stanzas, whose indexes clients may still have: their files stay reachable.

    Raises:
        MirrorError: the stanzas do not describe exactly the packages of their lock.
    """
    made = indexes(lock, stanzas)
    text = release_file(lock, made, date, valid_until)
    generated = {"Release": text}
    if sign is not None:
        generated["InRelease"] = sign(text)
    generated.update({f"{_index_folder(lock)}/{name}": data for name, data in made.items()})
    return united(
        [
            *(_reachable(old, indexes(old, old_stanzas)) for old, old_stanzas in earlier),
            _reachable(lock, made),
            Tree(generated).below(f"dists/{lock.suite}"),
        ]
    )


def indexes(lock: Lock, stanzas: bytes) -> dict[str, bytes]:
    """Return the index files by name: Packages, plain and compressed.

    Raises:
        MirrorError: the stanzas do not describe exactly the packages of the lock.
    """
    described = _by_identity(stanzas)
    packages = ordered(lock.packages)
    if extra := described.keys() - {_identity(package) for package in packages}:
        raise MirrorError(
            f"the package index of lock {lock.id} describes {_shown(min(extra))}, which the lock does not list",
            "make the lock again",
        )
    text = "\n".join(_rewritten(described, package, lock) for package in packages)
    data = text.encode("utf-8", "surrogateescape")
    return {"Packages": data, "Packages.gz": gzip.compress(data, 9, mtime=0)}


def release_file(lock: Lock, made: dict[str, bytes], date: datetime, valid_until: datetime) -> bytes:
    """Return the Release file that vouches for the index files."""
    hashes = [
        f" {hashlib.sha256(data).hexdigest()} {len(data):>9} {_index_folder(lock)}/{name}"
        for name, data in sorted(made.items())
    ]
    lines = [
        f"Origin: {ORIGIN}",
        f"Label: {ORIGIN}",
        f"Suite: {lock.suite}",
        f"Codename: {lock.suite}",
        f"Date: {_time(date)}",
        f"Valid-Until: {_time(valid_until)}",
        "Acquire-By-Hash: yes",
        # `all` is not listed: packages for every architecture are in the one index.
        f"Architectures: {lock.architecture}",
        f"Components: {COMPONENT}",
        f"Description: Offline mirror, lock {lock.id}",
        "SHA256:",
        *hashes,
    ]
    return ("\n".join(lines) + "\n").encode()


def package_path(package: LockedPackage) -> str:
    """Return where a package is, below the repository."""
    return f"pool/{package.sha256[:2]}/{package.sha256}/{package.file_name}"


def _reachable(lock: Lock, made: dict[str, bytes]) -> Tree:
    """What clients with the index of this lock may ask for."""
    folder = f"dists/{lock.suite}/{_index_folder(lock)}/by-hash/SHA256"
    return Tree(
        {f"{folder}/{hashlib.sha256(data).hexdigest()}": data for data in made.values()},
        {package_path(package): Blob(sha256=package.sha256, size=package.size) for package in lock.packages},
    )


def _index_folder(lock: Lock) -> str:
    return f"{COMPONENT}/binary-{lock.architecture}"


def _time(value: datetime) -> str:
    # Not strftime, whose names of days follow the locale.
    return format_datetime(value, usegmt=True).replace("GMT", "UTC")


_Identity = tuple[str, str, str]


def _identity(package: LockedPackage) -> _Identity:
    return package.name, package.version, package.architecture


def _shown(identity: _Identity) -> str:
    return "package {} {} ({})".format(*identity)


def _by_identity(stanzas: bytes) -> dict[_Identity, list[str]]:
    """The lines of each stanza."""
    described: dict[_Identity, list[str]] = {}
    # Bytes that are no UTF-8 survive, and only newlines end a line: descriptions may hold anything else.
    for stanza in stanzas.decode("utf-8", "surrogateescape").split("\n\n"):
        lines = stanza.strip("\n").split("\n")
        if lines == [""]:
            continue
        identity = (_value(lines, "package"), _value(lines, "version"), _value(lines, "architecture"))
        if identity in described:
            raise MirrorError(f"a package index describes {_shown(identity)} twice", "make the lock again")
        described[identity] = lines
    return described


def _value(lines: list[str], field: str) -> str:
    """The value of a field of one line; empty when it is not there."""
    position = _position(lines, field)
    return "" if position is None else lines[position].partition(":")[2].strip()


def _position(lines: list[str], field: str) -> int | None:
    matching = (number for number, line in enumerate(lines) if line.partition(":")[0].lower() == field)
    return next(matching, None)


def _rewritten(described: dict[_Identity, list[str]], package: LockedPackage, lock: Lock) -> str:
    identity = _identity(package)
    if identity not in described:
        raise MirrorError(
            f"the package index of lock {lock.id} lacks {_shown(identity)}, which the lock lists", "make the lock again"
        )
    lines = list(described[identity])
    for field, locked in (("size", str(package.size)), ("sha256", package.sha256)):
        if (indexed := _value(lines, field)) != locked:
            raise MirrorError(
                f"{_shown(identity)} has {field} {indexed or '(none)'} in its index, {locked} in lock {lock.id}",
                "make the lock again; if that does not help, the archive it came from is damaged",
            )
    line, position = f"Filename: {package_path(package)}", _position(lines, "filename")
    if position is None:
        lines.append(line)
    else:
        lines[position] = line
    return "\n".join(lines) + "\n"
