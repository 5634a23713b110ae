"""A small lock of real packages and other contents, and the folders of two mirrors, for the tests of bundles."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, installer, signing
from rtinfra.mirror.bundle import SIGNED, Bundle, make_bundle, manifest_files
from rtinfra.mirror.importer import BundleReport, import_bundle
from rtinfra.mirror.model import (
    LOCAL,
    Blob,
    Content,
    Lock,
    LockedFile,
    LockedImage,
    LockedPackage,
    LockedWheel,
    Manifest,
    ordered,
)
from rtinfra.mirror.pool import Pool
from rtinfra.mirror.store import Mirror

CREATED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
#: When the bundles of these tests are carried in.
NOW = CREATED + timedelta(days=3)
VALID_DAYS = 90
ARCHITECTURE = "amd64"
PART_SIZE = 150_000


def build_deb(folder: Path, name: str, version: str) -> tuple[Path, str]:
    """Build a package with dpkg-deb; return its file and its stanza without the fields of an index."""
    root = folder / f"{name}-{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/share" / name).mkdir(parents=True)
    (root / "usr/share" / name / "data").write_bytes(random.Random(f"{name} {version}").randbytes(20_000))
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: {ARCHITECTURE}\n"
        f"Maintainer: Tests <tests@example.invalid>\nDescription: package of a test\n long text\n"
    )
    (root / "DEBIAN/control").write_text(control, encoding="ascii")
    target = folder / f"{name}_{version.partition(':')[2] or version}_{ARCHITECTURE}.deb"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, target]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return target, control


def add(pool: Pool, kind: Any, name: str, data: bytes) -> Blob:
    """Put bytes into a pool."""
    blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    pool.add_bytes(Content(blob.sha256, blob.size, kind, name), data)
    return blob


def make_lock(pool: Pool, work: Path, *, created: datetime = CREATED, hello: str = "1:2.10-3") -> Lock:
    """A lock whose contents are in the pool."""
    packages, stanzas = [], []
    for name, version in (*((name, "1.0") for name in installer.PACKAGES), ("hello", hello)):
        path, control = build_deb(work, name, version)
        blob = add(pool, "package", path.name, path.read_bytes())
        packages.append(
            LockedPackage(
                name=name,
                version=version,
                architecture=ARCHITECTURE,
                origin=LOCAL,
                path=path.name,
                size=blob.size,
                sha256=blob.sha256,
                why=("base set",),
            )
        )
        stanzas.append(f"{control}Filename: pool/{path.name}\nSize: {blob.size}\nSHA256: {blob.sha256}\n")
    layer = add(pool, "blob", "layer", random.Random(1).randbytes(300_000))
    config = add(pool, "blob", "config", json.dumps({"architecture": ARCHITECTURE}).encode())
    manifest = add(pool, "blob", "manifest", json.dumps({"schemaVersion": 2, "layers": [layer.sha256]}).encode())
    wheel = add(pool, "wheel", "wheel", random.Random(2).randbytes(5_000))
    tool = add(pool, "file", "tool", random.Random(3).randbytes(50_000))
    return Lock(
        format=1,
        created=created,
        suite="trixie",
        architecture=ARCHITECTURE,
        valid_days=VALID_DAYS,
        stanzas=add(pool, "index", "Packages", "\n".join(stanzas).encode()),
        origins={},
        packages=ordered(packages),
        images=(
            LockedImage(
                name="garage",
                version="2.1.0",
                licence="AGPL-3.0-only",
                repository="localhost/rtinfra/garage",
                manifest=manifest,
                media_type="application/vnd.oci.image.manifest.v1+json",
                blobs=(config, layer),
                why=("all hosts",),
            ),
        ),
        wheels=(
            LockedWheel(
                name="six",
                version="1.17.0",
                file="six-1.17.0-py2.py3-none-any.whl",
                size=wheel.size,
                sha256=wheel.sha256,
                why=("rtinfra",),
            ),
        ),
        files=(LockedFile(name="rtinfra-0.1.0.tar", size=tool.size, sha256=tool.sha256, why=("rtinfra",)),),
    )


@dataclass(frozen=True)
class Journey:
    """What was made where there is a network: a full bundle, and the difference to the next lock."""

    mirror: Mirror
    lock: Lock
    full: Bundle
    next_lock: Lock
    delta: Bundle


def make_journey(folder: Path) -> Journey:
    """Make both bundles."""
    mirror = Mirror(folder / "connected")
    lock = make_lock(mirror.pool, folder / "debs")
    full = make_bundle(mirror, lock, part_size=PART_SIZE, now=CREATED)
    next_lock = make_lock(mirror.pool, folder / "next", created=CREATED + timedelta(days=1), hello="1:2.10-4")
    delta = make_bundle(mirror, next_lock, base=full.manifest.id, part_size=PART_SIZE, now=CREATED)
    return Journey(mirror, lock, full, next_lock, delta)


def carry(made: Bundle, target: Path) -> Path:
    """Copy a bundle, as onto a stick."""
    return Path(shutil.copytree(made.folder, target / made.folder.name))


def take(mirror: Mirror, folder: Path, journey: Journey) -> BundleReport:
    """Import as one does the first time."""
    return import_bundle(mirror, folder, told=journey.full.number, now=NOW, architecture=ARCHITECTURE)


def flip(path: Path, position: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def signed_again(mirror: Mirror, folder: Path, manifest: Manifest) -> None:
    """Sign another manifest for a bundle, as only those could who have the key."""
    for name, data in manifest_files(manifest).items():
        (folder / name).write_bytes(data)
    for name in SIGNED:
        signing.sign(bundle_keys.signer(mirror, NOW, Reporter()).private, folder / name)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, lock files aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def count_syncs(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How often a piece of work makes something permanent."""
    calls = 0
    real = os.fsync

    def counted(number: int) -> None:
        nonlocal calls
        calls += 1
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted)
        work()
    return calls


def killed_at(sync: int, work: Callable[[], object]) -> None:
    """Do a piece of work in a process that is killed right before its `sync`-th fsync."""
    process = os.fork()
    if process == 0:
        real, numbers = os.fsync, iter(range(1, sync + 1))

        def deadly(number: int) -> None:
            if next(numbers) == sync:
                os.kill(os.getpid(), signal.SIGKILL)
            real(number)

        os.fsync = deadly
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the work ended before it was killed"


def chosen(total: int, count: int) -> Iterator[int]:
    """The first, the last and some other of `total` moments: the same ones in every run."""
    yield from sorted({1, total, *random.Random(4).sample(range(1, total + 1), count)})
