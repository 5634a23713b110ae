"""Which keys an import believes: what is signed is read once, one key is one key, lists that travel do what they say.

Keys and signatures are ssh-keygen's.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.local import signatures
from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, trust
from rtinfra.mirror.bundle import SIGNED, Bundle, make_bundle
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.importer import import_bundle, verify_bundle
from rtinfra.mirror.signing import PublicKey
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.trust import RefusedKey, TrustedKey
from tests.unit.bundle_site import (
    ARCHITECTURE,
    CREATED,
    NOW,
    PART_SIZE,
    Journey,
    carry,
    make_lock,
    snapshot,
    take,
)


def imported(mirror: Mirror, folder: Path, told: str | None = None, now: datetime = NOW) -> str:
    return import_bundle(mirror, folder, told=told, now=now, architecture=ARCHITECTURE).id


def why(mirror: Mirror, folder: Path, told: str | None = None, now: datetime = NOW) -> str:
    """Why a bundle is refused, by verify and import alike; nothing changes."""
    before = snapshot(mirror.root)
    with pytest.raises(MirrorError) as verified:
        verify_bundle(mirror, folder, told=told, now=now, architecture=ARCHITECTURE)
    with pytest.raises(MirrorError) as caught:
        import_bundle(mirror, folder, told=told, now=now, architecture=ARCHITECTURE)
    assert verified.value.message == caught.value.message
    assert snapshot(mirror.root) == before
    return caught.value.message


@pytest.fixture(scope="module")
def foreign(journey: Journey, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A good bundle of a stranger, newer than the owner's, which says that the owner's key is to be trusted too."""
    work = tmp_path_factory.mktemp("stranger")
    mirror = Mirror(work / "mirror")
    lock = make_lock(mirror.pool, work / "debs", created=CREATED + timedelta(hours=1))
    bundle_keys.signer(mirror, CREATED, Reporter())
    with (mirror.keys / "bundle_keys").open("a") as file:
        file.write(journey.full.signer.entry.line)
    return make_bundle(mirror, lock, part_size=PART_SIZE, now=CREATED)


# ---- read once --------------------------------------------------------------------------------------------


def test_what_is_renamed_after_it_was_verified_is_not_taken(
    journey: Journey, foreign: Bundle, closed: Mirror, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as a signature has been checked, the stranger's whole folder is in place of the owner's."""
    real, other = signatures.verify, stick.parent / "other"
    shutil.copytree(foreign.folder, other)
    exchanged = []

    def verify(shown: str, data: bytes, signature: bytes, signers: str, namespace: str) -> str:
        said = real(shown, data, signature, signers, namespace)
        if shown == SIGNED[-1]:
            stick.rename(stick.parent / "away")
            other.rename(stick)
            exchanged.append(shown)
        return said

    monkeypatch.setattr(signatures, "verify", verify)
    with pytest.raises(MirrorError):
        imported(closed, stick, journey.full.number)
    assert exchanged
    assert not closed.state().imported
    assert foreign.fingerprint not in str(trust.pinned(closed))


def test_renaming_back_and_forth_gets_nothing_of_a_stranger_in(
    journey: Journey, foreign: Bundle, closed: Mirror, stick: Path
) -> None:
    """Two folders change places all the time. Whatever is imported then is the owner's."""
    other, third, ended = carry(foreign, stick.parent / "other"), stick.parent / "third", threading.Event()

    def exchange() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                for name in ("manifest.json", "trusted_keys", "SHA256SUMS"):
                    (stick / name).rename(third)
                    (other / name).rename(stick / name)
                    third.rename(other / name)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with contextlib.suppress(MirrorError):
                imported(closed, stick, journey.full.number)
    finally:
        ended.set()
        thread.join()
    assert {entry.id for entry in closed.state().imported} <= {journey.full.manifest.id}
    assert {entry.key for entry in trust.pinned(closed)} <= {journey.full.signer.entry.key}


@pytest.mark.parametrize("name", ["bundle.signers", "manifest.json", "SHA256SUMS.sig", "trusted_keys", "part-0002"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused_by_name_and_nothing_waits(
    journey: Journey, closed: Mirror, stick: Path, name: str, kind: str
) -> None:
    path = stick / name
    path.rename(stick.parent / "elsewhere")
    if kind == "link":
        path.symlink_to(stick.parent / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert name in why(closed, stick, journey.full.number)


def test_a_file_without_end_is_not_read_to_its_end(journey: Journey, closed: Mirror, stick: Path) -> None:
    os.truncate(stick / "manifest.json", 1 << 40)
    assert why(closed, stick, journey.full.number).startswith("manifest.json has more than")


# ---- one key ----------------------------------------------------------------------------------------------

OURS, THEIRS = (PublicKey("AAAAC3NzaC1lZDI1NTE5AAAAI" + letter * 43) for letter in "AB")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        OURS.signers + THEIRS.signers,
        OURS.signers * 2,
        b"\n" + OURS.signers,
        OURS.signers + b"\n",
        OURS.signers.replace(b"\n", b"\r\n"),
        OURS.signers[:-1],
        OURS.signers + b"\0",
        b"#\n" + OURS.signers,
        OURS.signers.replace(b"rtinfra ", b"* "),
        OURS.signers.replace(b"rtinfra ", b"rtinfra,* "),
        OURS.signers.replace(b"namespaces", b"cert-authority,namespaces"),
        OURS.signers.replace(b"rtinfra-bundle", b"*"),
        OURS.signers.replace(b"\n", b" comment\n"),
        f"ssh-ed25519 {OURS.blob}\n".encode(),
        OURS.signers.replace(b"ssh-ed25519 ", b"ssh-ed25519  "),
        OURS.signers.decode().encode("utf-16"),
    ],
)
def test_a_signers_file_is_one_key_in_one_form(data: bytes) -> None:
    assert PublicKey.of_signers(OURS.signers, "x") == OURS
    with pytest.raises(MirrorError, match=r"bundle\.signers is not one line with one key"):
        PublicKey.of_signers(data, "bundle.signers")


def test_a_strangers_key_beside_the_owners_is_refused(
    journey: Journey, foreign: Bundle, closed: Mirror, tmp_path: Path
) -> None:
    folder = carry(foreign, tmp_path)
    key, other = journey.full.signer.entry.key, foreign.signer.entry.key
    for both in (key.signers + other.signers, f"ssh-ed25519 {key.blob} a\n* ssh-ed25519 {other.blob}\n".encode()):
        (folder / "bundle.signers").write_bytes(both)
        for told in (journey.full.number, journey.full.fingerprint, None):
            assert "is not one line with one key" in why(closed, folder, told)


@pytest.mark.parametrize("line", ["* ssh-ed25519 {}", 'rtinfra namespaces="*" ssh-ed25519 {}', "ssh-ed25519 {}", ""])
def test_what_was_added_to_the_pinned_keys_is_refused(
    journey: Journey, foreign: Bundle, closed: Mirror, stick: Path, line: str
) -> None:
    take(closed, stick, journey)
    with (closed.root / "trusted_bundle_key").open("a") as file:
        file.write(line.format(foreign.signer.entry.key.blob) + "\n")
    assert "trusted_bundle_key:2 is no trusted key" in why(closed, foreign.folder)


def test_the_pin_of_before_keys_had_an_end_is_good(journey: Journey, closed: Mirror, stick: Path) -> None:
    closed.root.mkdir()
    (closed.root / "trusted_bundle_key").write_bytes(journey.full.signer.entry.key.signers)
    assert imported(closed, stick) == journey.full.manifest.id


moments = st.datetimes(datetime(2000, 1, 1), datetime(2190, 1, 1)).map(
    lambda value: value.replace(microsecond=0, tzinfo=UTC)
)
keys = st.binary(min_size=32, max_size=32).map(
    lambda data: PublicKey(base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + data).decode())
)


@given(
    st.lists(
        st.builds(TrustedKey, keys, st.none() | moments, st.none() | moments), min_size=1, unique_by=lambda e: e.key
    )
)
def test_a_list_of_trusted_keys_is_read_as_it_is_written(entries: list[TrustedKey]) -> None:
    assert trust.parse_trusted(trust.trusted_text(tuple(entries)), "x") == tuple(entries)


prints = keys.map(lambda key: key.fingerprint)
refusals = st.builds(RefusedKey, st.just("bundle"), prints, st.dates(date(2000, 1, 1))) | st.builds(
    RefusedKey, st.just("repository"), st.text("0123456789ABCDEF", min_size=40, max_size=40), st.dates(date(2000, 1, 1))
)


@given(st.lists(refusals, unique_by=lambda entry: entry.fingerprint))
def test_a_list_of_refused_keys_is_read_as_it_is_written(entries: list[RefusedKey]) -> None:
    assert trust.parse_refused(trust.refused_text(tuple(entries)), "x") == tuple(sorted(entries))


@given(
    st.one_of(
        st.binary(),
        st.lists(
            st.sampled_from([OURS.signers, b"\n", b"\r", b"\0", b"\xff", b" ", b"bundle ", b"# ", b"2026-99-99"])
        ).map(b"".join),
    )
)
def test_other_lists_are_refused_in_words(data: bytes) -> None:
    for read in (trust.parse_trusted, trust.parse_refused):
        with contextlib.suppress(MirrorError):
            read(data, "x")


# ---- changing and refusing keys ---------------------------------------------------------------------------


OVERLAP = timedelta(days=60)


@pytest.fixture
def owner(journey: Journey, tmp_path: Path) -> Mirror:
    """The computer where bundles are made, with the key of the journey."""
    return Mirror(Path(shutil.copytree(journey.mirror.root, tmp_path / "owner")))


def bundle_of(owner: Mirror, journey: Journey, day: int) -> Bundle:
    """A bundle that is made `day` days after the first one."""
    lock = journey.lock.model_copy(update={"created": CREATED + timedelta(days=day), "valid_days": 900})
    return make_bundle(owner, lock, part_size=PART_SIZE, now=on(day))


def on(day: int) -> datetime:
    return CREATED + timedelta(days=day, hours=1)


def test_a_key_is_changed_with_an_overlap_and_nobody_has_to_telephone(
    journey: Journey, owner: Mirror, closed: Mirror, stick: Path
) -> None:
    take(closed, stick, journey)
    old = journey.full.signer.entry.key
    new = bundle_keys.rotate(owner, OVERLAP, on(10), Reporter()).key
    assert new != old
    # In the first half the old key signs, and brings the new one.
    made = bundle_of(owner, journey, 20)
    assert made.signer.entry.key == old
    imported(closed, made.folder, now=on(20))
    assert {entry.key for entry in trust.pinned(closed)} == {old, new}
    # In the second half the new one signs; what the old one signed is still taken.
    late, current = bundle_of(owner, journey, 39), bundle_of(owner, journey, 41)
    assert (late.signer.entry.key, current.signer.entry.key) == (old, new)
    imported(closed, late.folder, now=on(45))
    imported(closed, current.folder, now=on(46))
    # After the overlap nothing of the old one is.
    shutil.copytree(owner.root / "keys", owner.root.parent / "thief/keys")
    thief = Mirror(Path(shutil.copytree(owner.root / "pool", owner.root.parent / "thief/pool")).parent)
    (thief.root / "keys/bundle_keys").write_bytes(old.signers)
    stolen = bundle_of(thief, journey, 71)
    assert stolen.signer.entry.key == old
    assert f"the key {old.fingerprint} has ended at" in why(closed, stolen.folder, now=on(71))
    assert imported(closed, bundle_of(owner, journey, 72).folder, now=on(72))


def test_a_key_that_is_trusted_never_lives_longer_by_what_it_signs(
    journey: Journey, owner: Mirror, closed: Mirror, stick: Path
) -> None:
    take(closed, stick, journey)
    (end,) = (entry.until for entry in trust.pinned(closed))
    (owner.root / "keys/bundle_keys").write_bytes(journey.full.signer.entry.key.signers)
    imported(closed, bundle_of(owner, journey, 5).folder, now=on(5))
    assert [entry.until for entry in trust.pinned(closed)] == [end]


def test_a_stolen_key_is_refused_for_good(journey: Journey, owner: Mirror, closed: Mirror, stick: Path) -> None:
    take(closed, stick, journey)
    old = journey.full.signer.entry.key
    thief = Mirror(Path(shutil.copytree(owner.root, owner.root.parent / "thief")))
    new = bundle_keys.revoke(owner, old.fingerprint, on(10), Reporter())
    assert new is not None and new.key != old
    made = bundle_of(owner, journey, 10)
    assert f"but the key trusted here is {old.fingerprint}" in why(closed, made.folder, now=on(10))
    imported(closed, made.folder, new.key.number, now=on(10))
    assert [entry.key for entry in trust.pinned(closed)] == [new.key]
    # The thief's next bundle: not by the pin, not by its number, not by being newer.
    stolen = bundle_of(thief, journey, 20)
    for told in (None, old.number, old.fingerprint):
        assert f"signed by the key {old.fingerprint}, which is refused since 2026-03-11" in why(
            closed, stolen.folder, told, on(20)
        )
    # And a bundle without the list does not make it forgotten.
    (owner.root / "keys/refused_keys").unlink()
    imported(closed, bundle_of(owner, journey, 30).folder, now=on(30))
    assert [entry.fingerprint for entry in trust.refused_keys(closed)] == [old.fingerprint]


def test_a_key_made_known_before_takes_over_at_once_when_the_present_one_is_stolen(
    journey: Journey, owner: Mirror, closed: Mirror, stick: Path
) -> None:
    take(closed, stick, journey)
    new = bundle_keys.rotate(owner, OVERLAP, on(1), Reporter()).key
    imported(closed, bundle_of(owner, journey, 2).folder, now=on(2))
    taking_over = bundle_keys.revoke(owner, journey.full.fingerprint, on(3), Reporter())
    assert taking_over is not None and taking_over.key == new
    imported(closed, bundle_of(owner, journey, 3).folder, now=on(3))
    assert [entry.key for entry in trust.pinned(closed)] == [new]


def test_the_closed_side_refuses_a_key_by_itself(journey: Journey, closed: Mirror, stick: Path) -> None:
    take(closed, stick, journey)
    assert bundle_keys.revoke(closed, journey.full.fingerprint, NOW, Reporter()) is None
    assert trust.pinned(closed) == ()
    assert "which is refused since" in why(closed, stick, journey.full.number)
    assert not list((closed.root / "keys").glob("bundle*")), "no key is made where no bundles are"


def test_a_second_change_waits_for_the_first(owner: Mirror) -> None:
    bundle_keys.rotate(owner, OVERLAP, on(1), Reporter())
    with pytest.raises(MirrorError, match="takes over already"):
        bundle_keys.rotate(owner, OVERLAP, on(2), Reporter())
    bundle_keys.rotate(owner, OVERLAP, on(40), Reporter())
    assert len(bundle_keys.own_keys(owner)) == 3


def test_without_an_overlap_the_new_key_signs_at_once_and_the_old_one_is_gone(journey: Journey, owner: Mirror) -> None:
    new = bundle_keys.rotate(owner, timedelta(), on(1), Reporter())
    assert [entry.key for entry in bundle_keys.own_keys(owner)] == [new.key]
    assert bundle_of(owner, journey, 2).signer.entry.key == new.key


def test_an_ended_key_signs_nothing_and_what_to_do_is_said(journey: Journey, owner: Mirror) -> None:
    with pytest.raises(MirrorError) as error:
        bundle_of(owner, journey, 731)
    assert "no key signs bundles now" in error.value.message
    assert "rtinfra mirror keys rotate bundle" in error.value.next_step
    new = bundle_keys.rotate(owner, OVERLAP, on(731), Reporter())
    assert bundle_of(owner, journey, 732).signer.entry.key == new.key


def test_the_end_of_a_key_is_warned_about_where_bundles_are_taken(
    journey: Journey, closed: Mirror, stick: Path, owner: Mirror
) -> None:
    take(closed, stick, journey)
    made = bundle_of(owner, journey, 650)
    said = verify_bundle(closed, made.folder, now=on(650), architecture=ARCHITECTURE).warnings
    assert f"the key {journey.full.fingerprint} ends at 2028-02-29 12:00 UTC" in said[-1]
    bundle_keys.rotate(owner, OVERLAP, on(651), Reporter())
    made = bundle_of(owner, journey, 652)
    assert verify_bundle(closed, made.folder, now=on(652), architecture=ARCHITECTURE).warnings == ()


def test_a_lost_private_key_is_said_with_the_way_out(journey: Journey, owner: Mirror) -> None:
    (owner.root / "keys/bundle_ed25519").unlink()
    with pytest.raises(MirrorError) as error:
        bundle_of(owner, journey, 1)
    assert f"rtinfra mirror keys revoke {journey.full.fingerprint}" in error.value.next_step
    new = bundle_keys.revoke(owner, journey.full.fingerprint, on(1), Reporter())
    assert new is not None
    assert bundle_of(owner, journey, 2).signer.entry.key == new.key
