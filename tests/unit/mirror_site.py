"""A small mirror for tests: real packages, a real image and a real wheel in its pool, and locks of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rtinfra.images import oci
from rtinfra.mirror.model import (
    Blob,
    Content,
    Kind,
    Lock,
    LockedImage,
    LockedPackage,
    LockedWheel,
    bundle_id,
    lock_content,
    ordered,
)
from rtinfra.mirror.store import Imported, Mirror

CREATED = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Package:
    """A package with its stanza, as an upstream index has it."""

    locked: LockedPackage
    stanza: str
    file: Path


@dataclass
class Site:
    """A mirror that things are put into, past every bundle."""

    mirror: Mirror
    work: Path
    valid_days: int = 90
    _made: int = field(default=0)

    def put(self, kind: Kind, data: bytes, name: str) -> Blob:
        """Put bytes into the pool."""
        content = Content(hashlib.sha256(data).hexdigest(), len(data), kind, name)
        self.mirror.pool.add_bytes(content, data)
        return Blob(sha256=content.sha256, size=content.size)

    def package(self, name: str, version: str = "1.0-1", depends: str = "", architecture: str = "amd64") -> Package:
        """Build a package and put it into the pool."""
        tree = self.work / f"{name}_{version.replace(':', '%')}"
        (tree / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": name,
            "Version": version,
            "Architecture": architecture,
            "Maintainer": "Somebody <somebody@example.org>",
            **({"Depends": depends} if depends else {}),
            "Description": f"the package {name}\n Made for a test.\n .\n In two paragraphs.",
        }
        control = "".join(f"{key}: {value}\n" for key, value in fields.items())
        (tree / "DEBIAN/control").write_text(control)
        (tree / "usr/share/test").mkdir(parents=True)
        (tree / "usr/share/test" / name).write_text(f"{name} {version}\n")
        path = self.work / f"{tree.name}.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, path],
            env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
            check=True,
            capture_output=True,
        )
        blob = self.put("package", path.read_bytes(), path.name)
        locked = LockedPackage(
            name=name, version=version, architecture=architecture, origin="local", path=path.name, why=("test",),
            size=blob.size, sha256=blob.sha256,
        )  # fmt: skip
        stanza = f"{control}Filename: pool/main/{path.name}\nSize: {blob.size}\nSHA256: {blob.sha256}\n"
        return Package(locked, stanza, path)

    def image(self, name: str, version: str, text: str) -> LockedImage:
        """Build an image and put its blobs into the pool."""
        archive = self.work / f"{name}.tar"
        reference = f"localhost/rtinfra/{name}:{version}"
        digest = oci.write(
            oci.Image(reference, (oci.Entry("hello", 0o644, text.encode()),), "/hello"), archive
        ).removeprefix("sha256:")
        blobs = {}
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.startswith("blobs/"):
                    opened = tar.extractfile(member)
                    assert opened is not None
                    blob = self.put("blob", opened.read(), member.name)
                    blobs[blob.sha256] = blob
        manifest = blobs.pop(digest)
        return LockedImage(
            name=name, version=version, licence="Apache-2.0", repository=f"localhost/rtinfra/{name}",
            manifest=manifest, media_type="application/vnd.oci.image.manifest.v1+json",
            blobs=tuple(sorted(blobs.values(), key=lambda blob: blob.sha256)), why=("test",),
        )  # fmt: skip

    def wheel(self, name: str, version: str = "1.0", text: str = "") -> LockedWheel:
        """Build a wheel with one module and put it into the pool."""
        module, buffer = name.replace("-", "_"), io.BytesIO()
        information = f"{module}-{version}.dist-info"
        members = {
            f"{module}.py": f"TEXT = {text!r}\n",
            f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        members[f"{information}/RECORD"] = "".join(f"{member},,\n" for member in (*members, f"{information}/RECORD"))
        with zipfile.ZipFile(buffer, "w") as zipped:
            for member, content in members.items():
                zipped.writestr(zipfile.ZipInfo(member), content)
        file = f"{module}-{version}-py3-none-any.whl"
        blob = self.put("wheel", buffer.getvalue(), file)
        return LockedWheel(
            name=name, version=version, file=file, size=blob.size, sha256=blob.sha256, why=("test",)
        )  # fmt: skip

    def lock(
        self,
        packages: Sequence[Package] = (),
        images: Sequence[LockedImage] = (),
        wheels: Sequence[LockedWheel] = (),
        created: datetime = CREATED,
    ) -> Lock:
        """Make a lock, with its stanzas in the pool."""
        stanzas = self.put("index", "\n".join(package.stanza for package in packages).encode(), "Packages")
        return Lock(
            format=1, created=created, suite="trixie", architecture="amd64", valid_days=self.valid_days,
            stanzas=stanzas, origins={}, packages=ordered(package.locked for package in packages),
            images=tuple(images), wheels=tuple(wheels), files=(),
        )  # fmt: skip

    def imported(self, lock: Lock) -> Lock:
        """Leave the mirror as the import of a bundle of this lock does."""
        content, data = lock_content(lock)
        self.mirror.pool.add_bytes(content, data)
        state = self.mirror.state()
        bundle = Imported(
            id=bundle_id(lock), created=lock.created, valid_until=lock.valid_until, lock=content.sha256,
            manifest=hashlib.sha256(json.dumps(bundle_id(lock)).encode()).hexdigest(),
        )  # fmt: skip
        self.mirror.record(state.model_copy(update={"imported": (*state.imported, bundle)}))
        return lock


def site(directory: Path) -> Site:
    """Make an empty mirror."""
    work = directory / "work"
    work.mkdir()
    return Site(Mirror(directory / "mirror"), work)
