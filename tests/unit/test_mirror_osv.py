"""Files with advisories: read in the public format, whatever else they hold is told in words."""

from __future__ import annotations

import io
import itertools
import json
import tempfile
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtinfra.mirror import osv
from rtinfra.mirror.components import Component
from rtinfra.mirror.ecosystems import GO, PYPI, compare, distribution, of_toolchain
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.weaknesses import find

NOW = datetime(2026, 11, 29, tzinfo=UTC)
THING = {(PYPI, "thing")}


def advisory(name: str = "PYSEC-2026-1", **changes: Any) -> dict[str, Any]:
    """Return an advisory as the public databases write them."""
    event = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}
    affected = {"package": {"ecosystem": PYPI, "name": "Thing"}, "ranges": [event], "versions": ["1.0"]}
    return {"id": name, "modified": "2026-11-01T00:00:00Z", "summary": "It breaks", "affected": [affected], **changes}


def put(folder: Path, **advisories: Any) -> Path:
    for name, content in advisories.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_file_a_zip_file_and_a_folder_of_both_are_read(tmp_path: Path) -> None:
    folder = put(tmp_path, one=advisory("A-1"))
    zipped(folder / "all.zip", {"A-2.json": json.dumps(advisory("A-2")).encode(), "README": b"no advisory"})
    (folder / "index").mkdir()
    put(folder / "index", vulns="[1, 2]")
    found = osv.read([folder], THING)
    assert [entry.id for entry in found.entries] == ["A-2", "A-1"]
    assert found.counts == {PYPI: 2}
    assert found.newest == {PYPI: datetime(2026, 11, 1, tzinfo=UTC)}
    assert found.unreadable == ()
    assert [entry.id for entry in osv.read([folder / "one.json"], THING).entries] == ["A-1"]
    assert osv.read([folder], {(PYPI, "other")}).entries == ()


def test_what_was_withdrawn_does_not_count(tmp_path: Path) -> None:
    put(tmp_path, one=advisory(withdrawn="2026-11-02T00:00:00Z"))
    assert osv.read([tmp_path], THING).entries == ()


def test_lists_may_be_null_and_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, one=advisory(aliases=None, upstream=None, credits=[{"name": "x"}], schema_version="9.0"))
    assert len(osv.read([tmp_path], THING).entries) == 1


@pytest.mark.parametrize(
    "text, told",
    [
        ('{"id": "A-1",\n"modified": }', (".json:2", "is no JSON: expected value at line 2")),
        ("", (".json:1", "is no JSON: EOF while parsing")),
        ("[]", (".json", "is no advisory: ")),
        ('{"id": "A-1"}', (".json", "is no advisory: modified: Field required")),
        ('{"id": "A-1", "modified": "soon"}', (".json", "is no advisory: modified: ")),
        (
            json.dumps(advisory(affected=[{"ranges": [{"type": "SEMVER", "events": []}]}])),
            (".json", "affected.0.ranges"),
        ),
        (
            json.dumps(advisory(affected=[{"ranges": [{"type": "SEMVER", "events": [{"fixed": "1", "limit": "2"}]}]}])),
            (".json", "an event is one of introduced, fixed, last_affected, limit"),
        ),
        ("[" * 100_000, (".json", "is no JSON: recursion limit exceeded")),
        ('{"id": "\ud800"}'.encode("utf-8", "surrogatepass").decode("latin-1"), (".json", "is no advisory")),
    ],
)
def test_a_file_that_is_none_is_named_and_hides_no_other(tmp_path: Path, text: str, told: tuple[str, str]) -> None:
    put(tmp_path, bad=text, good=advisory())
    found = osv.read([tmp_path], THING)
    assert len(found.entries) == 1
    (one,) = found.unreadable
    place, reason = told
    assert one.file.startswith(f"{tmp_path}/bad{place}")
    assert reason in one.reason


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv, "MOST_BYTES", 1 << 20)
    put(tmp_path, large=json.dumps(advisory(details="x" * (1 << 20))))
    # A megabyte of blanks is a kilobyte when it is packed.
    zipped(tmp_path / "bomb.zip", {"A-2.json": b" " * (2 << 20)})
    found = osv.read([tmp_path], THING)
    assert found.entries == ()
    assert {one.reason for one in found.unreadable} == {"is larger than 1 MiB"}
    put(tmp_path, one=advisory("A-1"), two=advisory("A-2"))
    monkeypatch.setattr(osv, "MOST_FILES", 1)
    with pytest.raises(MirrorError, match="more than 1 advisories"):
        osv.read([tmp_path], THING)


def test_a_zip_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"PK\x03\x04 and nothing more")
    whole = zipped(tmp_path / "cut.zip", {"A-1.json": json.dumps(advisory()).encode() * 9}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole.replace(b"It", b"it", 1)[:40] + b"\0" * 40 + whole[80:])
    found = osv.read([tmp_path], THING)
    assert {Path(one.file.partition(":")[0]).name for one in found.unreadable} == {"all.zip", "cut.zip"}


@pytest.mark.parametrize("name, reason", [("none", "does not exist"), ("notes.txt", "is neither a .json file")])
def test_a_path_of_another_kind_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(MirrorError, match=reason):
        osv.read([tmp_path / name], THING)


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
odd = plain_json | st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "a\nb", "9" * 5000, ""])
events = st.lists(
    st.dictionaries(st.sampled_from(["introduced", "fixed", "last_affected"]), odd, max_size=2), max_size=3
)


@settings(max_examples=150, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([PYPI, GO, "Debian:13"]), events, st.sampled_from(sorted(advisory())), odd)
def test_whatever_is_in_it_is_told_in_words(
    tmp_path: Path, ecosystem: str, happens: list[dict[str, Any]], key: str, value: object
) -> None:
    package = {"ecosystem": ecosystem, "name": "thing"}
    kind = {"type": "ECOSYSTEM", "events": happens}
    put(tmp_path, one=advisory(affected=[{"package": package, "ranges": [kind]}]), two={**advisory(), key: value})
    component = Component(ecosystem, "thing", "1.0.0", "a file", "renew it")
    found = find([component], [tmp_path], (), NOW)
    assert all(one.problem.isprintable() and one.file.isprintable() for one in found.findings)


@settings(max_examples=60, deadline=timedelta(seconds=10))
@given(st.binary(max_size=2000))
def test_any_bytes_as_a_zip_file_are_told_in_words(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.zip"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("A-1.json", json.dumps(advisory()))
        whole = buffer.getvalue()
        path.write_bytes(whole[: len(whole) // 2] + data + whole[len(whole) // 2 + len(data) // 2 :])
        osv.read([path], THING)


@pytest.mark.parametrize(
    "ecosystem, ordered",
    [
        (PYPI, ["1.0.dev1", "1.0a1", "1.0rc1", "1.0", "1.0.post1", "1.0.1", "1.10", "1!0.1"]),
        (GO, ["1.22.0-0", "1.22.0-rc.1", "v1.22.0-rc.2", "1.22.0", "1.22.2", "1.23", "v2.0.0+incompatible"]),
        (GO, ["0.0.0-20240101000000-0123456789ab", "0.0.0-20250101000000-0123456789ab", "0.1.0"]),
        ("Debian:13", ["1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1+deb13u1", "1.0-2", "1.10-1", "1:0.1-1"]),
    ],
)
def test_versions_are_ordered_as_their_ecosystem_does(ecosystem: str, ordered: list[str]) -> None:
    for first, second in itertools.pairwise(ordered):
        assert compare(ecosystem, first, second) < 0 < compare(ecosystem, second, first)
        assert compare(ecosystem, first, first) == 0


@pytest.mark.parametrize("ecosystem", [PYPI, GO, "Debian:13"])
@pytest.mark.parametrize("version", ["", "one two", "1.0;rm", "9" * 5000, "\n"])
def test_what_is_no_version_is_not_compared(ecosystem: str, version: str) -> None:
    with pytest.raises(ValueError):  # its own words, or those of Python
        if compare(ecosystem, version, "1") == compare(ecosystem, version, "2" * 6000):
            raise ValueError("too long")


def test_the_go_that_built_a_program_is_a_version_like_others() -> None:
    assert [of_toolchain(said) for said in ("go1.25.3", "go1.25", "go1.26rc1", "go1.24.4 X:nocoverageredesign")] == [
        "1.25.3",
        "1.25.0",
        "1.26.0-rc.1",
        "1.24.4",
    ]
    with pytest.raises(ValueError, match="is no version of Go"):
        of_toolchain("devel")


def test_a_release_has_the_name_that_advisories_give_it() -> None:
    assert [distribution(suite) for suite in ("bookworm", "trixie", "noble")] == [
        "Debian:12",
        "Debian:13",
        "Ubuntu:24.04:LTS",
    ]
    with pytest.raises(ValueError, match="duke"):
        distribution("duke")
