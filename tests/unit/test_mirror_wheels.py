"""Wheels against a folder as pip's index: what is taken, and what is told when something is missing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rtinfra.local.errors import LocalError
from rtinfra.local.progress import Reporter
from rtinfra.mirror import wheels
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LockedWheel
from rtinfra.mirror.pool import Pool
from tests.unit.mirror_archive import wheel

TARGET = wheels.Target(("3.13",), "amd64", "trixie")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this computer's pip is configured with, and nothing else."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return index


def resolve(tmp_path: Path, *lines: str, target: wheels.Target = TARGET) -> tuple[LockedWheel, ...]:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("".join(lines))
    pool, record = Pool(tmp_path / "pool"), tmp_path / "wheels.json"
    return wheels.resolve(requirements, target, ("this tool",), pool, record, Reporter())


def test_wheels_come_into_the_pool_by_their_hash(tmp_path: Path, index: Path) -> None:
    lines = wheel(index, "Some_Thing", "1.2"), wheel(index, "other")
    found = resolve(tmp_path, *lines)
    assert [(each.name, each.version, each.file) for each in found] == [
        ("some-thing", "1.2", "Some_Thing-1.2-py3-none-any.whl"),
        ("other", "1.0", "other-1.0-py3-none-any.whl"),
    ]
    for each in found:
        data = Pool(tmp_path / "pool").read(each.sha256)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each.size, each.sha256)


@pytest.mark.slow
def test_each_python_version_gets_its_own(tmp_path: Path, index: Path) -> None:
    tags = ["cp312-cp312-manylinux_2_17_x86_64"]
    tags += [f"cp313-cp313-manylinux_2_{platform}" for platform in ("41_x86_64", "17_aarch64")]
    lines = [wheel(index, "fast", tag=tag) for tag in tags]
    hashes = " ".join(line.split()[1] for line in lines)
    found = resolve(tmp_path, f"fast==1.0 {hashes}\n", target=wheels.Target(("3.12", "3.13"), "amd64", "trixie"))
    assert [each.file for each in found] == [f"fast-1.0-{tag}.whl" for tag in tags[:2]]


def test_a_wheel_for_a_newer_c_library_is_not_taken(tmp_path: Path, index: Path) -> None:
    line = wheel(index, "fast", tag="cp313-cp313-manylinux_2_41_x86_64")
    with pytest.raises(LocalError, match=r"no wheel of fast==1.0 for Python 3.13 on x86_64"):
        resolve(tmp_path, line, target=wheels.Target(("3.13",), "amd64", "bookworm"))


@pytest.mark.slow
def test_nothing_is_asked_again_for_the_same_requirements(tmp_path: Path, index: Path) -> None:
    line = wheel(index, "some")
    first = resolve(tmp_path, line)
    (index / first[0].file).unlink()
    assert resolve(tmp_path, line) == first
    # What the pool has lost is.
    Pool(tmp_path / "pool").path(first[0].sha256).unlink()
    with pytest.raises(LocalError):
        resolve(tmp_path, line)


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, index: Path) -> None:
    line = wheel(index, "some")
    (index / "some-1.0-py3-none-any.whl").write_bytes(b"evil")
    with pytest.raises(LocalError) as caught:
        resolve(tmp_path, line)
    assert "some" in caught.value.detail and caught.value.next_step
    assert not list(Pool(tmp_path / "pool").everything())


def test_an_unknown_architecture_is_told(tmp_path: Path, index: Path) -> None:
    with pytest.raises(MirrorError, match="what Python wheels for mips are called"):
        resolve(tmp_path, wheel(index, "some"), target=wheels.Target(("3.13",), "mips", "trixie"))


@pytest.mark.slow
def test_wheels_are_complete_when_pip_needs_nothing_else(tmp_path: Path, index: Path) -> None:
    lines = wheel(index, "some", requires="other>=1"), wheel(index, "other")
    pool, found = Pool(tmp_path / "pool"), resolve(tmp_path, *lines)
    wheels.check_closure(tmp_path / "requirements.txt", found, TARGET, pool)
    with pytest.raises(MirrorError) as caught:
        wheels.check_closure(tmp_path / "requirements.txt", found[1:], TARGET, pool)
    assert "other" in caught.value.detail


@pytest.mark.slow
def test_a_requirement_that_was_forgotten_is_found(tmp_path: Path, index: Path) -> None:
    pool, found = Pool(tmp_path / "pool"), resolve(tmp_path, wheel(index, "some", requires="forgotten"))
    with pytest.raises(MirrorError) as caught:
        wheels.check_closure(tmp_path / "requirements.txt", found, TARGET, pool)
    assert "forgotten" in caught.value.detail
