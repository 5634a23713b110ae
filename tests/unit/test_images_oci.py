"""OCI archives: the same bytes for the same content, a digest that is true, damage that is noticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.images.oci import ArchiveError, Entry, Image, read_digest, repack, replacing, verify, write

REFERENCE = "localhost/rtinfra/demo:1.0"


@pytest.fixture
def image(tmp_path: Path) -> Image:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF" + bytes(3_000_000))
    entries = (
        Entry("demo", 0o755, program),
        Entry("etc"),
        Entry("etc/demo.conf", 0o644, b"x = 1\n"),
        Entry("lib", link="usr/lib"),
    )
    return Image(REFERENCE, entries, "/demo", {"PATH": "/usr/bin"}, {"org.opencontainers.image.version": "1.0"})


def blob(archive: Path, digest: str) -> bytes:
    with tarfile.open(archive) as tar:
        content = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
        assert content is not None
        return content.read()


def test_the_same_content_gives_the_same_bytes(image: Image, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    digest = write(image, first)
    program = image.entries[0].content
    assert isinstance(program, Path)
    program.chmod(0o600)
    os.utime(program, (1, 1))
    shuffled = dataclasses.replace(image, entries=tuple(reversed(image.entries)))
    assert write(shuffled, second) == digest
    assert first.read_bytes() == second.read_bytes()
    assert write(dataclasses.replace(image, entrypoint="/other"), second) != digest


def test_the_digest_is_that_of_the_manifest_and_all_blobs_are_what_they_say(image: Image, tmp_path: Path) -> None:
    archive = tmp_path / "demo.tar"
    digest = write(image, archive)
    assert read_digest(archive) == digest
    manifest = blob(archive, digest)
    assert digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    described = json.loads(manifest)
    config = json.loads(blob(archive, described["config"]["digest"]))
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["config"] == {"Entrypoint": ["/demo"], "Env": ["PATH=/usr/bin"]}
    (layer,) = described["layers"]
    unpacked = tmp_path / "layer"
    unpacked.write_bytes(blob(archive, layer["digest"]))
    assert layer["size"] == unpacked.stat().st_size
    with tarfile.open(unpacked) as tar:
        found = {member.name: member for member in tar}
    assert list(found) == ["demo", "etc", "etc/demo.conf", "lib"]
    assert all((member.uid, member.gid) == (0, 0) for member in found.values())
    assert found["demo"].mode == 0o755
    assert found["lib"].linkname == "usr/lib"
    verify(archive)


def test_podman_finds_the_name_where_it_looks(image: Image, tmp_path: Path) -> None:
    """index.json is read first, and its one entry carries the reference."""
    archive = tmp_path / "demo.tar"
    digest = write(image, archive)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        content = tar.extractfile("index.json")
        assert content is not None
        (entry,) = json.load(content)["manifests"]
    assert names[:2] == ["index.json", "oci-layout"]
    assert entry["digest"] == digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": REFERENCE}


def test_an_image_of_a_layout_keeps_its_manifest(image: Image, tmp_path: Path) -> None:
    archive, layout = tmp_path / "demo.tar", tmp_path / "layout"
    digest = write(image, archive)
    with tarfile.open(archive) as tar:
        tar.extractall(layout, filter="data")
    assert repack(layout, "localhost/rtinfra/other:2", tmp_path / "other.tar") == digest
    assert read_digest(tmp_path / "other.tar") == digest
    verify(tmp_path / "other.tar")
    (layout / "index.json").write_text('{"manifests": []}')
    with pytest.raises(ArchiveError, match="one image"):
        repack(layout, REFERENCE, tmp_path / "other.tar")


def test_a_changed_byte_and_a_cut_off_end_are_noticed(image: Image, tmp_path: Path) -> None:
    archive = tmp_path / "demo.tar"
    write(image, archive)
    whole = archive.read_bytes()
    position = whole.index(b"\x1f\x8b\x08") + 100
    archive.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    with pytest.raises(ArchiveError, match="damaged"):
        verify(archive)
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match="damaged"):
        verify(archive)


@given(st.binary(max_size=2000))
def test_what_is_no_archive_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("oci") / "x.tar"
    path.write_bytes(content)
    with pytest.raises(ArchiveError):
        read_digest(path)


def test_an_interrupted_write_leaves_what_was_there(image: Image, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    archive = directory / "demo.tar"
    write(image, archive)
    before = archive.read_bytes()

    def interrupted() -> None:
        with replacing(archive) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert archive.read_bytes() == before
    assert list(directory.iterdir()) == [archive]
