"""What an audit asks about: every Python, Go and Debian package that this project and its mirror are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtinfra.images import LocalStore
from rtinfra.mirror import lock as locking
from rtinfra.mirror.ecosystems import GO, GO_STANDARD, PYPI, distribution, normalised, of_toolchain
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import ADVISORIES, LOCAL, Lock, LockedPackage
from rtinfra.mirror.pool import Pool
from rtinfra.mirror.release import live_release, read_lock
from rtinfra.mirror.store import Mirror

_PINNED: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
_MODULE: Final = re.compile(r"^(?:require\s+)?([\w.~-]+(?:/[\w.~-]+)+)\s+(v\S+)\s*(?://.*)?$")
_REPLACED: Final = re.compile(r"^(?:replace\s+)?(\S+)(?:\s+v\S+)?\s+=>\s+(\S+)\s+(v\S+)\s*(?://.*)?$")
_SOURCE: Final = re.compile(r"^Source: (\S+)(?: \((\S+)\))?$", re.MULTILINE)
_BUILT_USING: Final = re.compile(r"^Built-Using: (.*)$", re.MULTILINE)
_BUILT_OF: Final = re.compile(r"(\S+) \(= (\S+)\)")
_SHA256: Final = re.compile(r"^SHA256: ([0-9a-f]{64})$", re.MULTILINE)

_LOCK_AGAIN: Final = (
    "`rtinfra mirror lock` takes what the archive has today, then fetch, check, bundle, import, publish"
)
_REQUIREMENTS_AGAIN: Final = "`make lock` takes newer versions, then `rtinfra mirror lock`"


@dataclass(frozen=True)
class Component:
    """A package in one version, under the names that advisories use. `renew` says how a newer version gets in."""

    ecosystem: str
    name: str
    version: str
    where: str
    renew: str

    @property
    def key(self) -> tuple[str, str]:
        """What advisories name it by."""
        return self.ecosystem, self.name


def everything(project: Path, found: Iterable[tuple[str, Lock]], pool: Pool, store: LocalStore) -> Iterator[Component]:
    """Yield what the project pins, what its images are built of, and what locks have.

    Raises:
        MirrorError: something that names packages cannot be read.
    """
    yield from of_project(project)
    yield from of_recipes(project, store)
    for shown, lock in found:
        yield from of_lock(lock, shown, pool)


def locks(path: Path, mirror: Mirror) -> Iterator[tuple[str, Lock]]:
    """Yield the lock in a file, that of the live release and that of the last import: those that there are, each once.

    Raises:
        ConfigError: the lock is wrong.
        MirrorError: one of the mirror's cannot be read.
    """
    seen = set()
    if path.is_file():
        own = locking.read(path)
        seen.add(own.id)
        yield path.name, own
    live, imported = live_release(mirror), mirror.state().imported
    known = [(f"release {live.name}", live.lock)] if live else []
    known += [(f"bundle {one.id}", one.lock) for one in imported[-1:]]
    for shown, sha256 in known:
        found = read_lock(mirror, sha256)
        if found.id not in seen:
            seen.add(found.id)
            yield shown, found


def of_project(project: Path) -> Iterator[Component]:
    """Yield what the tool itself, the programs on hosts and the development of both need, as pinned.

    Raises:
        MirrorError: a file with pins pins nothing.
    """
    for path in sorted((project / "requirements").glob("*.txt")):
        shown, found = path.relative_to(project), 0
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if match := _PINNED.match(line):
                found += 1
                name = normalised(PYPI, match[1])
                yield Component(PYPI, name, match[2], f"{shown}:{number}", _REQUIREMENTS_AGAIN)
        if not found:
            raise MirrorError(f"{shown} pins nothing", "make it again with: make lock")


def of_recipes(project: Path, store: LocalStore) -> Iterator[Component]:
    """Yield the Go modules of the images that are built here, and the Go that those in the store were built with.

    Raises:
        MirrorError: a recipe names no modules, or an image was built with a Go that is no release.
    """
    for name, image in store.catalogue.images.items():
        if image.go is None:
            continue
        for path in sorted((project / image.go.directory).rglob("go.mod")):
            yield from _modules(path, str(path.relative_to(project)))
        record = store.record(name)
        if record is not None and "toolchain" in record.made_from:
            again = f"install a newer Go, then `rtinfra images build --again {name}`"
            try:
                version = of_toolchain(str(record.made_from["toolchain"]))
            except ValueError as error:
                raise MirrorError(
                    f"the image {name} was built with another Go than a release: {error}", again
                ) from error
            for standard in GO_STANDARD:
                yield Component(GO, standard, version, f"the Go that built the image {name}", again)


def _modules(path: Path, shown: str) -> Iterator[Component]:
    lines = path.read_text(encoding="utf-8").splitlines()
    replaced = {match[1]: (match[2], match[3]) for line in lines if (match := _REPLACED.match(line.strip()))}
    found = 0
    for number, line in enumerate(lines, start=1):
        if match := _MODULE.match(line.strip()):
            found += 1
            module, version = replaced.get(match[1], (match[1], match[2]))
            again = f"set it in {shown} (docs/images.md, Changing a version), then `rtinfra images build`"
            yield Component(GO, module, version.removeprefix("v"), f"{shown}:{number}", again)
    if not found:
        raise MirrorError(f"{shown} requires no module", "restore it: git checkout -- images")


def of_lock(lock: Lock, shown: str, pool: Pool) -> Iterator[Component]:
    """Yield the wheels and the Debian packages of a lock; these by the source that advisories are about.

    Raises:
        MirrorError: the pool lacks the stanzas that tell the sources, or the release has no number yet.
    """
    for wheel in lock.wheels:
        yield Component(PYPI, wheel.name, wheel.version, shown, _REQUIREMENTS_AGAIN)
    packages = [package for package in lock.packages if package.origin != LOCAL]
    if not packages:
        return
    try:
        ecosystem = distribution(lock.suite)
    except ValueError as error:
        raise MirrorError(f"{shown}: {error}", "until then packages of this release cannot be audited") from error
    stanzas = _stanzas(pool.read(lock.stanzas.sha256).decode("utf-8", "replace"))
    for package in packages:
        for name, version in _sources(package, stanzas):
            yield Component(ecosystem, name, version, f"{shown}: {package.name}", _LOCK_AGAIN)


def _stanzas(text: str) -> Mapping[str, str]:
    """The stanzas by the sha256 of their package."""
    stanzas = re.split(r"\n\n+", text)
    return {found[1]: stanza for stanza in stanzas if (found := _SHA256.search(stanza)) is not None}


def _sources(package: LockedPackage, stanzas: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The sources of a package: its own, and those that went into it, as the kernel into the package that signs it."""
    stanza = stanzas.get(package.sha256, "")
    source = _SOURCE.search(stanza)
    yield (source[1], source[2] or package.version) if source else (package.name, package.version)
    for built_using in _BUILT_USING.findall(stanza):
        yield from _BUILT_OF.findall(built_using)


def carried(found: Iterable[Lock], pool: Pool) -> Sequence[Path]:
    """Return the files with advisories that locks brought here, each once."""
    files = (file for lock in found for file in lock.files if file.name.startswith(ADVISORIES))
    return [pool.path(sha256) for sha256 in dict.fromkeys(file.sha256 for file in files)]


def not_looked_into(found: Iterable[Lock], store: LocalStore) -> Sequence[str]:
    """Return the images and packages of which nobody here knows what is in them.

    Those are the images of vendors, the images of Debian packages, and packages that came as files of others.
    """
    known = store.catalogue.images
    own = {image.go.package for image in known.values() if image.go is not None}
    names = set()
    for lock in found:
        names |= {image.name for image in lock.images if image.name not in known or known[image.name].go is None}
        names |= {package.name for package in lock.packages if package.origin == LOCAL and package.name not in own}
    return sorted(names)
