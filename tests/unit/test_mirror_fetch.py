"""Fetching against a web server on loopback: resumed, refused, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtinfra.local.progress import Reporter
from rtinfra.mirror import fetch as fetching
from rtinfra.mirror import lock as locking
from rtinfra.mirror import pool
from rtinfra.mirror.fetch import Patience
from rtinfra.mirror.model import LOCAL
from rtinfra.paths import PROJECT
from tests.unit.fetch_site import SIZES, Site
from tests.unit.mirror_archive import WebServer


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "APT_CONFIG"):
        monkeypatch.setenv(name, "")
    server = WebServer(tmp_path / "served")
    with server.running() as base:
        yield Site(tmp_path, server, base)


def test_everything_arrives_once(site: Site) -> None:
    done = site.fetch()
    assert (done.files, done.bytes, done.there) == (4, sum(SIZES.values()), 1)
    assert site.there() == set(SIZES)
    assert not list((site.mirror.root / "partial").iterdir())
    asked = len(site.server.requests)
    assert site.fetch().files == 0
    assert len(site.server.requests) == asked == 4


def test_what_has_arrived_is_not_asked_for_again(site: Site) -> None:
    site.begin("large", site.data["large"][:300_000])
    site.fetch()
    assert site.server.asked("large_1.0+b1_amd64.deb") == ["bytes=300000-"]
    assert site.there() == set(SIZES)


def test_a_file_that_arrived_completely_before_a_power_cut_is_not_asked_for(site: Site) -> None:
    site.begin("large", site.data["large"])
    site.fetch()
    assert not site.server.asked("large_1.0+b1_amd64.deb")
    assert site.there() == set(SIZES)


@pytest.mark.parametrize("size", [300_000, SIZES["large"], SIZES["large"] + 5])
def test_what_a_power_cut_left_as_zeros_is_thrown_away(site: Site, size: int) -> None:
    site.begin("large", bytes(size))
    site.fetch()
    assert site.there() == set(SIZES)


def test_a_beginning_of_which_nobody_knows_the_date_is_fetched_anew(site: Site) -> None:
    os.utime(site.begin("large", site.data["large"][:300_000]))
    site.fetch()
    assert site.there() == set(SIZES)


def test_a_server_that_cannot_resume_gives_the_whole_file(site: Site) -> None:
    site.server.ranges = False
    site.begin("large", site.data["large"][:300_000])
    site.fetch()
    assert site.there() == set(SIZES)


def test_a_broken_connection_is_resumed(site: Site) -> None:
    site.misbehave("large", cut_after=200_000, times=1)
    site.fetch()
    first, second = site.server.asked("large_1.0+b1_amd64.deb")
    assert first == "" and second.startswith("bytes=")
    assert site.there() == set(SIZES)


def test_a_server_that_falls_silent_is_asked_again(site: Site) -> None:
    site.misbehave("large", silent_after=200_000, times=1)
    site.fetch()
    assert len(site.server.asked("large_1.0+b1_amd64.deb")) == 2
    assert site.there() == set(SIZES)


def test_a_server_that_stays_silent_is_named_and_what_arrived_is_kept(site: Site) -> None:
    site.misbehave("large", silent_after=0)
    site.begin("large", site.data["large"][:200_000])
    error = site.refused()
    assert "large_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: Connection timed out" in error.message
    assert site.partial("large").stat().st_size == 200_000
    assert site.there() == set(SIZES) - {"large"}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(site: Site, status: int) -> None:
    site.misbehave("middle", status=status, times=2)
    site.fetch()
    assert site.there() == set(SIZES)


def test_a_changed_file_is_refused_and_named_and_the_others_arrive(site: Site) -> None:
    site.misbehave("middle", data=site.data["middle"][:-1] + b"!")
    error = site.refused()
    assert "middle_1.0+b1_amd64.deb" in error.message and "another content than was locked" in error.message
    assert site.there() == set(SIZES) - {"middle"}
    assert not list((site.mirror.root / "partial").iterdir())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"short", "truncated there: 5 bytes, 90000 are expected"),
        (bytes(90_001), "too long there: more than 90000 bytes"),
    ],
)
def test_a_file_of_another_size_is_refused_and_named(site: Site, data: bytes, words: str) -> None:
    site.misbehave("middle", data=data)
    assert words in site.refused().message
    assert site.there() == set(SIZES) - {"middle"}
    assert not list((site.mirror.root / "partial").iterdir())


def test_a_file_without_end_does_not_fill_the_disk(site: Site) -> None:
    endless = bytes(50_000_000)
    site.server.pause = 0.002
    site.misbehave("middle", data=endless)
    start = time.monotonic()
    assert "it is too long there: more than 90000 bytes" in site.refused().message
    # All of it would take seconds.
    assert time.monotonic() - start < 0.002 * len(endless) / (1 << 14)
    assert site.there() == set(SIZES) - {"middle"}
    assert not list((site.mirror.root / "partial").iterdir())


def test_all_files_that_fail_are_named_in_one_go(site: Site) -> None:
    site.misbehave("middle", status=404)
    site.misbehave("small", status=403)
    error = site.refused()
    assert error.message == "2 of 4 files could not be fetched; the others are in the pool"
    assert "middle_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it answers 404 Not Found" in error.detail
    assert "small_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it answers 403" in error.detail
    assert "rtinfra mirror lock" in error.next_step
    assert site.there() == {"large", "c++"}


def test_another_server_of_the_same_archive_is_tried(site: Site) -> None:
    site.fetch(f"{site.base}/nothing-here", site.base)
    assert site.there() == set(SIZES)


def test_a_server_that_is_not_there_is_named(site: Site) -> None:
    error = site.refused("http://127.0.0.1:9")
    assert "127.0.0.1: Could not connect to 127.0.0.1:9" in error.detail and "Connection refused" in error.detail


def test_a_server_that_hung_up_on_a_kept_connection_is_simply_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "CALLS", 1)
    site.configure(Acquire_Retries="0")
    for name in SIZES:
        site.misbehave(name, hangs_up=True)
    site.fetch(patience=Patience(attempts=1))
    assert site.there() == set(SIZES)


def test_a_server_that_sends_on_is_followed(site: Site) -> None:
    site.misbehave("large", location=f"/{site.path('large')}?again", times=1)
    site.misbehave("middle", location="ftp://127.0.0.1/middle")
    site.misbehave("small", location=f"/{site.path('small')}")
    error = site.refused()
    assert "middle_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: Redirection from http to 'ftp:" in error.detail
    assert "small_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: Redirection loop encountered" in error.detail
    assert site.there() == {"large", "c++"}


def test_where_a_server_sends_on_to_may_lack_the_file(site: Site) -> None:
    site.misbehave("small", location="/nothing")
    assert "small_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it answers 404 Not Found" in site.refused().message


def test_a_full_disk_is_told_before_the_first_byte(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 500_000, 500_000))
    assert "not enough disk space for what is to be fetched" in site.refused().message
    assert not site.server.requests
    # What has arrived already needs no room again.
    site.begin("large", site.data["large"][:600_000])
    assert site.fetch().files == 4


def test_nothing_has_its_name_before_its_bytes_are_on_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "make_durable", full)
        # So that all have arrived when the first is to enter.
        patch.setattr(fetching, "CALLS", 1)
        error = site.refused()
    assert "the disk became full" in error.message and "what has arrived is kept" in error.next_step
    assert not site.there()
    asked = len(site.server.requests)
    site.fetch()
    assert site.there() == set(SIZES) and len(site.server.requests) == asked


def test_what_is_in_no_archive_is_told(site: Site) -> None:
    site.lock = site.lock.model_copy(update={"packages": (site.package("small", LOCAL),)})
    error = site.refused()
    assert "1 contents of the lock are not in the pool and in no archive: small_1.0+b1_amd64.deb" in error.message
    assert "rtinfra mirror lock" in error.next_step


def test_a_computer_without_the_security_archive_is_told(site: Site) -> None:
    site.lock = site.lock.model_copy(update={"packages": (site.package("small", "trixie-security"),)})
    assert "apt is configured with none" in site.refused().message


def test_leftovers_of_another_lock_are_removed(site: Site) -> None:
    other = site.partial("small").with_name("f" * 64)
    other.write_bytes(b"x")
    site.fetch()
    assert not other.exists()


def test_the_bytes_told_add_up_whatever_happened(site: Site) -> None:
    class Counting(Reporter):
        def __init__(self) -> None:
            self.total, self.done = 0, 0

        @contextmanager
        def transfer(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
            self.total = total

            def advance(count: int) -> None:
                self.done += count

            yield advance

    site.begin("large", bytes(300_000))
    site.misbehave("middle", cut_after=40_000, times=1)
    report = Counting()
    site.fetch(report=report)
    assert report.total == report.done == sum(SIZES.values())


@pytest.mark.slow
def test_an_interrupted_command_says_so_and_goes_on_where_it_ended(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "mirror.lock.yaml"
    locking.write(site.lock, path)
    command = [str(Path(sys.executable).with_name("rtinfra")), "mirror", "fetch", "--lock", str(path), "--json"]
    command += ["--directory", str(site.mirror.root)]
    environment = {**os.environ, "RTINFRA_LAB_ARCHIVE": site.base}
    # Long enough that the signal arrives before the end, on a busy machine too.
    site.server.pause = 0.15
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 20
        while not (site.partial("large").exists() and site.partial("large").stat().st_size > 100_000):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Interrupted. What has arrived is kept" in said
    site.server.pause = 0
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["bytes"] >= SIZES["large"]
    assert site.there() == set(SIZES)
    assert site.server.asked("large_1.0+b1_amd64.deb")[1].startswith("bytes=")
