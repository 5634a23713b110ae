"""The apt repository of a lock: what stands in it, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.mirror import repository
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Blob, Lock, LockedPackage
from rtinfra.mirror.tree import Tree
from tests.unit.mirror_site import CREATED, Site, site

UNTIL = CREATED + timedelta(days=90)
INDEX = "dists/trixie/main/binary-amd64"


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def lock_of(here: Site, *names: str) -> Lock:
    return here.lock([here.package(name) for name in names])


def built(here: Site, lock: Lock, *earlier: Lock) -> Tree:
    olds = [(old, here.mirror.pool.read(old.stanzas.sha256)) for old in earlier]
    return repository.repository(lock, here.mirror.pool.read(lock.stanzas.sha256), CREATED, UNTIL, earlier=olds)


def test_the_release_file_vouches_for_every_index_and_names_no_host(here: Site) -> None:
    tree = built(here, lock_of(here, "first"))
    release = tree.generated["dists/trixie/Release"].decode()
    assert "Origin: rtinfra\nLabel: rtinfra\nSuite: trixie\nCodename: trixie\n" in release
    assert "Date: Sun, 01 Nov 2026 12:00:00 UTC\nValid-Until: Sat, 30 Jan 2027 12:00:00 UTC\n" in release
    for name in ("Packages", "Packages.gz"):
        data = tree.generated[f"{INDEX}/{name}"]
        digest = hashlib.sha256(data).hexdigest()
        assert f" {digest} {len(data):>9} main/binary-amd64/{name}\n" in release
        assert tree.generated[f"{INDEX}/by-hash/SHA256/{digest}"] == data
    assert gzip.decompress(tree.generated[f"{INDEX}/Packages.gz"]) == tree.generated[f"{INDEX}/Packages"]


def test_a_stanza_is_the_upstream_one_but_for_its_path(here: Site) -> None:
    package = here.package("libx1", "2:1.2+b1~rc3")
    tree = built(here, here.lock([package]))
    path = f"pool/{package.locked.sha256[:2]}/{package.locked.sha256}/libx1_1.2+b1~rc3_amd64.deb"
    text = tree.generated[f"{INDEX}/Packages"].decode()
    assert text == package.stanza.replace("pool/main/libx1_2%1.2+b1~rc3.deb", path)
    assert tree.contents[path].sha256 == package.locked.sha256


def test_two_builds_are_the_same_bytes_whatever_the_order_of_the_stanzas(here: Site) -> None:
    packages = [here.package(name) for name in ("bb", "aa")]
    lock, turned = here.lock(packages), here.lock(packages[::-1])
    assert built(here, lock) == built(here, lock)
    index = f"{INDEX}/Packages"
    assert built(here, lock).generated[index] == built(here, turned).generated[index]


def test_what_clients_with_an_earlier_index_ask_for_stays(here: Site) -> None:
    old, new = lock_of(here, "gone"), lock_of(here, "come")
    before, after = built(here, old), built(here, new, old)
    kept = {path for path in before.paths if "/by-hash/" in path or path.startswith("pool/")}
    assert kept < after.paths
    assert b"gone" not in after.generated[f"{INDEX}/Packages"]


def test_bytes_that_are_no_text_pass_through(here: Site) -> None:
    package = here.package("odd")
    stanza = package.stanza.encode().replace(b"Made for", b"Made\x0b\xff\xc2\x85for")
    blob = here.put("index", stanza, "Packages")
    lock = here.lock([package]).model_copy(update={"stanzas": blob})
    assert b"Made\x0b\xff\xc2\x85for" in built(here, lock).generated[f"{INDEX}/Packages"]


# Fields as the format allows them: any text in one line, more lines behind a blank.
LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=20)
OTHER = st.tuples(st.from_regex(r"X-[A-Za-z]{1,8}", fullmatch=True), LINE, st.lists(LINE, max_size=2))


@given(st.lists(OTHER, max_size=5), st.lists(OTHER, max_size=5), st.booleans())
def test_every_other_field_stays_as_it_is(
    before: list[tuple[str, str, list[str]]], after: list[tuple[str, str, list[str]]], has_path: bool
) -> None:
    def text(fields: list[tuple[str, str, list[str]]]) -> str:
        return "".join(f"{name}: {value}\n" + "".join(f" {line}\n" for line in more) for name, value, more in fields)

    package = LockedPackage(
        name="one", version="1", architecture="all", origin="local", path="one.deb", size=7, sha256="ab" * 32,
        why=("test",),
    )  # fmt: skip
    known = f"Package: one\nVersion: 1\nArchitecture: all\nSize: 7\nSHA256: {package.sha256}\n"
    path = "Filename: elsewhere/one.deb\n" if has_path else ""
    lock = Lock(
        format=1, created=CREATED, suite="trixie", architecture="amd64", valid_days=1,
        stanzas=Blob(sha256=package.sha256, size=1), origins={}, packages=(package,), images=(), wheels=(), files=(),
    )  # fmt: skip
    found = repository.indexes(lock, f"{text(before)}{known}{path}{text(after)}".encode())["Packages"].decode()
    ours = f"Filename: pool/ab/{package.sha256}/one_1_all.deb\n"
    expected = (known, ours, text(after)) if has_path else (known, text(after), ours)
    assert found == text(before) + "".join(expected)


def refused(here: Site, lock: Lock, stanzas: str) -> str:
    with pytest.raises(MirrorError) as caught:
        repository.indexes(lock, stanzas.encode())
    return str(caught.value)


def test_an_index_that_does_not_fit_the_lock_is_refused(here: Site) -> None:
    first, second = here.package("first"), here.package("second")
    lock = here.lock([first])
    assert "lacks package first 1.0-1 (amd64)" in refused(here, lock, "")
    assert "describes package second 1.0-1 (amd64)" in refused(here, lock, f"{first.stanza}\n{second.stanza}")
    assert "describes package first 1.0-1 (amd64) twice" in refused(here, lock, f"{first.stanza}\n{first.stanza}")
    wrong = refused(here, lock, first.stanza.replace(first.locked.sha256, "0" * 64))
    assert f"has sha256 {'0' * 64} in its index, {first.locked.sha256} in lock {lock.id}" in wrong
    assert "has size 1 in its index" in refused(
        here, lock, first.stanza.replace(f"Size: {first.locked.size}", "Size: 1")
    )
