"""Bundles that are signed and wrong inside: only those could make them who have the key, and they are refused too."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.importer import import_bundle, verify_bundle
from rtinfra.mirror.model import Manifest, Part
from rtinfra.mirror.store import Mirror
from tests.unit.bundle_site import ARCHITECTURE, NOW, Journey, signed_again, take


def rebuilt(journey: Journey, folder: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> Path:
    """Replace the archive of a bundle by another one, and sign for it."""
    manifest = journey.full.manifest
    whole = b"".join((folder / part.file).read_bytes() for part in manifest.parts)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    change(members)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return replaced(journey, folder, output.getvalue())


def replaced(journey: Journey, folder: Path, archive: bytes, manifest: Manifest | None = None) -> Path:
    """Give a bundle one part with the bytes, and sign for it."""
    manifest = manifest or journey.full.manifest
    for part in manifest.parts:
        (folder / part.file).unlink()
    (folder / "part-0001").write_bytes(archive)
    parts = (Part(file="part-0001", size=len(archive), sha256=hashlib.sha256(archive).hexdigest()),)
    signed_again(journey.mirror, folder, manifest.model_copy(update={"parts": parts}))
    return folder


def refused_inside(journey: Journey, mirror: Mirror, folder: Path) -> MirrorError:
    """Why a bundle is refused whose archive is wrong. Good contents may be in the pool; nothing counts as imported."""
    options = {"told": journey.full.number, "now": NOW, "architecture": ARCHITECTURE}
    with pytest.raises(MirrorError) as error:
        verify_bundle(mirror, folder, **options)  # type: ignore[arg-type]
    assert not mirror.root.exists()
    with pytest.raises(MirrorError):
        import_bundle(mirror, folder, **options)  # type: ignore[arg-type]
    assert not mirror.state().imported
    assert not list(mirror.root.rglob(".new-*"))
    return error.value


def test_an_extra_member_is_named(journey: Journey, closed: Mirror, stick: Path) -> None:
    folder = rebuilt(journey, stick, lambda members: members.append(("../../etc/cron.d/more", b"* * * * *")))
    assert "'../../etc/cron.d/more' is not listed" in refused_inside(journey, closed, folder).message


def test_members_in_another_order_are_refused(journey: Journey, closed: Mirror, stick: Path) -> None:
    folder = rebuilt(journey, stick, lambda members: members.insert(0, members.pop()))
    message = refused_inside(journey, closed, folder).message
    assert "is where mirror.lock.yaml" in message and "is expected" in message


def test_a_missing_member_is_named(journey: Journey, closed: Mirror, stick: Path) -> None:
    folder = rebuilt(journey, stick, list.pop)  # type: ignore[arg-type]
    assert "it ends before rtinfra-0.1.0.tar" in refused_inside(journey, closed, folder).message


def test_a_truncated_archive_is_refused(journey: Journey, closed: Mirror, stick: Path) -> None:
    whole = b"".join((stick / part.file).read_bytes() for part in journey.full.manifest.parts)
    folder = replaced(journey, stick, whole[: len(whole) // 2])
    assert "the archive of bundle" in refused_inside(journey, closed, folder).message


@pytest.mark.parametrize("what", ["hello_2.10-3_amd64.deb", "garage sha256:", "six-1.17.0-py2.py3-none-any.whl"])
def test_a_tampered_package_image_or_wheel_is_named(journey: Journey, closed: Mirror, stick: Path, what: str) -> None:
    blob = next(content for content in journey.lock.contents() if content.name.startswith(what))

    def tamper(members: list[tuple[str, bytes]]) -> None:
        place = next(number for number, (name, _) in enumerate(members) if name.endswith(blob.sha256))
        name, data = members[place]
        members[place] = (name, data[:-1] + bytes([data[-1] ^ 1]))

    error = refused_inside(journey, closed, rebuilt(journey, stick, tamper))
    assert error.message.startswith(f"{blob.name} in the bundle is not what was locked: its sha256 is")
    assert not closed.pool.has(blob.sha256, blob.size)


def test_a_manifest_that_is_not_of_its_lock_is_refused(journey: Journey, closed: Mirror, stick: Path) -> None:
    manifest = journey.full.manifest
    wheel = next(content for content in manifest.contents if content.kind == "wheel")
    fewer = tuple(content for content in manifest.contents if content != wheel)

    def drop(members: list[tuple[str, bytes]]) -> None:
        members[:] = [(name, data) for name, data in members if not name.endswith(wheel.sha256)]

    rebuilt(journey, stick, drop)
    parts = (stick / "part-0001").read_bytes()
    other = manifest.model_copy(update={"contents": fewer, "parts": (manifest.parts[0],)})
    replaced(journey, stick, parts, other)
    with pytest.raises(MirrorError, match="does not list what its lock needs"):
        take(closed, stick, journey)
    assert not closed.state().imported
