"""Python wheels for a list of requirements that are pinned with their hashes.

pip fetches them, from whatever index this computer's pip is configured with: only what has one of the pinned hashes is
accepted, so the index needs no trust.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from rtinfra.config.types import Settings
from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Content, LockedWheel, Sha256
from rtinfra.mirror.pool import Pool
from rtinfra.mirror.store import replace_file

#: Machine of wheels by dpkg architecture.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# glibc of Debian 13; wheels for an older one run on it too (https://peps.python.org/pep-0600/).
_NEWEST_GLIBC = 41
_OLDEST_GLIBC = 5
_LEGACY = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
# Raised when the same requirements would give other wheels than before.
_FORMAT = 1
# https://peps.python.org/pep-0427/#file-name-convention
_FILE_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-[0-9][^-]*)?-[^-]+-[^-]+-[^-]+\.whl")


class _Remembered(Settings):
    """The wheels on disk: pinned requirements come to the same every time."""

    key: Sha256
    wheels: tuple[LockedWheel, ...]


def resolve(
    requirements: Path,
    pythons: Iterable[str],
    architecture: str,
    why: str,
    pool: Pool,
    record: Path,
    report: Reporter,
) -> tuple[LockedWheel, ...]:
    """Put the wheels of all requirements for all Python versions into the pool; say which they are.

    Args:
        requirements: a file as `pip-compile --generate-hashes` writes it.
        pythons: versions such as `3.13`.
        architecture: dpkg's name of it.
        why: what they are for, for the lock.
        pool: where they go.
        record: file that remembers the result; with the same requirements and a full pool nothing is asked again.

    Raises:
        MirrorError: a requirement has no wheel for one of the Python versions, or cannot be fetched.
    """
    versions = tuple(pythons)
    decisive = [_FORMAT, hashlib.sha256(requirements.read_bytes()).hexdigest(), versions, architecture, why]
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    remembered = _remembered(record, key)
    if remembered is not None and all(pool.has(wheel.sha256, wheel.size) for wheel in remembered):
        return remembered
    found: dict[str, LockedWheel] = {}
    pool.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=pool.directory) as work:
        for version in versions:
            folder = Path(work) / version
            with report.step(f"Fetching Python wheels for Python {version}", usual=20):
                _download(["-r", requirements], version, architecture, folder)
            for path in sorted(folder.iterdir()):
                wheel = _locked(path, why)
                pool.add_file(Content(wheel.sha256, wheel.size, "wheel", wheel.file), path)
                found[wheel.file] = wheel
    wheels = tuple(found[file] for file in sorted(found))
    replace_file(record, _Remembered(key=key, wheels=wheels).model_dump_json().encode())
    return wheels


def check_closure(
    requirements: Path, wheels: Iterable[LockedWheel], pool: Pool, pythons: Iterable[str], architecture: str
) -> None:
    """Let pip resolve the requirements from these wheels alone.

    Raises:
        MirrorError: something is missing; what pip said is the detail.
    """
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=pool.directory) as work:
        for wheel in wheels:
            (Path(work) / wheel.file).symlink_to(pool.path(wheel.sha256))
        for version in pythons:
            command = ["install", "--dry-run", "--ignore-installed", "--no-index", "--find-links", work]
            target = ["--target", f"{work}/target", "-r", requirements]
            try:
                _pip([*command, *_target_options(version, architecture), *target])
            except LocalError as error:
                raise MirrorError(
                    f"the locked wheels are not all that Python {version} needs",
                    "renew requirements/ with `make lock`, then lock the mirror again",
                    _last_errors(error.detail),
                ) from error


def _download(wanted: list[str | Path], version: str, architecture: str, folder: Path) -> None:
    options = ["download", "--no-deps", "--require-hashes", "--dest", folder]
    try:
        _pip([*options, *_target_options(version, architecture), *wanted])
    except LocalError as error:
        missing = re.search(r"No matching distribution found for (\S+)", error.detail)
        what = missing[1] if missing else "a requirement"
        raise MirrorError(
            f"pip found no wheel of {what} for Python {version} on {architecture}"
            if missing
            else f"pip could not fetch the wheels for Python {version}",
            "check the network and pip's index (`pip config list`); a project without a wheel cannot be mirrored",
            _last_errors(error.detail),
        ) from error


def _pip(words: list[str | Path]) -> None:
    options = ["--disable-pip-version-check", "--no-input", "--quiet"]
    programs.execute([sys.executable, "-m", "pip", *words, *options], timeout=900)


def _target_options(version: str, architecture: str) -> Iterator[str]:
    """For an interpreter that is not this one."""
    yield from ("--only-binary=:all:", "--implementation", "cp", "--python-version", version)
    machine = MACHINES[architecture]
    newest_first = [f"manylinux_2_{minor}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    for platform in (*newest_first, *_LEGACY):
        yield from ("--platform", f"{platform}_{machine}")


def _locked(path: Path, why: str) -> LockedWheel:
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise MirrorError(f"pip brought {path.name}, which is no wheel", "take that project out of the requirements")
    data = path.read_bytes()
    return LockedWheel(
        name=re.sub(r"[-_.]+", "-", named["name"]).lower(),
        version=named["version"],
        file=path.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        why=(why,),
    )


def _remembered(record: Path, key: str) -> tuple[LockedWheel, ...] | None:
    try:
        found = _Remembered.model_validate_json(record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found.wheels if found.key == key else None


def _last_errors(said: str) -> str:
    # pip lists every version of every index first.
    return "\n".join(line[:300] for line in said.splitlines() if line.startswith("ERROR:")) or said[-2000:]
