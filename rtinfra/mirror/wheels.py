"""Python wheels for a list of requirements that are pinned with their hashes.

pip fetches them, from whatever index this computer's pip is configured with: only what has one of the pinned hashes is
accepted, so the index needs no trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from pydantic import ValidationError

from rtinfra.config.types import Settings
from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Content, LockedWheel, Sha256
from rtinfra.mirror.pool import Pool

#: Machine of wheels by dpkg architecture.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
#: Minor version of glibc 2 by Debian release; wheels for an older one run too (https://peps.python.org/pep-0600/).
GLIBC = {"bookworm": 36, "trixie": 41}
_OLDEST_GLIBC = 5
_LEGACY = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
# Raised when the same requirements would give other wheels than before.
_FORMAT = 1
# https://peps.python.org/pep-0427/#file-name-convention
_FILE_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-[0-9][^-]*)?-[^-]+-[^-]+-[^-]+\.whl")


@dataclass(frozen=True)
class Target:
    """What wheels have to run on."""

    pythons: tuple[str, ...]
    """Versions such as `3.13`."""
    architecture: str
    """dpkg's name of it."""
    suite: str
    """Debian release by code name: its C library decides."""


class _Remembered(Settings):
    """The wheels on disk: pinned requirements come to the same every time."""

    key: Sha256
    wheels: tuple[LockedWheel, ...]


def resolve(
    requirements: Path, target: Target, why: str, pool: Pool, record: Path, report: Reporter
) -> tuple[LockedWheel, ...]:
    """Put the wheels of all requirements for all Python versions into the pool; say which they are.

    Args:
        requirements: a file as `pip-compile --generate-hashes` writes it.
        target: what they have to run on.
        why: what they are for, for the lock.
        pool: where they go.
        record: file that remembers the result; with the same requirements and a full pool nothing is asked again.

    Raises:
        MirrorError: a requirement has no wheel for one of the Python versions, or cannot be fetched.
    """
    if target.architecture not in MACHINES:
        raise MirrorError(
            f"it is not known what Python wheels for {target.architecture} are called",
            f"use one of {', '.join(MACHINES)} for mirror.architecture",
        )
    decisive = [_FORMAT, hashlib.sha256(requirements.read_bytes()).hexdigest(), astuple(target), why]
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    remembered = _remembered(record, key)
    if remembered is not None and all(pool.has(wheel.sha256, wheel.size) for wheel in remembered):
        return remembered
    found: dict[str, LockedWheel] = {}
    pool.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=pool.directory) as work:
        for version in target.pythons:
            folder = Path(work) / version
            with report.step(f"Fetching Python wheels for Python {version}", usual=20):
                _download(requirements, version, target, folder)
            for path in sorted(folder.iterdir()):
                wheel = _locked(path, why)
                pool.add_file(Content(wheel.sha256, wheel.size, "wheel", wheel.file), path)
                found[wheel.file] = wheel
    wheels = tuple(found[file] for file in sorted(found))
    replace_file(record, _Remembered(key=key, wheels=wheels).model_dump_json().encode())
    return wheels


def check_closure(requirements: Path, wheels: Iterable[LockedWheel], target: Target, pool: Pool) -> None:
    """Let pip resolve the requirements from these wheels alone.

    Raises:
        MirrorError: something is missing; what pip said is the detail.
    """
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=pool.directory) as work:
        for wheel in wheels:
            (Path(work) / wheel.file).symlink_to(pool.path(wheel.sha256))
        for version in target.pythons:
            # Isolated: no folder that this computer's pip also looks into.
            command: list[str | Path] = ["--isolated", "install", "--dry-run", "--ignore-installed", "--no-index"]
            command += ["--find-links", work, "--target", f"{work}/target", "-r", requirements]
            try:
                _pip([*command, *_target_options(version, target)], {"PIP_CONFIG_FILE": os.devnull})
            except LocalError as error:
                raise MirrorError(
                    f"the locked wheels are not all that Python {version} needs",
                    "renew requirements/ with `make lock`, then lock the mirror again",
                    _last_errors(error.detail),
                ) from error


def _download(requirements: Path, version: str, target: Target, folder: Path) -> None:
    options: list[str | Path] = ["download", "--no-deps", "--require-hashes", "--dest", folder, "-r", requirements]
    try:
        _pip([*options, *_target_options(version, target)])
    except LocalError as error:
        missing = re.search(r"No matching distribution found for (\S+)", error.detail)
        what = missing[1] if missing else "a requirement"
        raise MirrorError(
            f"pip found no wheel of {what} for Python {version} on {target.architecture}"
            if missing
            else f"pip could not fetch the wheels for Python {version}",
            "check the network and pip's index (`pip config list`); a project without a wheel cannot be mirrored",
            _last_errors(error.detail),
        ) from error


def _pip(words: list[str | Path], env: dict[str, str] | None = None) -> None:
    options = ["--disable-pip-version-check", "--no-input", "--quiet"]
    programs.execute([sys.executable, "-m", "pip", *words, *options], timeout=900, env=env)


def _target_options(version: str, target: Target) -> Iterator[str]:
    """For an interpreter that is not this one."""
    yield from ("--only-binary=:all:", "--implementation", "cp", "--python-version", version)
    machine = MACHINES[target.architecture]
    newest = GLIBC.get(target.suite, min(GLIBC.values()))
    newest_first = [f"manylinux_2_{minor}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
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
