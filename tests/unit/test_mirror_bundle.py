"""Bundles: what is in the folder that is carried, that it is the same every time, and that it is whole or not there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest

from rtinfra.mirror.bundle import Bundle, make_bundle
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.installer import checking_lines
from rtinfra.mirror.model import Lock, lock_content
from rtinfra.mirror.sbom import sbom
from rtinfra.mirror.store import Mirror
from tests.unit.bundle_site import (
    PART_SIZE,
    Journey,
    chosen,
    count_syncs,
    flip,
    killed_at,
    snapshot,
)


@pytest.fixture
def mirror(journey: Journey, tmp_path: Path) -> Mirror:
    """Another computer with the same pool and the same key, where no bundle was made yet."""
    shutil.copytree(journey.mirror.root / "pool", tmp_path / "other/pool")
    shutil.copytree(journey.mirror.root / "keys", tmp_path / "other/keys")
    return Mirror(tmp_path / "other")


def archive_of(made: Bundle, target: Path) -> Path:
    target.write_bytes(b"".join((made.folder / part.file).read_bytes() for part in made.manifest.parts))
    return target


def test_the_parts_are_one_archive_with_the_lock_first_and_every_content(journey: Journey, tmp_path: Path) -> None:
    assert len(journey.full.manifest.parts) > 3
    assert {part.size for part in journey.full.manifest.parts[:-1]} == {PART_SIZE}
    with tarfile.open(archive_of(journey.full, tmp_path / "all.tar")) as archive:
        members = archive.getmembers()
        names = [member.name.removeprefix("contents/") for member in members]
        assert names[0] == lock_content(journey.lock)[0].sha256
        assert set(names[1:]) == {content.sha256 for content in journey.lock.contents()}
        for member, name in zip(members, names, strict=True):
            reader = archive.extractfile(member)
            assert reader is not None
            assert hashlib.sha256(reader.read()).hexdigest() == name
            assert (member.uid, member.uname, member.mode) == (0, "", 0o644)
            assert member.mtime == journey.lock.created.timestamp()


def test_ordinary_programs_confirm_the_folder(journey: Journey) -> None:
    folder = journey.full.folder
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert done.returncode == 0
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    unlisted = {path.name for path in folder.iterdir()} - listed
    assert unlisted == {"SHA256SUMS", "SHA256SUMS.sig", "manifest.json.sig", "bundle.signers"}
    with (folder / "SHA256SUMS").open("rb") as sums:
        signed = subprocess.run(
            ["ssh-keygen", "-Y", "check-novalidate", "-n", "rtinfra-bundle", "-s", folder / "SHA256SUMS.sig"],
            stdin=sums,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    assert journey.full.fingerprint in signed


def test_one_lock_and_one_key_make_the_same_bytes_on_another_computer(journey: Journey, mirror: Mirror) -> None:
    full = make_bundle(mirror, journey.lock, part_size=PART_SIZE)
    delta = make_bundle(mirror, journey.next_lock, base=full.manifest.id, part_size=PART_SIZE)
    assert snapshot(full.folder) == snapshot(journey.full.folder)
    assert snapshot(delta.folder) == snapshot(journey.delta.folder)
    before = snapshot(full.folder)
    assert snapshot(make_bundle(mirror, journey.lock, part_size=PART_SIZE).folder) == before
    assert len(mirror.state().bundles) == 2


def test_a_difference_has_the_lock_and_what_is_new_and_names_the_rest(journey: Journey) -> None:
    manifest = journey.delta.manifest
    assert manifest.base == journey.full.manifest.id
    assert {content.kind for content in manifest.carried} == {"lock", "index", "package"}
    assert [content.name for content in manifest.carried if content.kind == "package"] == ["hello_2.10-4_amd64.deb"]
    assert {content.sha256 for content in manifest.contents} > {
        content.sha256 for content in journey.next_lock.contents()
    }
    assert sum(part.size for part in manifest.parts) < sum(part.size for part in journey.full.manifest.parts) / 5


def test_the_key_is_readable_by_its_owner_alone(journey: Journey) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in journey.mirror.keys.iterdir()} == {
        "bundle_ed25519": 0o600,
        "bundle_ed25519.pub": 0o644,
        "bundle_keys": 0o644,
    }
    assert journey.mirror.keys.stat().st_mode & 0o777 == 0o700


def test_the_text_for_people_says_what_to_type_in_both_languages(journey: Journey) -> None:
    text = (journey.full.folder / "README.txt").read_text(encoding="utf-8")
    assert journey.full.manifest.id in text
    assert "2026-05-30" in text
    assert text.count("sh install.sh --key NUMBER") == 2
    for line in checking_lines():
        assert text.count(f"\n    {line}\n") == 2
    assert "한국어" in text


def test_the_package_index_leads_to_what_is_in_the_archive(journey: Journey) -> None:
    index = (journey.full.folder / "Packages").read_text()
    names = re.findall(r"^Filename: contents/(\w+)$", index, re.MULTILINE)
    assert sorted(names) == sorted(package.sha256 for package in journey.lock.packages)
    assert re.findall(r"^SHA256: (\w+)$", index, re.MULTILINE) == names


# ---- refusals ---------------------------------------------------------------------------------------------


def refused(mirror: Mirror, lock: Lock, base: str | None = None, part_size: int = PART_SIZE) -> MirrorError:
    before = snapshot(mirror.root)
    with pytest.raises(MirrorError) as error:
        make_bundle(mirror, lock, base, part_size=part_size)
    assert snapshot(mirror.root) == before
    return error.value


def test_contents_that_were_not_fetched_are_named(journey: Journey, mirror: Mirror) -> None:
    mirror.pool.path(journey.lock.wheels[0].sha256).unlink()
    error = refused(mirror, journey.lock)
    assert "1 contents" in error.message and "six-1.17.0-py2.py3-none-any.whl" in error.message
    assert "rtinfra mirror fetch" in error.next_step


def test_a_content_that_the_disk_damaged_is_named_and_no_bundle_is_left(journey: Journey, mirror: Mirror) -> None:
    mirror.pool.add_bytes(*lock_content(journey.lock))
    flip(mirror.pool.path(journey.lock.files[0].sha256), 77)
    error = refused(mirror, journey.lock)
    assert "rtinfra-0.1.0.tar in the pool is damaged" in error.message
    assert not list(mirror.bundles.iterdir())


def test_a_lock_that_leaves_a_bare_computer_without_the_tool_is_refused(journey: Journey, mirror: Mirror) -> None:
    packages = tuple(package for package in journey.lock.packages if package.name != "python3-venv")
    error = refused(mirror, journey.lock.model_copy(update={"packages": packages, "files": ()}))
    assert "package python3-venv, file rtinfra-<version>.tar" in error.message


def test_an_unknown_base_is_refused_with_those_that_are_known(journey: Journey) -> None:
    error = refused(journey.mirror, journey.next_lock, "20200101T000000Z-0123456789abcdef")
    assert "no bundle 20200101T000000Z-0123456789abcdef was made here" in error.message
    assert journey.full.manifest.id in error.message


def test_a_base_that_is_not_older_is_refused(journey: Journey) -> None:
    assert "is not older than the lock" in refused(journey.mirror, journey.lock, journey.delta.manifest.id).message


def test_a_base_for_another_architecture_is_refused(journey: Journey) -> None:
    other = journey.next_lock.model_copy(update={"architecture": "arm64"})
    error = refused(journey.mirror, other, journey.full.manifest.id)
    assert "is for trixie amd64, the lock for trixie arm64" in error.message


def test_too_many_parts_are_refused(journey: Journey) -> None:
    assert "more than 9999" in refused(journey.mirror, journey.lock, part_size=10).message


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    journey: Journey, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 5000, 5000))
    error = refused(mirror, journey.lock)
    assert re.search(r"not enough disk space for the bundle: .* has 0 MB free, 1 MB are needed", error.message)


@pytest.mark.slow
def test_killed_while_making_a_bundle_leaves_it_whole_or_not_there(
    journey: Journey, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Bundle:
        return make_bundle(mirror, journey.lock, part_size=PART_SIZE)

    total = count_syncs(monkeypatch, make)
    undisturbed = snapshot(mirror.root)
    for moment in chosen(total - 1, 8):
        shutil.rmtree(mirror.bundles)
        shutil.rmtree(mirror.root / "manifests", ignore_errors=True)
        (mirror.root / "state.json").unlink(missing_ok=True)
        mirror.pool.path(lock_content(journey.lock)[0].sha256).unlink()
        killed_at(moment, make)
        for folder in mirror.bundles.glob("2*"):
            assert snapshot(folder) == snapshot(journey.full.folder), moment
        make()
        for leftover in mirror.pool.directory.glob("*/.new-*"):
            leftover.unlink()
        assert snapshot(mirror.root) == undisturbed, moment


# ---- the bill of materials --------------------------------------------------------------------------------


def test_the_bill_of_materials_lists_everything_by_package_url_and_hash(journey: Journey) -> None:
    bill = json.loads((journey.full.folder / "sbom.cdx.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert bill["metadata"]["timestamp"] == "2026-03-01T12:00:00Z"
    components = {component["name"]: component for component in bill["components"]}
    assert components["hello"]["purl"] == "pkg:deb/rtinfra/hello@1:2.10-3?arch=amd64&distro=trixie"
    assert components["six"]["purl"].startswith("pkg:pypi/six@1.17.0")
    image = journey.lock.images[0]
    assert components["garage"]["purl"] == (
        f"pkg:oci/garage@sha256%3A{image.manifest.sha256}?repository_url=localhost/rtinfra/garage&tag=2.1.0"
    )
    assert components["garage"]["licenses"] == [{"license": {"id": "AGPL-3.0-only"}}]
    hashes = {component["hashes"][0]["content"] for component in bill["components"]}
    listed = {item.sha256 for item in (*journey.lock.packages, *journey.lock.wheels, *journey.lock.files)}
    assert hashes == listed | {image.manifest.sha256}


def test_every_lock_has_a_bill_with_a_number_of_its_own(journey: Journey) -> None:
    numbers = {json.loads(sbom(lock))["serialNumber"] for lock in (journey.lock, journey.next_lock)}
    assert len(numbers) == 2
    assert sbom(journey.lock) == (journey.full.folder / "sbom.cdx.json").read_bytes()
