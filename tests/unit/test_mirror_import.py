"""Taking bundles in: everything broken on purpose is refused by name, and interrupting harms nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from rtinfra.local import programs
from rtinfra.local.progress import Reporter
from rtinfra.mirror import signing
from rtinfra.mirror.bundle import Bundle, make_bundle
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.importer import import_bundle, verify_bundle
from rtinfra.mirror.model import lock_content
from rtinfra.mirror.store import Mirror
from tests.unit.bundle_site import (
    ARCHITECTURE,
    CREATED,
    NOW,
    PART_SIZE,
    VALID_DAYS,
    Journey,
    carry,
    chosen,
    count_syncs,
    flip,
    killed_at,
    make_lock,
    snapshot,
    take,
)


def refused(mirror: Mirror, folder: Path, **options: object) -> MirrorError:
    """Why verify and import refuse a bundle: both for the same reason, and neither changes anything."""
    settings = {"now": NOW, "architecture": ARCHITECTURE, **options}
    before = snapshot(mirror.root)
    with pytest.raises(MirrorError) as verified:
        verify_bundle(mirror, folder, **settings)  # type: ignore[arg-type]
    assert mirror.root.exists() == bool(before), "checking made the mirror's folder"
    with pytest.raises(MirrorError) as imported:
        import_bundle(mirror, folder, **settings)  # type: ignore[arg-type]
    assert imported.value.message == verified.value.message
    assert snapshot(mirror.root) == before
    return imported.value


# ---- the journey ------------------------------------------------------------------------------------------


def test_a_bundle_and_then_its_difference_bring_everything(journey: Journey, closed: Mirror, tmp_path: Path) -> None:
    full, delta = (carry(made, tmp_path / "stick") for made in (journey.full, journey.delta))
    first = take(closed, full, journey)
    assert (first.state, first.added, first.warnings) == ("imported", len(journey.full.manifest.contents), ())
    for content in (lock_content(journey.lock)[0], *journey.lock.contents()):
        closed.pool.verify(content)

    # From now on the key is known.
    checked = verify_bundle(closed, delta, now=NOW, architecture=ARCHITECTURE)
    second = import_bundle(closed, delta, now=NOW, architecture=ARCHITECTURE)
    assert (checked.state, second.state, checked.added, second.added) == ("new", "imported", 3, 3)
    assert second.fingerprint == journey.full.fingerprint
    for content in (lock_content(journey.next_lock)[0], *journey.next_lock.contents()):
        closed.pool.verify(content)
    assert [entry.id for entry in closed.state().imported] == [journey.full.manifest.id, journey.delta.manifest.id]


def test_repeating_an_import_changes_nothing_and_says_so(journey: Journey, closed: Mirror, stick: Path) -> None:
    take(closed, stick, journey)
    before = snapshot(closed.root)
    again = import_bundle(closed, stick, now=NOW, architecture=ARCHITECTURE)
    assert (again.state, again.added) == ("known", 0)
    assert snapshot(closed.root) == before


def test_repeating_an_import_brings_back_what_was_lost(journey: Journey, closed: Mirror, stick: Path) -> None:
    take(closed, stick, journey)
    before = snapshot(closed.root)
    closed.pool.path(journey.lock.wheels[0].sha256).unlink()
    again = import_bundle(closed, stick, now=NOW, architecture=ARCHITECTURE)
    assert (again.state, again.added) == ("imported", 1)
    assert snapshot(closed.root) == before


def test_checking_changes_nothing(journey: Journey, closed: Mirror, stick: Path) -> None:
    before = snapshot(stick)
    report = verify_bundle(closed, stick, told=journey.full.number, now=NOW, architecture=ARCHITECTURE)
    assert report.state == "new"
    assert report.to_json()["id"] == journey.full.manifest.id
    assert not closed.root.exists()
    assert snapshot(stick) == before


def test_who_made_a_bundle_can_check_it_without_naming_a_key(journey: Journey) -> None:
    assert verify_bundle(journey.mirror, journey.full.folder, now=NOW, architecture=ARCHITECTURE).state == "new"


def test_little_time_left_is_warned_about(journey: Journey, closed: Mirror, stick: Path) -> None:
    late = CREATED + timedelta(days=VALID_DAYS - 10)
    report = import_bundle(closed, stick, told=journey.full.number, now=late, architecture=ARCHITECTURE)
    assert report.warnings[0].startswith(
        f"bundle {journey.full.manifest.id} expires in 10 days, at 2026-05-30 12:00:00"
    )
    assert "rtinfra mirror lock" in report.warnings[0]


# ---- whose bundle it is -----------------------------------------------------------------------------------


def test_without_a_trusted_key_nothing_is_imported(journey: Journey, closed: Mirror, stick: Path) -> None:
    error = refused(closed, stick)
    assert error.message == f"no key is trusted here yet; the bundle brings the key {journey.full.fingerprint}"
    assert "ask whoever made the bundle for the number of its key, on another way" in error.next_step
    assert journey.full.number not in error.next_step


def test_a_key_that_is_not_the_one_told_is_refused_with_both(journey: Journey, closed: Mirror, stick: Path) -> None:
    told = "SHA256:" + "A" * 43
    error = refused(closed, stick, told=told)
    assert error.message == f"the bundle brings the key {journey.full.fingerprint}, but the key given is {told}"


@pytest.fixture
def stranger(tmp_path: Path) -> Bundle:
    """A good bundle that somebody else made."""
    mirror = Mirror(tmp_path / "stranger")
    lock = make_lock(mirror.pool, tmp_path / "strange", created=CREATED + timedelta(days=2))
    return make_bundle(mirror, lock, part_size=PART_SIZE)


def test_a_wrong_key_is_refused_with_both_fingerprints(
    journey: Journey, closed: Mirror, stick: Path, stranger: Bundle
) -> None:
    take(closed, stick, journey)
    error = refused(closed, stranger.folder)
    assert error.message == (
        f"the bundle is signed by the key {stranger.fingerprint},"
        f" but the key trusted here is {journey.full.fingerprint}"
    )


def test_a_public_key_that_was_exchanged_does_not_help(
    journey: Journey, closed: Mirror, stick: Path, stranger: Bundle
) -> None:
    shutil.copy(stick / "bundle.signers", stranger.folder)
    error = refused(closed, stranger.folder, told=journey.full.number)
    assert stranger.fingerprint in error.message and journey.full.fingerprint in error.message


def test_a_new_key_is_taken_when_its_fingerprint_is_given(
    journey: Journey, closed: Mirror, stick: Path, stranger: Bundle
) -> None:
    take(closed, stick, journey)
    import_bundle(closed, stranger.folder, told=stranger.number, now=NOW, architecture=ARCHITECTURE)
    assert stranger.fingerprint in refused(closed, stick).message


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS"])
def test_unsigned_is_refused(journey: Journey, closed: Mirror, stick: Path, name: str) -> None:
    (stick / f"{name}.sig").unlink()
    error = refused(closed, stick, told=journey.full.number)
    assert error.message == f"{name} is not signed: {name}.sig is missing"


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "manifest.json.sig"])
def test_a_changed_manifest_or_signature_is_refused(journey: Journey, closed: Mirror, stick: Path, name: str) -> None:
    flip(stick / name, 200)
    error = refused(closed, stick, told=journey.full.number)
    assert "is not what was signed, or its signature is damaged" in error.message
    assert error.message.startswith(name.removesuffix(".sig"))


def test_a_signature_for_something_else_is_worth_nothing(journey: Journey, closed: Mirror, stick: Path) -> None:
    shutil.copy(stick / "SHA256SUMS.sig", stick / "manifest.json.sig")
    error = refused(closed, stick, told=journey.full.number)
    assert "manifest.json is not what was signed" in error.message


def test_the_same_key_used_for_something_else_signs_no_bundle(journey: Journey, closed: Mirror, stick: Path) -> None:
    (stick / "manifest.json.sig").unlink()
    key = journey.mirror.keys / "bundle_ed25519"
    programs.execute(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "file", stick / "manifest.json"], timeout=30)
    error = refused(closed, stick, told=journey.full.number)
    assert "manifest.json is not what was signed" in error.message


def test_a_folder_without_a_manifest_is_no_bundle(closed: Mirror, tmp_path: Path) -> None:
    assert "is no bundle: it has no manifest.json" in refused(closed, tmp_path).message


def test_a_bundle_of_a_newer_rtinfra_is_refused(journey: Journey, closed: Mirror, stick: Path) -> None:
    text = (stick / "manifest.json").read_text()
    (stick / "manifest.json").write_text(text.replace('"format":1', '"format":2'))
    signing.sign(journey.mirror.keys / "bundle_ed25519", stick / "manifest.json")
    error = refused(closed, stick, told=journey.full.number)
    assert error.message == "manifest.json has format 2, this rtinfra reads format 1"


# ---- what is in the folder --------------------------------------------------------------------------------


def test_an_extra_file_is_named(journey: Journey, closed: Mirror, stick: Path) -> None:
    (stick / "autorun.inf").touch()
    (stick / "more").mkdir()
    error = refused(closed, stick, told=journey.full.number)
    assert error.message.endswith("has files that its manifest does not list: autorun.inf, more")


def test_a_link_is_not_taken_for_a_file(journey: Journey, closed: Mirror, stick: Path) -> None:
    (stick / "part-0001").rename(stick.parent / "elsewhere")
    (stick / "part-0001").symlink_to(stick.parent / "elsewhere")
    assert "part-0001" in refused(closed, stick, told=journey.full.number).message


def test_missing_files_are_named_and_only_they_are_asked_for(journey: Journey, closed: Mirror, stick: Path) -> None:
    (stick / "part-0002").unlink()
    (stick / "install.sh").unlink()
    error = refused(closed, stick, told=journey.full.number)
    assert error.message.endswith("is incomplete, missing: install.sh, part-0002")
    assert error.next_step == "only this has to be carried again: install.sh, part-0002"


def test_a_truncated_part_is_named_by_its_size(journey: Journey, closed: Mirror, stick: Path) -> None:
    part = stick / "part-0003"
    part.write_bytes(part.read_bytes()[:-1000])
    error = refused(closed, stick, told=journey.full.number)
    assert error.message == f"part-0003 is truncated: it has {PART_SIZE - 1000} bytes, {PART_SIZE} are expected"
    assert error.next_step == "only this file has to be carried again: part-0003"


def test_all_bad_parts_are_named_at_once(journey: Journey, closed: Mirror, stick: Path) -> None:
    flip(stick / "part-0002", 4321)
    with (stick / "part-0004").open("ab") as file:
        file.write(b"more")
    flip(stick / "README.txt", 5)
    error = refused(closed, stick, told=journey.full.number)
    assert "part-0002 is damaged: its sha256 is" in error.message
    assert "part-0004 is too long" in error.message
    assert error.next_step == "only these files have to be carried again: part-0002, part-0004, README.txt"


def test_only_the_bad_part_has_to_be_carried_again(journey: Journey, closed: Mirror, stick: Path) -> None:
    flip(stick / "part-0002", 0)
    refused(closed, stick, told=journey.full.number)
    shutil.copy(journey.full.folder / "part-0002", stick)
    assert take(closed, stick, journey).state == "imported"


def test_what_the_shell_reads_must_say_the_same(journey: Journey, closed: Mirror, stick: Path) -> None:
    text = stick / "manifest.txt"
    text.write_text(text.read_text().replace("architecture amd64", "architecture arm64"))
    error = refused(closed, stick, told=journey.full.number)
    assert error.message == "manifest.txt does not say the same as manifest.json"


# ---- when, where, in which order --------------------------------------------------------------------------


def test_an_expired_bundle_is_refused_and_how_to_make_a_new_one_is_said(
    journey: Journey, closed: Mirror, stick: Path
) -> None:
    late = CREATED + timedelta(days=VALID_DAYS)
    error = refused(closed, stick, told=journey.full.number, now=late)
    assert error.message.endswith("expired at 2026-05-30 12:00:00 UTC; it is now 2026-05-30 12:00:00 UTC")
    assert "`rtinfra mirror lock`, then `fetch`, then `bundle`" in error.next_step


def test_a_clock_behind_the_bundle_is_refused_with_both_times(journey: Journey, closed: Mirror, stick: Path) -> None:
    early = CREATED - timedelta(days=400)
    error = refused(closed, stick, told=journey.full.number, now=early)
    assert "was made at 2026-03-01 12:00:00 UTC, but this computer's clock says 2025-01-25 12:00:00" in error.message
    assert "date --utc --set" in error.next_step


def test_an_older_bundle_is_refused(journey: Journey, closed: Mirror, tmp_path: Path, stick: Path) -> None:
    take(closed, stick, journey)
    import_bundle(closed, journey.delta.folder, now=NOW, architecture=ARCHITECTURE)
    error = refused(closed, stick)
    assert error.message == (
        f"bundle {journey.full.manifest.id} is not newer than {journey.delta.manifest.id}, which was imported last"
    )
    assert "rtinfra mirror rollback" in error.next_step


def test_a_difference_before_its_base_is_refused(journey: Journey, closed: Mirror) -> None:
    error = refused(closed, journey.delta.folder, told=journey.full.number)
    assert error.message.endswith(
        f"only brings what is new since {journey.full.manifest.id}, and nothing has been imported here"
    )
    assert f"import bundle {journey.full.manifest.id} first" in error.next_step


def test_a_difference_to_something_else_is_refused(
    journey: Journey, closed: Mirror, tmp_path: Path, stranger: Bundle
) -> None:
    import_bundle(closed, stranger.folder, told=stranger.number, now=NOW, architecture=ARCHITECTURE)
    lock = make_lock(journey.mirror.pool, tmp_path / "third", created=CREATED + timedelta(days=2, hours=1), hello="3")
    made = make_bundle(journey.mirror, lock, base=journey.full.manifest.id, part_size=PART_SIZE)
    error = refused(closed, made.folder, told=made.number)
    assert f"the last one imported here is {stranger.manifest.id}" in error.message
    assert f"--base {stranger.manifest.id}" in error.next_step


def test_content_that_a_difference_needs_and_is_gone_is_named(journey: Journey, closed: Mirror, stick: Path) -> None:
    take(closed, stick, journey)
    closed.pool.path(journey.lock.wheels[0].sha256).unlink()
    error = refused(closed, journey.delta.folder)
    assert error.message.endswith("but this is no longer here: six-1.17.0-py2.py3-none-any.whl")
    assert f"import bundle {journey.full.manifest.id} again" in error.next_step


def test_another_architecture_is_refused(journey: Journey, closed: Mirror, stick: Path) -> None:
    error = refused(closed, stick, told=journey.full.number, architecture="arm64")
    assert error.message.endswith("is for the architecture amd64, this computer is arm64")


def test_a_disk_that_is_too_small_is_refused(
    journey: Journey, closed: Mirror, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed.pool.add_bytes(*lock_content(journey.lock))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 5000, 5000))
    error = refused(closed, stick, told=journey.full.number)
    assert "not enough disk space for the contents of the bundle" in error.message
    assert "0 MB free, 1 MB are needed" in error.message


def test_a_disk_that_becomes_full_leaves_nothing_half_and_the_next_import_goes_on(
    journey: Journey, closed: Mirror, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = iter(range(8))
    real = os.fsync

    def fills_up(number: int) -> None:
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    with monkeypatch.context() as patch, pytest.raises(MirrorError, match=r"the disk of .* became full"):
        patch.setattr(os, "fsync", fills_up)
        take(closed, stick, journey)
    assert not closed.state().imported
    assert not list(closed.root.rglob(".new-*"))
    assert 0 < take(closed, stick, journey).added < len(journey.full.manifest.contents)


class PullsOut(Reporter):
    """Pulls the stick out while contents are imported."""

    def __init__(self, part: Path) -> None:
        self._part = part

    @contextmanager
    def transfer(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Take a part away when the importing begins."""
        if text.startswith("Importing"):
            self._part.unlink()
        yield lambda count: None


def test_a_stick_that_is_pulled_out_is_said_and_the_next_import_goes_on(
    journey: Journey, closed: Mirror, stick: Path
) -> None:
    with pytest.raises(MirrorError) as error:
        import_bundle(
            closed,
            stick,
            told=journey.full.number,
            now=NOW,
            architecture=ARCHITECTURE,
            report=PullsOut(stick / "part-0004"),
        )
    assert error.value.message == "part-0004 can no longer be read: No such file or directory"
    shutil.copy(journey.full.folder / "part-0004", stick)
    assert 0 < take(closed, stick, journey).added < len(journey.full.manifest.contents)


# ---- interrupted ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_anywhere_the_next_import_completes_the_same(
    journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Mirror(tmp_path / "undisturbed")

    def both(mirror: Mirror) -> None:
        take(mirror, journey.full.folder, journey)
        import_bundle(mirror, journey.delta.folder, now=NOW, architecture=ARCHITECTURE)

    total = count_syncs(monkeypatch, lambda: both(undisturbed))
    expected = snapshot(undisturbed.root)
    for moment in chosen(total, 10):
        mirror = Mirror(tmp_path / f"killed-{moment}")
        (mirror.published / "1").mkdir(parents=True)
        mirror.current.symlink_to("1")
        killed_at(moment, lambda mirror=mirror: both(mirror))  # type: ignore[misc]
        assert mirror.current.readlink() == Path("1"), "what is served was touched"
        for path in mirror.pool.everything():
            assert hash_of(path) == path.name, "something half is in the pool"
        if len(mirror.state().imported) < 2:
            take_all(mirror, journey)
        assert snapshot(mirror.root) == expected, f"killed at {moment} of {total}"


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def take_all(mirror: Mirror, journey: Journey) -> None:
    """What an operator does after an interruption: the same again."""
    if not mirror.state().imported:
        take(mirror, journey.full.folder, journey)
    import_bundle(mirror, journey.delta.folder, now=NOW, architecture=ARCHITECTURE)


def test_contents_that_an_interrupted_import_brought_are_not_read_again(
    journey: Journey, closed: Mirror, stick: Path
) -> None:
    contents = random.Random(6).sample(journey.lock.contents(), 4)
    for content in contents:
        closed.pool.add_bytes(content, journey.mirror.pool.read(content.sha256))
    report = take(closed, stick, journey)
    assert report.added == len(journey.full.manifest.contents) - 4
