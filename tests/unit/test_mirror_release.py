"""Releases: published whole or not at all, under a date that only grows, cleaned up after a cut."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rtinfra.local.progress import Reporter
from rtinfra.mirror import audit, release, upkeep
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Lock, lock_content
from rtinfra.mirror.store import Mirror
from tests.unit.mirror_site import CREATED, Site, site

NOW = CREATED + timedelta(days=1)
DAY = timedelta(days=1)


class Notes(Reporter):
    """Keeps what a person would be told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def full_lock(here: Site) -> Lock:
    packages = [here.package("first"), here.package("second", depends="first")]
    return here.imported(
        here.lock(packages, [here.image("hello", "1.2", "hello")], [here.wheel("some-thing")], CREATED)
    )


def newer_lock(here: Site) -> Lock:
    packages = [here.package("first", "2.0-1"), here.package("third")]
    return here.imported(
        here.lock(packages, [here.image("hello", "1.3", "bye")], [here.wheel("some-thing", text="x")], CREATED + DAY)
    )


def publish(here: Site, which: str | None = None, **options: Any) -> release.Publication:
    return release.publish(here.mirror, which, **{"now": NOW, "report": Reporter(), **options})


def rollback(here: Site, to: str | None = None, **options: Any) -> release.Publication:
    return release.rollback(here.mirror, to, **{"now": NOW, "report": Reporter(), **options})


def findings(here: Site, now: Any = NOW) -> list[str]:
    return [f"{found.file}: {found.problem}" for found in audit.audit(here.mirror, now=now, report=Reporter())]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, mode and time of every generated file, and of every folder its mode.

    The sockets of gpg's agent are left out: they are there until it has noticed that nobody needs it any more.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if not path.name.startswith("S.gpg-agent")):
        name, about = str(path.relative_to(folder)), path.stat()
        if path.is_dir():
            found[name] = (b"", about.st_mode, 0)
        else:
            found[name] = (path.read_bytes(), about.st_mode, int(about.st_mtime) if about.st_nlink == 1 else 0)
    return found


# ---- what a release is ------------------------------------------------------------------------------------


def test_a_release_is_complete_readable_by_all_and_shares_its_files_with_the_pool(here: Site) -> None:
    lock = full_lock(here)
    old_mask = os.umask(0o077)
    try:
        done = publish(here)
    finally:
        os.umask(old_mask)
    assert done.changed
    live = here.mirror.current
    assert str(live.readlink()) == done.release.name == f"20261101T120000Z-{lock.id}"
    assert here.mirror.published.stat().st_mode & 0o777 == 0o755
    for path in live.resolve().rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    package = next((live / "apt/pool").rglob("first_1.0-1_amd64.deb"))
    assert package.samefile(here.mirror.pool.path(lock.packages[0].sha256))
    assert (live / "key.asc").read_bytes().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert release.describe(live) == done.release
    assert done.release.valid_until == CREATED + timedelta(days=90)
    assert here.mirror.state().published == (done.release.record,)
    assert findings(here) == []


def test_two_releases_of_one_lock_are_the_same_bytes_modes_and_times(here: Site, tmp_path: Path) -> None:
    full_lock(here)
    publish(here)
    twin = Site(Mirror(tmp_path / "twin"), here.work)
    shutil.copytree(here.mirror.root / "pool", twin.mirror.root / "pool")
    shutil.copytree(here.mirror.keys, twin.mirror.keys, dirs_exist_ok=True)
    shutil.copy(here.mirror.root / "state.json", twin.mirror.root)
    twin.mirror.record(twin.mirror.state().model_copy(update={"published": ()}))
    publish(twin, now=NOW + timedelta(days=3))
    first, second = snapshot(here.mirror.current.resolve()), snapshot(twin.mirror.current.resolve())
    assert first == second


def test_no_generated_file_names_this_machine_or_its_folders(here: Site) -> None:
    full_lock(here)
    publish(here)
    host = re.compile(rb"(?<![A-Za-z0-9/+])" + re.escape(os.uname().nodename.encode()) + rb"(?![A-Za-z0-9/+])")
    for path in here.mirror.current.resolve().rglob("*"):
        if path.is_file() and path.stat().st_nlink == 1:
            data = path.read_bytes()
            assert not host.search(data)
            assert str(here.mirror.root).encode() not in data


def test_publishing_what_is_live_changes_nothing_and_says_so(here: Site) -> None:
    full_lock(here)
    first = publish(here)
    before, notes = snapshot(here.mirror.root), Notes()
    second = publish(here, report=notes)
    assert (second.release, second.changed) == (first.release, False)
    assert snapshot(here.mirror.root) == before
    assert notes.lines == [f"Release {first.release.name} is live already; nothing changed"]


def test_publishing_again_repairs_a_damaged_release(here: Site) -> None:
    full_lock(here)
    publish(here)
    index = here.mirror.current / "wheels/simple/index.html"
    index.write_text("defaced")
    assert findings(here) == [f"{index.resolve()}: is not what the lock gives"]
    assert publish(here).changed
    assert findings(here) == []


def test_what_clients_of_the_release_before_ask_for_is_served_on(here: Site) -> None:
    old = full_lock(here)
    publish(here)
    newer_lock(here)
    done = publish(here)
    live = here.mirror.current
    assert list((live / "apt/pool").rglob("second_1.0-1_amd64.deb"))
    blobs = live / "registry/docker/registry/v2/blobs/sha256"
    manifest = old.images[0].manifest.sha256
    assert (blobs / manifest[:2] / manifest / "data").exists()
    assert list((live / "wheels/files").rglob(old.wheels[0].file))
    assert done.release.earlier == (lock_content(old)[0].sha256,)
    assert findings(here) == []


# ---- dates ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_going_back_gets_a_newer_date(here: Site) -> None:
    old, new = full_lock(here), newer_lock(here)
    first, second = publish(here, old.id), publish(here, new.id)
    back = rollback(here, now=NOW + DAY)
    assert first.release.date == CREATED and second.release.date == CREATED + DAY
    assert back.release.lock == first.release.lock
    assert back.release.date == NOW + DAY
    # At once, within the same second: still newer.
    forth = rollback(here, now=NOW + DAY)
    assert forth.release.lock == second.release.lock
    assert forth.release.date == NOW + DAY + timedelta(seconds=1)
    # By name; by the id of its lock; and what is live is refused.
    assert rollback(here, first.release.name, now=NOW + 2 * DAY).changed
    with pytest.raises(MirrorError, match=rf"the content of {old.id} is live already"):
        rollback(here, old.id, now=NOW + 2 * DAY)
    assert findings(here, NOW + 2 * DAY) == []


def test_there_must_be_something_to_go_back_to(here: Site) -> None:
    with pytest.raises(MirrorError, match="no earlier release to go back to"):
        rollback(here)
    with pytest.raises(MirrorError, match="nothing has been imported"):
        publish(here)
    full_lock(here)
    with pytest.raises(MirrorError, match="knows no bundle or release nonsense"):
        publish(here, "nonsense")


def test_a_clock_that_is_behind_is_refused_with_both_times(here: Site) -> None:
    full_lock(here)
    with pytest.raises(MirrorError) as caught:
        publish(here, now=CREATED - DAY)
    assert "it says 2026-10-31 12:00:00 UTC, and lock" in str(caught.value)
    assert "was made 2026-11-01 12:00:00 UTC" in str(caught.value)
    assert "set the clock of this machine" in str(caught.value)
    assert not here.mirror.published.exists()
    publish(here, again=True, now=NOW + DAY)
    with pytest.raises(MirrorError) as caught:
        publish(here)
    assert "it says 2026-11-02 12:00:00 UTC, and the last release is dated 2026-11-03 12:00:00 UTC" in str(caught.value)
    assert "clock" in findings(here)[0]


def test_expiry_is_told_ahead_and_signing_again_gives_new_time(here: Site) -> None:
    lock, notes = full_lock(here), Notes()
    publish(here)
    soon, late = CREATED + timedelta(days=80), CREATED + timedelta(days=91)
    publish(here, now=soon, report=notes)
    assert "expires on 2027-01-30 12:00 UTC, in 10 days" in notes.lines[-1]
    assert "rtinfra mirror publish --again" in notes.lines[-1]
    assert ["expires on" in line for line in findings(here, soon)] == [True]
    assert ["expired on" in line for line in findings(here, late)] == [True]
    renewed = publish(here, again=True, now=late)
    assert renewed.changed and renewed.release.valid_until == late + timedelta(days=90)
    assert findings(here, late) == []
    assert lock.id in renewed.release.name


def test_what_would_be_expired_at_once_is_refused(here: Site) -> None:
    lock = full_lock(here)
    with pytest.raises(MirrorError) as caught:
        publish(here, now=CREATED + timedelta(days=90))
    assert "was good for 90 days, until 2027-01-30 12:00 UTC" in str(caught.value)
    assert f"rtinfra mirror publish --again {lock.id}" in str(caught.value)
    assert not here.mirror.current.exists()


# ---- refusals before the first change ---------------------------------------------------------------------


def test_missing_and_truncated_contents_are_named_and_nothing_changes(here: Site) -> None:
    full_lock(here)
    publish(here)
    lock = newer_lock(here)
    package, wheel = lock.packages[0], lock.wheels[0]
    here.mirror.pool.path(package.sha256).unlink()
    os.truncate(here.mirror.pool.path(wheel.sha256), 5)
    before = snapshot(here.mirror.published)
    with pytest.raises(MirrorError) as caught:
        publish(here)
    told = str(caught.value)
    assert f"2 of the contents of lock {lock.id} are not in the pool as they should be" in told
    assert f"first_2.0-1_amd64.deb (package, sha256 {package.sha256}) is missing, {package.size} bytes" in told
    assert f"{wheel.file} (wheel, sha256 {wheel.sha256}) has 5 bytes, {wheel.size} bytes are expected" in told
    assert snapshot(here.mirror.published) == before


def test_a_full_disk_is_refused_first(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    full_lock(here)
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**3, 10**3))
    with pytest.raises(MirrorError, match=r"not enough disk space to publish: .* has 0 MB free"):
        publish(here)
    assert not list(here.mirror.published.iterdir())


def test_a_pool_elsewhere_is_refused(here: Site) -> None:
    full_lock(here)
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == here.work.stat().st_dev:
        pytest.skip("needs a second file system")
    elsewhere = Path(shutil.copytree(here.mirror.root / "pool", shared_memory / f"pool-{os.getpid()}"))
    try:
        shutil.rmtree(here.mirror.root / "pool")
        (here.mirror.root / "pool").symlink_to(elsewhere)
        with pytest.raises(MirrorError, match="are on different file systems"):
            publish(here)
    finally:
        shutil.rmtree(elsewhere)
    assert not here.mirror.current.exists()


def test_a_folder_in_place_of_the_link_is_refused(here: Site) -> None:
    full_lock(here)
    here.mirror.current.mkdir(parents=True)
    with pytest.raises(MirrorError, match="current is not a symbolic link"):
        publish(here)
    assert any("is not a symbolic link" in line for line in findings(here))


# ---- power cuts -------------------------------------------------------------------------------------------

EVENTS = {"open", "os.link", "os.mkdir", "os.rename", "os.symlink", "os.chmod", "os.utime", "subprocess.Popen"}
EVENTS |= {"os.remove", "os.rmdir"}


def killed_at(work: Callable[[], Any], point: int) -> int:
    """Work in a process that is killed at its `point`-th step; return how many steps were made."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def step(event: str, _: tuple[Any, ...]) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        work()
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        steps = told.read()
    os.waitpid(child, 0)
    return int(steps or 0)


@pytest.fixture
def fresh(here: Site, tmp_path: Path) -> Callable[[], None]:
    """Save the mirror at the first call, bring it back at every other one."""
    saved = tmp_path / "saved"

    def turn() -> None:
        if not saved.exists():
            subprocess.run(["cp", "-a", here.mirror.root, saved], check=True)
        else:
            shutil.rmtree(here.mirror.root)
            subprocess.run(["cp", "-a", saved, here.mirror.root], check=True)

    return turn


@pytest.mark.slow
def test_a_cut_at_any_point_leaves_a_whole_release_and_the_next_call_completes(
    here: Site, fresh: Callable[[], None]
) -> None:
    full_lock(here)
    publish(here)
    newer_lock(here)
    fresh()
    steps = killed_at(lambda: publish(here), 0)
    assert steps > 100
    served = set()
    # All over, and each of the last steps: rename, switch and record are there.
    for point in sorted({*range(1, steps, steps // 6), *range(steps - 10, steps + 1)}):
        fresh()
        killed_at(lambda: publish(here), point)
        live = release.describe(here.mirror.current)
        assert live is not None, point
        served.add(live.name)
        done = publish(here)
        assert findings(here) == [], point
        assert done.release.date == CREATED + DAY
        assert not list(here.mirror.published.glob("*.new-*")), point
        assert len(here.mirror.state().published) == 2
        assert len(list(here.mirror.published.iterdir())) == 3
    assert len(served) == 2


@pytest.mark.slow
def test_a_collection_cut_at_any_point_is_completed_by_the_next(here: Site, fresh: Callable[[], None]) -> None:
    full_lock(here)
    publish(here)
    newer_lock(here)
    publish(here)
    later = CREATED + timedelta(days=80)
    publish(here, again=True, now=later)
    later += timedelta(days=20)
    fresh()
    steps = killed_at(lambda: collect(here, later), 0)
    expected = snapshot(here.mirror.root)
    for point in range(1, steps + 1, steps // 9):
        fresh()
        killed_at(lambda: collect(here, later), point)
        collect(here, later)
        assert findings(here, later) == [], point
        assert snapshot(here.mirror.root).keys() == expected.keys(), point


# ---- upkeep -----------------------------------------------------------------------------------------------


def collect(here: Site, now: Any, **options: Any) -> upkeep.Garbage:
    return upkeep.collect(
        here.mirror, **{"keep": 0, "locks": (), "now": now, "dry_run": False, "report": Reporter(), **options}
    )


def test_nothing_goes_that_a_client_may_still_need(here: Site) -> None:
    old = full_lock(here)
    publish(here)
    newer_lock(here)
    publish(here)
    before = snapshot(here.mirror.root)
    assert collect(here, CREATED + timedelta(days=89)).contents == ()
    assert snapshot(here.mirror.root) == before
    # The old index has expired: what only it lists may go.
    later = CREATED + timedelta(days=90)
    told = collect(here, later, dry_run=True)
    assert snapshot(here.mirror.root) == before
    assert told.releases == (f"20261101T120000Z-{old.id}",)
    assert {"first_1.0-1_amd64.deb", "second_1.0-1_amd64.deb", f"lock {old.id}"} < {each.name for each in told.contents}
    assert told.freed == sum(each.size for each in told.contents) > 0
    assert collect(here, later) == told
    assert not any(here.mirror.pool.path(each.sha256).exists() for each in told.contents)
    assert not list((here.mirror.current / "apt/pool").rglob("second_1.0-1_amd64.deb"))
    assert [release.lock for release in here.mirror.state().published] == [release.choose(here.mirror.state(), None)]
    assert all("expire" in line for line in findings(here, later))
    assert not publish(here, now=later).changed
    assert collect(here, later).contents == ()


def test_what_is_kept_or_named_stays(here: Site) -> None:
    old = full_lock(here)
    publish(here)
    newer_lock(here)
    publish(here)
    later = CREATED + timedelta(days=90)
    assert collect(here, later, keep=2).contents == ()
    # A lock's contents; not its canonical form, which the caller has.
    assert [each.name for each in collect(here, later, locks=[old]).contents] == [f"lock {old.id}"]


def test_what_was_imported_and_not_published_stays(here: Site) -> None:
    full_lock(here)
    publish(here)
    newer_lock(here)
    assert collect(here, CREATED + timedelta(days=89)).contents == ()
    assert publish(here).changed


def test_a_lock_that_cannot_be_read_stops_the_collection(here: Site) -> None:
    lock = full_lock(here)
    publish(here)
    here.mirror.pool.path(lock_content(lock)[0].sha256).unlink()
    before = snapshot(here.mirror.root)
    with pytest.raises(MirrorError, match="is not in"):
        collect(here, NOW)
    assert snapshot(here.mirror.root) == before


def test_what_interrupted_writes_left_goes_after_a_day(here: Site) -> None:
    full_lock(here)
    left = here.mirror.pool.directory / "00/.new-abc"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    assert collect(here, NOW, dry_run=True).temporary == ()
    os.utime(left, (0, 0))
    garbage = collect(here, NOW)
    assert (garbage.temporary, garbage.freed) == ((".new-abc",), 4)
    assert not left.exists()


def test_an_old_release_can_be_removed_and_the_live_one_cannot(here: Site) -> None:
    full_lock(here)
    old = publish(here).release.name
    newer_lock(here)
    live = publish(here).release.name
    with pytest.raises(MirrorError, match=f"release {live} is live and stays"):
        upkeep.remove(here.mirror, releases=[old, live], report=Reporter())
    with pytest.raises(MirrorError, match="there is no release nonsense"):
        upkeep.remove(here.mirror, releases=[old, "nonsense"], report=Reporter())
    assert (here.mirror.published / old).is_dir()
    assert upkeep.remove(here.mirror, releases=[old], report=Reporter()) == (old,)
    assert {path.name for path in here.mirror.published.iterdir()} == {live, "current"}
    assert findings(here) == []
    assert rollback(here).changed


def test_a_bundle_can_be_removed_and_differences_still_build_on_it(here: Site) -> None:
    lock = full_lock(here)
    state = here.mirror.state()
    here.mirror.record(state.model_copy(update={"bundles": state.imported}))
    name = state.imported[0].id
    (here.mirror.bundles / name).mkdir(parents=True)
    assert lock.id in name
    assert upkeep.remove(here.mirror, bundles=[name], report=Reporter()) == (name,)
    assert not list(here.mirror.bundles.iterdir()) and here.mirror.state().bundles == state.imported
