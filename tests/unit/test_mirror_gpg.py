"""The key that signs the repository: real gpg and gpgv."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

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
    assert gpg.verify(signed, key) == TEXT


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
            gpg.verify(signed, key)
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
