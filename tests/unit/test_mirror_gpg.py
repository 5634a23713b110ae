"""The key that signs the repository: real gpg and gpgv."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra import openpgp
from rtinfra.local.progress import Reporter
from rtinfra.mirror import gpg
from rtinfra.mirror.errors import MirrorError

WHEN = datetime(2026, 11, 1, 12, tzinfo=UTC)
TEXT = b"Origin: rtinfra\n- a line that begins with a dash\n"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> gpg.SigningKey:
    # Deeper than the path of an agent's socket may be.
    return gpg.signing_key(tmp_path_factory.mktemp("deep") / ("d" * 120), Reporter())


def packets(data: bytes, home: Path) -> str:
    command = ["gpg", "--homedir", home, "--list-packets"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode()


def test_a_key_is_made_once_and_only_its_owner_reads_it(key: gpg.SigningKey) -> None:
    assert gpg.signing_key(key.home.parent, Reporter()) == key
    assert key.home.stat().st_mode & 0o777 == 0o700
    assert not [path for path in key.home.parent.iterdir() if path != key.home]


def test_key_and_signature_are_what_todays_verifiers_accept(key: gpg.SigningKey, tmp_path: Path) -> None:
    shown = packets(key.public, tmp_path)
    # 22 is EdDSA, 10 is SHA-512 (RFC 4880, 9); the self-signature is the only one.
    assert ":public key packet:\n\tversion 4, algo 22," in shown
    assert shown.count(":signature packet:") == shown.count("digest algo 10,") == 1
    assert b"\nHash: SHA512\n" in key.clearsign(TEXT, WHEN)


def test_the_same_text_signed_twice_is_the_same_bytes(key: gpg.SigningKey) -> None:
    assert key.clearsign(TEXT, WHEN) == key.clearsign(TEXT, WHEN)
    assert key.clearsign(TEXT, WHEN) != key.clearsign(TEXT, WHEN.replace(hour=13))


def test_what_is_signed_comes_back_the_same(key: gpg.SigningKey, tmp_path: Path) -> None:
    signed = tmp_path / "InRelease"
    signed.write_bytes(key.clearsign(TEXT, WHEN))
    assert gpg.verify(signed.read_bytes(), signed, key) == TEXT


def test_what_is_not_signed_by_us_is_refused_with_both_fingerprints(key: gpg.SigningKey, tmp_path: Path) -> None:
    other = gpg.signing_key(tmp_path / "other", Reporter())
    signed = tmp_path / "InRelease"
    ours = key.clearsign(TEXT, WHEN)
    for data, message in {
        TEXT: "is not signed",
        other.clearsign(TEXT, WHEN): f"is signed by another key: {other.fingerprint}",
        ours.replace(b"rtinfra", b"somebody"): "was changed after it was signed",
    }.items():
        signed.write_bytes(data)
        with pytest.raises(MirrorError) as caught:
            gpg.verify(signed.read_bytes(), signed, key)
        assert f"{message}; the key of this mirror is {key.fingerprint}" in str(caught.value)


def test_half_a_key_is_refused(tmp_path: Path) -> None:
    key = gpg.signing_key(tmp_path, Reporter())
    for path in (key.home / "private-keys-v1.d").iterdir():
        path.unlink()
    with pytest.raises(MirrorError, match=r"signing key in .* is damaged"):
        gpg.signing_key(tmp_path, Reporter())


def test_a_time_before_the_key_is_refused(key: gpg.SigningKey) -> None:
    with pytest.raises(MirrorError, match="nothing can be signed as of 1970-01-01 00:00:00 UTC"):
        key.clearsign(TEXT, datetime(1970, 1, 1, tzinfo=UTC))


# ---- changing it ------------------------------------------------------------------------------------------

DAY = timedelta(days=1)


def signed_by(data: bytes, ring: bytes, work: Path) -> bool:
    """Whether a client's keys vouch for a clear-signed text: one good signature is enough for apt."""
    (work / "ring").write_bytes(openpgp.dearmoured(ring))
    (work / "signed").write_bytes(data)
    command = ["gpgv", "--status-fd", "1", "--keyring", str(work / "ring"), str(work / "signed")]
    said = subprocess.run(command, capture_output=True, check=False).stdout
    return b"] GOODSIG " in said and b"] BADSIG " not in said


def test_a_change_of_keys_overlaps(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    old = gpg.signing_key(keys, Reporter(), WHEN)
    both = gpg.rotate(keys, 30 * DAY, WHEN, Reporter())
    assert both.fingerprints[1:] == old.fingerprints and both.fingerprint != old.fingerprint
    assert both.public.count(b"BEGIN PGP PUBLIC KEY BLOCK") == 1
    assert openpgp.fingerprints(both.public) in (both.fingerprints, both.fingerprints[::-1])
    after = gpg.signing_key(keys, Reporter(), WHEN + 31 * DAY)
    assert after.fingerprints == both.fingerprints[:1]
    # Hosts that have the old key, both, or the new one alone take what is signed in the overlap.
    signed = both.clearsign(TEXT, WHEN)
    assert signed == both.clearsign(TEXT, WHEN)
    assert signed_by(signed, both.public, tmp_path) and signed_by(signed, after.public, tmp_path)
    assert gpg.verify(signed, tmp_path / "InRelease", both) == TEXT
    # After it nothing of the old key is taken.
    later = after.clearsign(TEXT, WHEN + 31 * DAY)
    assert signed_by(later, both.public, tmp_path) and not signed_by(later, old.public, tmp_path)
    with pytest.raises(MirrorError, match="is signed by"):
        gpg.verify(signed, tmp_path / "InRelease", after)


def test_a_second_change_waits_for_the_first_and_then_forgets_the_oldest(tmp_path: Path) -> None:
    first = gpg.signing_key(tmp_path, Reporter(), WHEN)
    second = gpg.rotate(tmp_path, 30 * DAY, WHEN, Reporter())
    with pytest.raises(MirrorError, match="takes over already"):
        gpg.rotate(tmp_path, 30 * DAY, WHEN + DAY, Reporter())
    third = gpg.rotate(tmp_path, 30 * DAY, WHEN + 31 * DAY, Reporter())
    assert third.fingerprints[1] == second.fingerprint
    assert first.fingerprint not in gpg.known_keys(third.home)
    assert [path.name for path in tmp_path.iterdir()] == ["repository-2"]


def test_without_an_overlap_the_old_key_is_gone_at_once(tmp_path: Path) -> None:
    old = gpg.signing_key(tmp_path, Reporter(), WHEN)
    new = gpg.rotate(tmp_path, timedelta(), WHEN, Reporter())
    assert len(new.fingerprints) == 1 and new.fingerprint != old.fingerprint
    gpg.rotate(tmp_path, DAY, WHEN, Reporter())
    last = gpg.rotate(tmp_path, timedelta(), WHEN + 2 * DAY, Reporter())
    assert list(gpg.known_keys(last.home)) == [last.fingerprint]


def test_what_a_power_cut_left_of_an_earlier_key_goes_with_the_next_change(tmp_path: Path) -> None:
    old = gpg.signing_key(tmp_path, Reporter(), WHEN)
    shutil.copytree(old.home, kept := tmp_path.parent / "kept")
    new = gpg.rotate(tmp_path, DAY, WHEN, Reporter())
    kept.rename(tmp_path / "repository")
    assert gpg.signing_key(tmp_path, Reporter(), WHEN) == new
    gpg.revoke(tmp_path, old.fingerprint, WHEN, Reporter())
    assert [path.name for path in tmp_path.iterdir()] == ["repository-2"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_stolen_key_is_gone_at_once_with_its_private_half(tmp_path: Path, which: int) -> None:
    gpg.signing_key(tmp_path, Reporter(), WHEN)
    both = gpg.rotate(tmp_path, 30 * DAY, WHEN, Reporter())
    stolen, kept = both.fingerprints[which], both.fingerprints[1 - which]
    after = gpg.revoke(tmp_path, stolen, WHEN + DAY, Reporter())
    assert after is not None
    assert stolen not in after.fingerprints and kept in after.fingerprints
    assert len(after.fingerprints) == 2 - which
    assert len(list(after.home.glob("private-keys-v1.d/*.key"))) == len(after.fingerprints)
    assert after.clearsign(TEXT, WHEN)


def test_where_nothing_is_signed_no_key_is_made(tmp_path: Path) -> None:
    assert gpg.revoke(tmp_path, "0" * 40, WHEN, Reporter()) is None
    assert not list(tmp_path.iterdir())


def test_fingerprints_are_those_that_gpg_shows(key: gpg.SigningKey) -> None:
    assert openpgp.fingerprints(key.public) == key.fingerprints


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"more",
        lambda text: b"# a comment\n" + text,
        lambda text: text.replace(b"PUBLIC", b"PRIVATE"),
        lambda text: text[:200],
        lambda text: b"",
        lambda text: text.replace(b"\n\n", b"\n\n!!!!\n"),
        lambda text: text.replace(b"\n\n", b"\n\nxVgE\n"),
    ],
)
def test_a_key_file_with_anything_else_in_it_is_refused(key: gpg.SigningKey, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        openpgp.fingerprints(change(key.public))


@given(st.binary(max_size=300))
def test_any_packets_are_read_or_refused_in_words(data: bytes) -> None:
    body = base64.encodebytes(data)
    text = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + body + b"-----END PGP PUBLIC KEY BLOCK-----\n"
    with contextlib.suppress(ValueError):
        assert all(len(one) == 40 for one in openpgp.fingerprints(text))
