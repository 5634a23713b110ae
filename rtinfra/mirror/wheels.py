"""Python wheels for a list of requirements that are pinned with their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from pydantic import ValidationError

from rtinfra.config.types import Settings
from rtinfra.local import pip
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.pip import Interpreter
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Content, LockedWheel, Sha256
from rtinfra.mirror.pool import Pool

#: Machine of wheels by dpkg architecture.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
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

    @property
    def interpreters(self) -> tuple[Interpreter, ...]:
        """The Pythons they have to run on."""
        glibc = pip.GLIBC.get(self.suite, pip.OLDEST_GLIBC)
        return tuple(Interpreter(version, MACHINES[self.architecture], glibc) for version in self.pythons)


class _Remembered(Settings):
    """The wheels on disk: pinned requirements come to the same every time."""

    key: Sha256
    wheels: tuple[LockedWheel, ...]


def resolve(
    requirements: Path, target: Target, why: tuple[str, ...], pool: Pool, record: Path, report: Reporter
) -> tuple[LockedWheel, ...]:
    """Put the wheels of all requirements for all Python versions into the pool; say which they are.

    Args:
        requirements: a file as `pip-compile --generate-hashes` writes it.
        target: what they have to run on.
        why: whom they are for, for the lock.
        pool: where they go.
        record: file that remembers the result; with the same requirements and a full pool nothing is asked again.

    Raises:
        LocalError: a requirement has no wheel for one of the Python versions, or cannot be fetched.
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
        for interpreter in target.interpreters:
            folder = Path(work) / interpreter.version
            with report.step(f"Fetching Python wheels for Python {interpreter.version}", usual=20):
                pip.download(requirements, interpreter, folder)
            for path in sorted(folder.iterdir()):
                wheel = _locked(path, why)
                pool.add_file(Content(wheel.sha256, wheel.size, "wheel", wheel.file), path)
                found[wheel.file] = wheel
    wheels = tuple(found[file] for file in sorted(found))
    replace_file(record, _Remembered(key=key, wheels=wheels).model_dump_json().encode())
    return wheels


def joined(*sets: Iterable[LockedWheel]) -> tuple[LockedWheel, ...]:
    """Return the wheels of several sets, each once, with everybody it is for."""
    found: dict[str, LockedWheel] = {}
    for wheel in (wheel for one in sets for wheel in one):
        before = found.get(wheel.file)
        why = dict.fromkeys((*(before.why if before else ()), *wheel.why))
        found[wheel.file] = wheel.model_copy(update={"why": tuple(why)})
    return tuple(found[file] for file in sorted(found))


def check_closure(requirements: Path, wheels: Iterable[LockedWheel], target: Target, pool: Pool) -> None:
    """Let pip resolve the requirements from these wheels alone.

    Raises:
        MirrorError: something is missing; what pip said is the detail.
    """
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=pool.directory) as work:
        for wheel in wheels:
            (Path(work) / wheel.file).symlink_to(pool.path(wheel.sha256))
        for interpreter in target.interpreters:
            # Isolated: no folder that this computer's pip also looks into.
            command: list[str | Path] = ["--isolated", "install", "--dry-run", "--ignore-installed", "--no-index"]
            command += ["--find-links", work, "--target", f"{work}/target", "-r", requirements]
            try:
                pip.run([*command, *interpreter.options], {"PIP_CONFIG_FILE": os.devnull})
            except LocalError as error:
                raise MirrorError(
                    f"the locked wheels are not all that Python {interpreter.version} needs",
                    "renew requirements/ with `make lock`, then lock the mirror again",
                    error.detail,
                ) from error


def _locked(path: Path, why: tuple[str, ...]) -> LockedWheel:
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
        why=why,
    )


def _remembered(record: Path, key: str) -> tuple[LockedWheel, ...] | None:
    try:
        found = _Remembered.model_validate_json(record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found.wheels if found.key == key else None
