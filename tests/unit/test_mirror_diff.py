"""The difference of two locks, and versions in dpkg's own order."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from functools import cmp_to_key

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtinfra.mirror.diff import LockDiff, compare_versions, diff_locks
from rtinfra.mirror.model import Blob, Lock, LockedPackage, ordered
from rtinfra.mirror.pool import Pool
from tests.unit.bundle_site import CREATED, make_lock

# What versions are made of (deb-version(7)), with what is hard to order more often than it is in nature.
PIECES = st.sampled_from(["0", "00", "1", "01", "9", "10", "a", "z", "Z", "~", "~~", "+", ".", "rc", "deb13u", "b"])
TEXT = st.lists(PIECES, max_size=6).map("".join)


@st.composite
def versions(draw: st.DrawFn) -> str:
    epoch = draw(st.sampled_from(["", "", "0:", "1:", "12:"]))
    upstream = draw(st.sampled_from("0129")) + draw(TEXT)
    revisions = [draw(TEXT.filter(bool)) for _ in range(draw(st.integers(0, 2)))]
    return epoch + "-".join([upstream, *revisions])


def dpkg(one: str, other: str) -> int:
    for answer, relation in ((-1, "lt"), (1, "gt")):
        if subprocess.run(["dpkg", "--compare-versions", one, relation, other], check=False).returncode == 0:
            return answer
    return 0


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


@given(versions(), versions())
@settings(max_examples=150, deadline=None)
def test_versions_are_compared_as_dpkg_does(one: str, other: str) -> None:
    assert sign(compare_versions(one, other)) == dpkg(one, other)


@given(st.lists(versions(), max_size=8), st.randoms())
def test_the_order_does_not_depend_on_where_one_begins(found: list[str], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    in_order = sorted(found, key=cmp_to_key(compare_versions))
    again = sorted(shuffled, key=cmp_to_key(compare_versions))
    assert all(compare_versions(one, other) == 0 for one, other in zip(in_order, again, strict=True))


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0~rc1", "1.0"),
        ("1.0-1", "1.0-1+deb13u1"),
        ("2.0", "1:1.0"),
        ("6.12.9-1", "6.12.41-1"),
        ("1.0-1", "1.0-1.1"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+b1"),
    ],
)
def test_versions_one_meets(older: str, newer: str) -> None:
    assert compare_versions(older, newer) < 0 < compare_versions(newer, older)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Lock:
    folder = tmp_path_factory.mktemp("lock")
    return make_lock(Pool(folder / "pool"), folder / "debs")


def package(lock: Lock, name: str, version: str, sha256: str = "1" * 64) -> LockedPackage:
    return lock.packages[0].model_copy(update={"name": name, "version": version, "sha256": sha256, "size": 1000})


def changed(lock: Lock, *packages: LockedPackage, **update: object) -> Lock:
    """The lock a day later, these packages replacing those of the same name."""
    names = {each.name for each in packages}
    kept = (each for each in lock.packages if each.name not in names)
    new = {"created": CREATED + timedelta(days=1), "packages": ordered([*kept, *packages])}
    return lock.model_copy(update={**new, **update})


def shown(difference: LockDiff) -> list[tuple[str, str, str, str | None, str | None]]:
    return [(each.what, each.name, each.change, each.before, each.after) for each in difference.differences]


def test_the_same_is_no_difference(before: Lock) -> None:
    difference = diff_locks(before, changed(before))
    assert difference.differences == ()
    assert difference.text() == f"lock {changed(before).id} holds the same as {before.id}\n"


def test_packages_come_go_and_change_with_both_versions(before: Lock) -> None:
    after = changed(
        before,
        package(before, "hello", "1:2.10-10", "2" * 64),
        package(before, "gpg", "0.9~rc1", "3" * 64),
        package(before, "python3", "1.0", "4" * 64),
        package(before, "new", "7", "5" * 64),
    )
    after = after.model_copy(update={"packages": tuple(each for each in after.packages if each.name != "gpgv")})
    difference = diff_locks(before, after)
    assert shown(difference) == [
        ("package", "gpg", "downgraded", "1.0", "0.9~rc1"),
        ("package", "gpgv", "removed", "1.0", None),
        ("package", "hello", "upgraded", "1:2.10-3", "1:2.10-10"),
        ("package", "new", "added", None, "7"),
        ("package", "python3", "changed", "1.0", "1.0"),
    ]
    assert (difference.new_contents, difference.new_bytes) == (4, 4000)
    assert difference.dropped_contents == 4
    assert "  package  upgraded    hello    1:2.10-3 -> 1:2.10-10\n" in difference.text()
    assert "new: 4 contents, 0.0 MB; no longer needed: 4 contents, 0.2 MB" in difference.text()


def test_two_versions_of_one_package_are_one_difference(before: Lock) -> None:
    old = package(before, "hello", "1:2.10-3", next(p.sha256 for p in before.packages if p.name == "hello"))
    more = changed(before, old, package(before, "hello", "1:2.10-10", "2" * 64))
    assert shown(diff_locks(before, more)) == [("package", "hello", "upgraded", "1:2.10-3", "1:2.10-3, 1:2.10-10")]
    assert shown(diff_locks(more, before)) == [("package", "hello", "downgraded", "1:2.10-3, 1:2.10-10", "1:2.10-3")]


def test_images_wheels_and_files_are_compared_too(before: Lock) -> None:
    image = before.images[0].model_copy(update={"version": "2.2.0", "manifest": Blob(sha256="6" * 64, size=10)})
    wheel = before.wheels[0].model_copy(update={"version": "1.16.0", "sha256": "7" * 64})
    file = before.files[0].model_copy(update={"sha256": "8" * 64})
    difference = diff_locks(before, changed(before, images=(image,), wheels=(wheel,), files=(file,)))
    assert shown(difference) == [
        ("image", "garage", "upgraded", "2.1.0", "2.2.0"),
        ("wheel", "six", "downgraded", "1.17.0", "1.16.0"),
        ("file", "rtinfra-0.1.0.tar", "changed", None, None),
    ]
    assert difference.to_json()["differences"][0]["after"] == "2.2.0"
