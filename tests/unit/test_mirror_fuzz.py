"""Bundles with anything at all in them, signed or not: taken or refused in words, never a traceback, never a hang."""

from __future__ import annotations

import contextlib
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtinfra.local.errors import LocalError
from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, signing
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.importer import verify_bundle
from rtinfra.mirror.model import Carried, Manifest, canonical, read_document
from rtinfra.mirror.store import Mirror
from tests.unit.bundle_site import ARCHITECTURE, NOW, Journey, carry, signed_again
from tests.unit.test_mirror_import_inside import replaced


@pytest.mark.parametrize("field", ["id", "base", "suite", "architecture", "name"])
def test_a_line_break_writes_no_line_into_the_list_for_a_shell(journey: Journey, field: str) -> None:
    plain = journey.full.manifest.to_json()
    (plain["contents"][0] if field == "name" else plain)[field] = "x\nfile 0 0 inside rtinfra-0.tar"
    with pytest.raises(MirrorError, match=rf"manifest\.json is wrong at .*{field}"):
        read_document(Manifest, canonical(plain), "manifest.json")


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x85", "\u2028", ""])
def test_names_of_contents_are_one_line(character: str) -> None:
    with pytest.raises(ValueError, match="is empty, or has a line break"):
        Carried(sha256="0" * 64, size=1, kind="file", name=character and f"a{character}b", inside=True)


@pytest.mark.parametrize("depth", [1_000, 100_000, 1_000_000])
def test_a_deeply_nested_signed_manifest_is_refused_in_words(
    journey: Journey, closed: Mirror, stick: Path, depth: int
) -> None:
    (stick / "manifest.json").write_text('{"format":1,"id":' + "[" * depth + "]" * depth + "}")
    signing.sign(bundle_keys.signer(journey.mirror, NOW, Reporter()).private, stick / "manifest.json")
    with pytest.raises(MirrorError, match=r"manifest\.json is"):
        verify_bundle(closed, stick, told=journey.full.number, now=NOW, architecture=ARCHITECTURE)


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
odd = plain_json | st.sampled_from(
    [10**400, -1, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "../../etc/passwd", "a\nb", 1e308, "\ud800"]
)


@settings(max_examples=40, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_signed_manifest_is_taken_or_refused_in_words(
    journey: Journey, tmp_path: Path, data: st.DataObject
) -> None:
    """A manifest of the owner's in which some value is anything at all. Never a traceback, never a hang."""
    plain: dict[str, Any] = journey.full.manifest.to_json()
    place = data.draw(st.sampled_from([plain, plain["contents"][3], plain["parts"][0], plain["files"][0]]))
    place[data.draw(st.sampled_from([*sorted(place), "more"]))] = data.draw(odd)
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    carry(journey.full, folder)
    (stick,) = folder.iterdir()
    with contextlib.suppress(MirrorError):
        manifest = read_document(Manifest, canonical(plain), "manifest.json")
        signed_again(journey.mirror, stick, manifest)
        verify_bundle(Mirror(folder / "closed"), stick, told=journey.full.number, now=NOW, architecture=ARCHITECTURE)


@settings(max_examples=60, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_bundle_with_anything_in_any_file_is_refused_in_words(
    journey: Journey, tmp_path: Path, data: st.DataObject
) -> None:
    """A file of the bundle is cut, lengthened, or has other bytes somewhere: refused, in words and soon."""
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    stick = carry(journey.full, folder)
    path = stick / data.draw(st.sampled_from(sorted(path.name for path in stick.iterdir())))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    changed = data.draw(
        st.one_of(
            st.just(whole[:at]),
            st.binary(max_size=600).map(lambda more: whole[:at] + more + whole[at:]),
            st.binary(max_size=600).map(lambda more: whole[:at] + more + whole[at + len(more) :]),
        )
    )
    path.write_bytes(changed)
    options: dict[str, Any] = {"told": journey.full.number, "now": NOW, "architecture": ARCHITECTURE}
    if changed == whole:
        return
    mirror = Mirror(folder / "closed")
    # A signature in other words may be as good; whatever else was changed is not.
    with contextlib.nullcontext() if path.suffix == ".sig" else pytest.raises(LocalError):
        try:
            verify_bundle(mirror, stick, **options)
        except MirrorError:
            if path.suffix != ".sig":
                raise


headers = st.binary(min_size=512, max_size=512)


@settings(max_examples=60, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_archive_that_was_signed_for_is_refused_in_words(
    journey: Journey, tmp_path: Path, data: st.DataObject
) -> None:
    """Only those could make it who have the key: headers of any kind among the members."""
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    stick = carry(journey.full, folder)
    whole = b"".join((stick / part.file).read_bytes() for part in journey.full.manifest.parts)
    at = data.draw(st.integers(0, len(whole) // 512 - 1)) * 512
    kind = data.draw(st.sampled_from(b"\x0001234567gxKLSDVMN"))
    header = bytearray(whole[:512])
    header[156], size = kind, data.draw(st.sampled_from([b"0" * 11, b"7" * 11, b"00000001000", b"\x80" + b"\xff" * 10]))
    header[124:135] = size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    put = data.draw(st.sampled_from([bytes(header), data.draw(headers)]))
    archive = whole[:at] + put + whole[at + data.draw(st.sampled_from([0, 512])) :]
    replaced(journey, stick, archive)
    with contextlib.suppress(MirrorError):
        verify_bundle(Mirror(folder / "closed"), stick, told=journey.full.number, now=NOW, architecture=ARCHITECTURE)
