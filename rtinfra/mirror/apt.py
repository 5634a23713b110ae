"""What sets of packages come to, by apt's own solver, in a root of its own where nothing is installed.

The root has its own lists, cache and (empty) package database below the folder of the mirror; this computer's apt is
not touched. Upstream locations and the way out are those that this computer's apt is configured with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationError

from roles.shared import MirrorSettings
from rtinfra import deb
from rtinfra.config.types import Settings
from rtinfra.deb import LocalPackage
from rtinfra.local import programs
from rtinfra.local.archive import Archive
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LOCAL, LockedPackage, Origin, Sha256, ordered
from rtinfra.mirror.required import BASE_SET, EVERY_HOST, PackageSet

TOOLS = (Tool("apt-get", "apt"), Tool("gpgv", "gpgv"), Tool("dpkg-deb", "dpkg"))
_SECURITY = "-security"
# Raised when the same lists and sets would be resolved to something else than before.
_FORMAT = 1
_URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) \d+ SHA256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE)
_GOOD_SIGNATURE = re.compile(r"^\[GNUPG:\] VALIDSIG .*?([0-9A-F]{40,64})$", re.MULTILINE)


@dataclass(frozen=True)
class Solution:
    """Packages that all sets together come to."""

    origins: Mapping[str, Origin]
    packages: tuple[LockedPackage, ...]
    stanzas: bytes
    """One of each package, in the same order, as the signed indexes have them; an empty line after each."""


@dataclass(frozen=True)
class LocalFile:
    """A local package, read."""

    package: LocalPackage
    sha256: str
    size: int
    control: str

    @property
    def stanza(self) -> str:
        """Its stanza in an index."""
        return f"{self.control}Filename: {self.package.path.name}\nSize: {self.size}\nSHA256: {self.sha256}\n"


class _Remembered(Settings):
    """A solution on disk: the same sets, lists and apt come to the same."""

    key: Sha256
    origins: dict[str, Origin]
    packages: tuple[LockedPackage, ...]
    stanzas: Sha256


def read_local(sets: Iterable[PackageSet], architecture: str) -> tuple[LocalFile, ...]:
    """Read the local packages of all sets.

    Raises:
        MirrorError: one is for another architecture, or unreadable.
    """
    found: dict[str, LocalFile] = {}
    for package_set in sets:
        for package in (*package_set.local, *package_set.replacements):
            try:
                control = deb.control(package.path)
                data = package.path.read_bytes()
            except (OSError, ValueError) as error:
                raise MirrorError(
                    f"{_who(package_set)} needs {package.path}: {error}", "put the file there again"
                ) from error
            own = _field(control, "Architecture")
            if own not in (architecture, "all"):
                raise MirrorError(
                    f"{package.path} is for {own}, the hosts are {architecture} ({_who(package_set)} needs it)",
                    f"bring the file of {package.name} for {architecture}",
                )
            sha256 = hashlib.sha256(data).hexdigest()
            found[sha256] = LocalFile(package, sha256, len(data), control)
    return tuple(found[sha256] for sha256 in sorted(found))


def bases(archive: Archive, suite: str) -> tuple[str, ...]:
    """Return where this computer gets packages of a suite from: what a package's path is appended to."""
    uris = archive.security if suite.endswith(_SECURITY) else archive.main
    return tuple(uri.rstrip("/") for uri in uris)


class AptRoot:
    """Root directory for apt and dpkg in which nothing is installed, in `directory`."""

    def __init__(self, directory: Path, archive: Archive, settings: MirrorSettings, report: Reporter) -> None:
        self._directory = directory
        self._archive = archive
        self._settings = settings
        self._report = report

    def resolve(self, sets: tuple[PackageSet, ...]) -> Solution:
        """Bring the lists up to date and resolve each set by itself.

        Raises:
            MirrorError: the archive cannot be reached or trusted, or a set cannot be installed; it says whose.
        """
        programs.ensure(TOOLS, self._report)
        if self._archive.trusted:
            raise MirrorError(
                f"the archive {_shown(self._archive.main)} is configured as trusted without a signature (Trusted: yes)",
                "a lock records whose signature its packages carry: configure the archive's key with Signed-By",
            )
        local = read_local(sets, self._settings.architecture)
        self._prepare(sets, local)
        with self._report.step("Asking the archive what is new", usual=2):
            self._update()
        key = self._key(sets, local)
        if (remembered := self._remembered(key)) is not None:
            return remembered
        with self._report.step(f"Resolving what {len(sets)} kinds of machines install", usual=len(sets)):
            solution = self._solve(sets, local)
        self._remember(key, solution)
        return solution

    # ---- the root ---------------------------------------------------------------------------------------

    @cached_property
    def _environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self._directory / "apt.conf")}

    def _prepare(self, sets: tuple[PackageSet, ...], local: tuple[LocalFile, ...]) -> None:
        for name in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/trusted.gpg.d", "local"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        index = "\n".join(file.stanza for file in local).encode("utf-8", "surrogateescape")
        # Local packages win over the archive's of the same name: somebody brought them on purpose.
        preferences = 'Package: *\nPin: origin ""\nPin-Priority: 1001\n'
        for path, data in (
            ("apt.conf", self._configuration().encode()),
            ("status", b""),
            ("etc/preferences.d/local", preferences.encode()),
            ("etc/sources.list.d/mirror.sources", self._sources(sets).encode()),
            ("local/Packages", index),
        ):
            place = self._directory / path
            # Untouched files keep apt's cache valid.
            if not place.is_file() or place.read_bytes() != data:
                # Addresses and proxies may have passwords in them.
                replace_file(place, data, 0o600)

    def _configuration(self) -> str:
        root = self._directory
        options = {
            "Dir": f"{root}/",
            "Dir::Etc": f"{root}/etc",
            "Dir::State": f"{root}/state",
            "Dir::State::status": f"{root}/status",
            "Dir::Cache": f"{root}/cache",
            # Passwords of archives are this computer's.
            "Dir::Etc::netrc": f"{self._archive.apt_directory}/auth.conf",
            "Dir::Etc::netrcparts": f"{self._archive.apt_directory}/auth.conf.d",
            "APT::Architecture": self._settings.architecture,
            # A host installs without them too; both sides have to agree.
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "Acquire::Languages": "none",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Retries": "3",
            **dict(self._archive.transport),
            **dict(self._archive.options),
        }
        if os.geteuid() == 0:
            # The lists are below a folder that the user _apt may not enter.
            options["APT::Sandbox::User"] = "root"
        lines = [f'{name} "{value}";' for name, value in options.items()]
        lines.append(f'APT::Architectures {{ "{self._settings.architecture}"; }};')
        return "\n".join(lines) + "\n"

    def _suites(self, sets: tuple[PackageSet, ...]) -> tuple[str, ...]:
        suite = self._settings.suite
        named = {name.partition("/")[2] for package_set in sets for name in package_set.names if "/" in name}
        security = (f"{suite}{_SECURITY}",) if self._archive.security else ()
        return tuple(dict.fromkeys((suite, f"{suite}-updates", *security, *sorted(named))))

    def _sources(self, sets: tuple[PackageSet, ...]) -> str:
        stanzas = [
            f"Types: deb\nURIs: {bases(self._archive, suite)[0]}\nSuites: {suite}\n"
            f"Components: {' '.join(self._settings.components)}\nSigned-By: {self._archive.keyring}\n"
            for suite in self._suites(sets)
        ]
        local = quote(str(self._directory / "local"))
        stanzas.append(f"Types: deb\nURIs: file:{local}\nSuites: ./\nTrusted: yes\n")
        return "\n".join(stanzas)

    def _update(self) -> None:
        # Without error-on a dead server or a bad signature is a warning when older lists are there.
        done = self._apt("update", "--error-on=any", timeout=600)
        if done.returncode != 0:
            raise _update_error(done.stdout, self._archive)

    def _apt(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return programs.execute(["apt-get", *words], timeout=timeout, check=False, env=self._environment)

    # ---- what decides a solution ------------------------------------------------------------------------

    def _key(self, sets: tuple[PackageSet, ...], local: tuple[LocalFile, ...]) -> str:
        decisive = {
            "format": _FORMAT,
            "apt": self._apt("--version").stdout,
            "configuration": self._configuration(),
            "sources": self._sources(sets),
            "lists": {
                name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(self._releases.items())
            },
            "wants": [
                [package_set.names, package_set.why, [str(file.path) for file in package_set.local]]
                for package_set in sets
            ],
            "local": [[str(file.package.path), file.sha256] for file in local],
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def _remembered(self, key: str) -> Solution | None:
        try:
            found = _Remembered.model_validate_json((self._directory / "solution.json").read_bytes())
            stanzas = (self._directory / "solution.stanzas").read_bytes()
        except (FileNotFoundError, ValidationError):
            return None
        if found.key != key or hashlib.sha256(stanzas).hexdigest() != found.stanzas:
            return None
        return Solution(found.origins, found.packages, stanzas)

    def _remember(self, key: str, solution: Solution) -> None:
        sha256 = hashlib.sha256(solution.stanzas).hexdigest()
        record = _Remembered(key=key, origins=dict(solution.origins), packages=solution.packages, stanzas=sha256)
        replace_file(self._directory / "solution.stanzas", solution.stanzas)
        replace_file(self._directory / "solution.json", record.model_dump_json().encode())

    # ---- resolving --------------------------------------------------------------------------------------

    @cached_property
    def _indexes(self) -> tuple[tuple[str, str, Path], ...]:
        """Suite, component and file of every index of packages, in the order of the sources."""
        format = "$(RELEASE) $(COMPONENT) $(METAKEY) $(FILENAME)"
        done = self._apt("indextargets", "--format", format, "Created-By: Packages")
        found = []
        for line in done.stdout.splitlines():
            words = line.split(" ", 3)
            if len(words) == 4 and words[0] != "./":
                found.append((words[0], words[1], Path(words[3])))
        for component in self._settings.components:
            if not any((suite, name) == (self._settings.suite, component) for suite, name, _ in found):
                raise MirrorError(
                    f"{_shown(self._archive.main)} has no packages of {self._settings.suite}/{component} for the"
                    f" architecture {self._settings.architecture}",
                    "correct mirror.architecture or mirror.components in group_data/all.yaml",
                )
        return tuple(found)

    @cached_property
    def _releases(self) -> dict[str, Path]:
        """The InRelease file of every suite."""
        found = {}
        for suite, component, path in self._indexes:
            beginning, _, _ = path.name.rpartition(f"_{component.replace('/', '_')}_binary-")
            found[suite] = path.with_name(f"{beginning}_InRelease")
            if not found[suite].is_file():
                raise MirrorError(
                    f"the archive {_shown(self._archive.main)} has no InRelease file for {suite}",
                    "use an archive with signed InRelease files; every Debian mirror has them",
                )
        return found

    def _solve(self, sets: tuple[PackageSet, ...], local: tuple[LocalFile, ...]) -> Solution:
        why: dict[str, set[str]] = {}
        for package_set in sets:
            for sha256 in self._install(package_set):
                why.setdefault(sha256, set()).update(package_set.why)
        described = self._described(set(why), local)
        packages = ordered(
            _locked(stanza, origin, _shortened(why[sha256])) for sha256, (stanza, origin) in described.items()
        )
        stanzas = "".join(described[package.sha256][0].strip("\n") + "\n\n" for package in packages)
        self._require_use(sets, packages)
        used = {package.origin for package in packages}
        origins = {suite: self._origin(suite, path) for suite, path in self._releases.items() if suite in used}
        return Solution(origins, packages, stanzas.encode("utf-8", "surrogateescape"))

    def _require_use(self, sets: tuple[PackageSet, ...], packages: tuple[LockedPackage, ...]) -> None:
        """Refuse a replacement that replaces nothing: whoever brought it believes that hosts get it."""
        taken = {package.name for package in packages if package.origin == LOCAL}
        for replacement in {package for package_set in sets for package in package_set.replacements}:
            if replacement.name not in taken:
                raise MirrorError(
                    f"{replacement.path.name} of mirror.replacements takes no package's place: nothing installs"
                    f" {replacement.name}",
                    "take it out there, or add the package to a host's base.packages",
                )

    def _install(self, package_set: PackageSet) -> set[str]:
        """The hashes of everything that is installed for a set."""
        words = [*package_set.names, *(f"{package.name}={package.version}" for package in package_set.local)]
        done = self._apt("install", "--print-uris", "--yes", "-qq", *words)
        if done.returncode != 0:
            # Quiet as above, apt leaves out which dependency it was.
            raise self._install_error(package_set, self._apt("install", "--print-uris", "--yes", *words).stdout)
        return {match["sha256"] for match in _URI_LINE.finditer(done.stdout)}

    def _install_error(self, package_set: PackageSet, said: str) -> MirrorError:
        who = _who(package_set)
        suites = ", ".join(self._releases)
        if unknown := re.findall(r"^E: Unable to locate package (\S+)", said, re.MULTILINE):
            return MirrorError(
                f"no package {', '.join(unknown)} for {self._settings.architecture} in {suites}; {who} asks for it",
                "correct its name in group_data or in the host's settings, or put its .deb into images/store",
            )
        if missing := re.findall(r"^E: (?:Version|Release) .* was not found$", said, re.MULTILINE):
            return MirrorError(
                f"{missing[0].removeprefix('E: ')}; {who} asks for it",
                "correct the suite behind the slash, or the version of the local package",
            )
        explained = said.partition("The following packages have unmet dependencies:")[2].strip("\n")
        return MirrorError(
            f"what {who} asks for cannot be installed together from {suites}",
            "the lines above name what excludes what or is missing; correct the packages of that host",
            explained or "\n".join(said.splitlines()[-15:]),
        )

    def _described(self, required: set[str], local: tuple[LocalFile, ...]) -> dict[str, tuple[str, str]]:
        """Stanza and origin of each required package, by hash."""
        found = {file.sha256: (file.stanza, LOCAL) for file in local if file.sha256 in required}
        for suite, _, path in self._indexes:
            for stanza in path.read_bytes().split(b"\n\n"):
                start = stanza.find(b"\nSHA256: ") + len(b"\nSHA256: ")
                sha256 = stanza[start : start + 64].decode("ascii", "replace")
                # The first suite that has it, in the order of the sources.
                if sha256 in required and sha256 not in found:
                    found[sha256] = (stanza.decode("utf-8", "surrogateescape"), suite)
        if lost := required - found.keys():
            raise MirrorError(
                f"the package with sha256 {min(lost)} is in no index of the archive",
                "the archive changed at this moment: try again",
            )
        return found

    def _origin(self, suite: str, release: Path) -> Origin:
        """What the index of a suite says of itself, as far as it is signed."""
        signed = self._directory / "signed"
        signed.unlink(missing_ok=True)
        keyring = self._binary_keyring()
        command: list[str | Path] = ["gpgv", "--status-fd", "1", "--output", signed, "--keyring", keyring, release]
        said = programs.execute(command, timeout=60, check=False).stdout
        good = tuple(dict.fromkeys(_GOOD_SIGNATURE.findall(said)))
        if not good or not signed.is_file():
            raise MirrorError(
                f"the index of {suite} carries no good signature of a key in {self._archive.keyring}",
                "configure the archive's key with Signed-By in this computer's apt sources",
                said,
            )
        text = signed.read_text(encoding="utf-8", errors="replace")
        until = _field(text, "Valid-Until")
        return Origin(
            label=" ".join(dict.fromkeys(filter(None, (_field(text, "Origin"), _field(text, "Label"))))) or suite,
            suite=suite,
            date=parsedate_to_datetime(_field(text, "Date")),
            valid_until=parsedate_to_datetime(until) if until else None,
            release_sha256=hashlib.sha256(release.read_bytes()).hexdigest(),
            signed_by=good,
        )

    def _binary_keyring(self) -> Path:
        """The keyring in the form that gpgv reads; apt knows the armoured form too."""
        path = self._archive.keyring
        data = path.read_bytes()
        if not data.startswith(b"-----BEGIN PGP"):
            return path
        body = data.decode("ascii", "replace").replace("\r", "").partition("\n\n")[2]
        lines = [line for line in body.partition("-----END")[0].splitlines() if not line.startswith("=")]
        binary = self._directory / "keyring.gpg"
        replace_file(binary, base64.b64decode("".join(lines)))
        return binary


def _locked(stanza: str, origin: str, why: tuple[str, ...]) -> LockedPackage:
    path = _field(stanza, "Filename")
    return LockedPackage(
        name=_field(stanza, "Package"),
        version=_field(stanza, "Version"),
        architecture=_field(stanza, "Architecture"),
        origin=origin,
        path=path.removeprefix("./"),
        size=int(_field(stanza, "Size")),
        sha256=_field(stanza, "SHA256"),
        why=why,
    )


def _shortened(why: set[str]) -> tuple[str, ...]:
    """The reasons of a package; where everybody has it, that one alone."""
    for reason in (BASE_SET, EVERY_HOST):
        if reason in why:
            return (reason,)
    return tuple(sorted(why))


def _field(text: str, name: str) -> str:
    """The value of a field of one line; empty when it is not there."""
    match = re.search(rf"^{name}:[ \t]*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def _who(package_set: PackageSet) -> str:
    return " and ".join(package_set.why)


def _shown(uris: Iterable[str]) -> str:
    """Addresses without passwords."""
    return " ".join(dict.fromkeys(re.sub(r"//[^/@\s]*@", "//", uri) for uri in uris))


def _update_error(said: str, archive: Archive) -> MirrorError:
    """What apt says when it does not trust or reach an archive, in plain words."""
    shown = _shown((*archive.main, *archive.security))
    detail = "\n".join(line for line in _shown([said]).splitlines() if re.match(r"[EW]: |Err:", line))
    if re.search("NO_PUBKEY|BADSIG|is not signed|signatures were invalid", said):
        keys = sorted(set(re.findall(r"NO_PUBKEY ([0-9A-F]+)", said)))
        signed = (
            f"by {', '.join(keys)}" if keys else "badly: its index was changed" if "BADSIG" in said else "by nobody"
        )
        has = ", ".join(_fingerprints(archive.keyring)) or "no key"
        return MirrorError(
            f"the archive {shown} is signed {signed}; the keyring {archive.keyring} has {has}",
            "correct Signed-By in this computer's apt sources if that key is the archive's; otherwise do not use it",
            detail,
        )
    if "is not valid yet" in said:
        return MirrorError(
            "an index of the archive is dated in the future: the clock of this computer is wrong",
            "set the clock (`timedatectl`), then try again",
            detail,
        )
    if "is expired" in said or "Release file expired" in said:
        return MirrorError(
            "an index of the archive has expired: the archive is no longer kept up to date, or the clock of this"
            " computer is wrong",
            "look at the clock (`timedatectl`), or use another archive in this computer's apt sources",
            detail,
        )
    return MirrorError(
        f"the archive {shown} could not be read",
        "check the network and `apt-get update` on this computer; the lines above say what failed",
        detail or said[-2000:],
    )


def _fingerprints(keyring: Path) -> Iterator[str]:
    """The keys of a keyring, for a message."""
    try:
        done = programs.execute(["gpg", "--batch", "--with-colons", "--show-keys", keyring], timeout=30, check=False)
    except LocalError:
        return
    yield from re.findall(r"^pub:.*\n(?:.*\n)*?fpr:+([0-9A-F]+):", done.stdout, re.MULTILINE)
