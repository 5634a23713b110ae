"""An archive on a web server of this computer, a lock of its files, and a mirror that has none of them."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rtinfra.local.archive import Archive
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.fetch import Fetched, Patience, fetch
from rtinfra.mirror.model import Blob, Content, Lock, LockedPackage, Origin
from rtinfra.mirror.store import Mirror
from tests.unit.mirror_archive import Behaviour, WebServer

QUICK = Patience(attempts=3, first_pause=0.01)
SIZES = {"small": 1_000, "middle": 90_000, "large": 700_000, "c++": 5_000}


class Site:
    """An archive with some files, a lock of them, and a mirror that has only the lock's index."""

    def __init__(self, root: Path, server: WebServer, base: str) -> None:
        self.server, self.base = server, base
        self._configuration = root / "apt.conf"
        self.configure()
        # Folders may have blanks in their names, and be closed to others.
        self.mirror = Mirror(root / "the mirror")
        self.mirror.root.mkdir(mode=0o700)
        self.data: dict[str, bytes] = {}
        for name, size in SIZES.items():
            self.data[name] = random.Random(name).randbytes(size)
            path = server.root / self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.data[name])
        index = b"Package: x\n"
        blob = Blob(sha256=hashlib.sha256(index).hexdigest(), size=len(index))
        self.mirror.pool.add_bytes(Content(blob.sha256, blob.size, "index", "Packages"), index)
        self.lock = Lock(
            format=1,
            created=datetime.now(UTC),
            suite="trixie",
            architecture="amd64",
            valid_days=180,
            stanzas=blob,
            origins={
                suite: Origin(
                    label="Test",
                    suite=suite,
                    date=datetime.now(UTC),
                    valid_until=None,
                    release_sha256="0" * 64,
                    signed_by=("A",),
                )
                for suite in ("trixie", "trixie-security")
            },
            packages=tuple(self.package(name) for name in SIZES),
            images=(),
            wheels=(),
            files=(),
        )

    def path(self, name: str) -> str:
        return f"pool/{name}_1.0+b1_amd64.deb"

    def package(self, name: str, origin: str = "trixie") -> LockedPackage:
        return LockedPackage(
            name=name,
            version="1.0+b1",
            architecture="amd64",
            origin=origin,
            path=self.path(name),
            size=len(self.data[name]),
            sha256=self.sha256(name),
            why=("rt1",),
        )

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.data[name]).hexdigest()

    def partial(self, name: str) -> Path:
        path = self.mirror.root / "partial" / self.sha256(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def begin(self, name: str, data: bytes) -> Path:
        """Leave what an earlier run had of a file, as apt does: with the date that the server tells."""
        path = self.partial(name)
        path.write_bytes(data)
        shutil.copystat(self.server.root / self.path(name), path)
        return path

    def configure(self, **options: str) -> None:
        """Configure this computer's apt: "Acquire" and, with underscores, what is below it."""
        told = {
            "Dir::Etc::parts": "/none",
            "Dir::Etc::main": "/none",
            "Dir::Etc::netrc": "/none",
            "Dir::Etc::netrcparts": "/none",
            "Acquire::Retries": "1",
            "Acquire::Retries::Delay": "false",
            "Acquire::http::Timeout": "1",
            **{name.replace("_", "::"): value for name, value in options.items()},
        }
        self._configuration.write_text("".join(f'{name} "{value}";\n' for name, value in told.items()))
        os.environ["APT_CONFIG"] = str(self._configuration)

    def fetch(self, *bases: str, report: Reporter | None = None, patience: Patience = QUICK) -> Fetched:
        archive = Archive(main=bases or (self.base,))
        return fetch(self.lock, self.mirror, archive, report or Reporter(), patience)

    def refused(self, *bases: str) -> MirrorError:
        with pytest.raises(MirrorError) as caught:
            self.fetch(*bases)
        return caught.value

    def there(self) -> set[str]:
        """What is in the pool, read and compared."""
        pool = self.mirror.pool
        return {name for name in SIZES if pool.path(self.sha256(name)).is_file() and self._is_right(name)}

    def _is_right(self, name: str) -> bool:
        assert self.mirror.pool.read(self.sha256(name)) == self.data[name]
        return True

    def misbehave(self, name: str, **told: object) -> None:
        self.server.behaviour[self.path(name)] = Behaviour(**told)  # type: ignore[arg-type]
