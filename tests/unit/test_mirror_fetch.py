"""Fetching against a web server on loopback: resumed, refused, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rtinfra.local.archive import Archive, parse_logins
from rtinfra.local.progress import Reporter
from rtinfra.mirror import fetch as fetching
from rtinfra.mirror import lock as locking
from rtinfra.mirror import pool, web
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.fetch import Fetched, Patience, fetch
from rtinfra.mirror.model import LOCAL, Blob, Content, Lock, LockedPackage, Origin
from rtinfra.mirror.store import Mirror
from rtinfra.paths import PROJECT
from tests.unit.mirror_archive import Behaviour, WebServer

QUICK = Patience(attempts=3, first_pause=0.01, silence=0.3)
SIZES = {"small": 1_000, "middle": 90_000, "large": 700_000, "c++": 5_000}


class Site:
    """An archive with some files, a lock of them, and a mirror that has only the lock's index."""

    def __init__(self, root: Path, server: WebServer, base: str) -> None:
        self.server, self.base = server, base
        # Logins and authorities of this computer's apt.
        self.apt = Archive(main=())
        self.mirror = Mirror(root / "mirror")
        self.data: dict[str, bytes] = {}
        for name, size in SIZES.items():
            self.data[name] = random.Random(name).randbytes(size)
            path = server.root / self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.data[name])
        index = b"Package: x\n"
        blob = Blob(sha256=hashlib.sha256(index).hexdigest(), size=len(index))
        self.mirror.pool.add_bytes(Content(blob.sha256, blob.size, "index", "Packages"), index)
        self.lock = Lock(
            format=1,
            created=datetime.now(UTC),
            suite="trixie",
            architecture="amd64",
            valid_days=180,
            stanzas=blob,
            origins={
                suite: Origin(
                    label="Test",
                    suite=suite,
                    date=datetime.now(UTC),
                    valid_until=None,
                    release_sha256="0" * 64,
                    signed_by=("A",),
                )
                for suite in ("trixie", "trixie-security")
            },
            packages=tuple(self.package(name) for name in SIZES),
            images=(),
            wheels=(),
            files=(),
        )

    def path(self, name: str) -> str:
        return f"pool/{name}_1.0+b1_amd64.deb"

    def package(self, name: str, origin: str = "trixie") -> LockedPackage:
        return LockedPackage(
            name=name,
            version="1.0+b1",
            architecture="amd64",
            origin=origin,
            path=self.path(name),
            size=len(self.data[name]),
            sha256=self.sha256(name),
            why=("rt1",),
        )

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.data[name]).hexdigest()

    def partial(self, name: str) -> Path:
        path = self.mirror.root / "partial" / self.sha256(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def fetch(self, *bases: str, report: Reporter | None = None, patience: Patience = QUICK, **options: str) -> Fetched:
        """Options are those of apt, with underscores."""
        told = tuple((f"Acquire::{name.replace('_', '::')}", value) for name, value in options.items())
        archive = replace(self.apt, main=bases or (self.base,), options=told)
        return fetch(self.lock, self.mirror, archive, report or Reporter(), patience)

    def refused(self, *bases: str, **options: str) -> MirrorError:
        with pytest.raises(MirrorError) as caught:
            self.fetch(*bases, **options)
        return caught.value

    def there(self) -> set[str]:
        """What is in the pool, read and compared."""
        pool = self.mirror.pool
        return {name for name in SIZES if pool.path(self.sha256(name)).is_file() and self._is_right(name)}

    def _is_right(self, name: str) -> bool:
        assert self.mirror.pool.read(self.sha256(name)) == self.data[name]
        return True

    def misbehave(self, name: str, **told: object) -> None:
        self.server.behaviour[self.path(name)] = Behaviour(**told)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
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
    site.partial("large").write_bytes(site.data["large"][:300_000])
    site.fetch()
    assert site.server.asked("large_1.0+b1_amd64.deb") == ["bytes=300000-"]
    assert site.there() == set(SIZES)


def test_a_file_that_arrived_completely_before_a_power_cut_is_not_asked_for(site: Site) -> None:
    site.partial("large").write_bytes(site.data["large"])
    site.fetch()
    assert not site.server.asked("large_1.0+b1_amd64.deb")
    assert site.there() == set(SIZES)


@pytest.mark.parametrize("size", [300_000, SIZES["large"], SIZES["large"] + 5])
def test_what_a_power_cut_left_as_zeros_is_thrown_away(site: Site, size: int) -> None:
    site.partial("large").write_bytes(bytes(size))
    site.fetch()
    assert site.there() == set(SIZES)


def test_a_server_that_cannot_resume_gives_the_whole_file(site: Site) -> None:
    site.server.ranges = False
    site.partial("large").write_bytes(site.data["large"][:300_000])
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
    site.partial("large").write_bytes(site.data["large"][:200_000])
    error = site.refused()
    assert "large_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it fell silent, 3 times" in error.message
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
        (bytes(90_001), "too long there: 90001 bytes, 90000 are expected"),
    ],
)
def test_a_file_of_another_size_is_refused_before_it_is_read(site: Site, data: bytes, words: str) -> None:
    site.misbehave("middle", data=data)
    assert words in site.refused().message
    assert site.there() == set(SIZES) - {"middle"}


def test_all_files_that_fail_are_named_in_one_go(site: Site) -> None:
    site.misbehave("middle", status=404)
    site.misbehave("small", status=403)
    error = site.refused()
    assert error.message == "2 of 4 files could not be fetched; the others are in the pool"
    assert "middle_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it answers 404" in error.detail
    assert "small_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it answers 403" in error.detail
    assert "rtinfra mirror lock" in error.next_step
    assert site.there() == {"large", "c++"}


def test_another_server_of_the_same_archive_is_tried(site: Site) -> None:
    site.fetch(f"{site.base}/nothing-here", site.base)
    assert site.there() == set(SIZES)


def test_a_server_that_is_not_there_is_named(site: Site) -> None:
    error = site.refused("http://127.0.0.1:9")
    assert "127.0.0.1: it cannot be reached" in error.detail


def test_a_server_that_hung_up_on_a_kept_connection_is_simply_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "CONNECTIONS", 1)
    for name in SIZES:
        site.misbehave(name, hangs_up=True)
    site.fetch(patience=Patience(attempts=1, silence=2))
    assert site.there() == set(SIZES)


def test_a_server_that_sends_on_is_followed(site: Site) -> None:
    site.misbehave("large", location=f"/{site.path('large')}?again", times=1)
    site.misbehave("middle", location="ftp://127.0.0.1/middle")
    site.misbehave("small", location=f"/{site.path('small')}")
    error = site.refused()
    assert "middle_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it answers 302 Found" in error.detail
    assert "small_1.0+b1_amd64.deb could not be fetched: 127.0.0.1: it only ever sends on" in error.detail
    assert site.there() == {"large", "c++"}


def test_the_proxy_of_apt_is_asked(site: Site) -> None:
    proxy = site.base.replace("//", "//me:s%40cret@")
    site.fetch("http://archive.invalid", http_Proxy=proxy)
    assert site.there() == set(SIZES)
    assert site.server.hosts == ["archive.invalid Basic bWU6c0BjcmV0"] * 4


def test_an_archive_that_wants_a_password_gets_it(site: Site) -> None:
    site.fetch(site.base.replace("//", "//me:s%40cret@"))
    assert site.there() == set(SIZES)
    assert site.server.logins == {"Basic bWU6c0BjcmV0"}


@pytest.mark.parametrize(
    ("machine", "is_told"),
    [
        ("http://127.0.0.1", True),
        ("http://127.0.0.1/po", True),
        ("http://127.0.0.1:1", False),
        ("http://127.0.0.1/other", False),
        ("http://archive.example", False),
        # Never in the clear unless that is asked for.
        ("127.0.0.1", False),
    ],
)
def test_an_archive_gets_the_login_that_apt_has_for_it(site: Site, machine: str, is_told: bool) -> None:
    later = "\nmachine http://127.0.0.1/p login other password x" if is_told else ""
    site.apt = Archive(main=(), logins=tuple(parse_logins(f"machine {machine} login me password s@cret{later}")))
    site.fetch()
    assert site.server.logins == ({"Basic bWU6c0BjcmV0"} if is_told else {""})
    assert "s@cret" not in repr(site.apt)


def test_the_proxy_of_the_environment_is_asked_but_for_its_exceptions(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.base)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # What `discover` makes of it.
    site.fetch(http_Proxy=site.base)
    assert not site.server.hosts
    site.lock = site.lock.model_copy(update={"packages": (site.package("small"),)})
    site.mirror.pool.path(site.sha256("small")).unlink()
    site.fetch("http://archive.invalid", http_Proxy=site.base)
    assert site.server.hosts == ["archive.invalid"]


def test_apt_can_be_told_to_ask_no_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    site.fetch(http_Proxy="DIRECT")
    assert site.there() == set(SIZES)


def test_a_proxy_that_is_none_of_http_is_refused_at_once(site: Site) -> None:
    error = site.refused(http_Proxy="socks5h://me:secret@127.0.0.1:9")
    assert "the proxy for http is socks5h://127.0.0.1; one that starts with http:// is expected" in error.message
    assert "Acquire::http::Proxy" in error.next_step


def tls(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Return what a server on loopback needs, and the certificate that clients have to know."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=test"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def test_an_archive_with_tls_is_believed_when_this_computer_trusts_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = tls(tmp_path)
    web.authorities.cache_clear()
    with site.server.running(context) as base:
        detail = site.refused(base).detail
        assert "127.0.0.1: it cannot be reached" in detail and "certificate verify failed" in detail
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        web.authorities.cache_clear()
        # Through the proxy, which sees nothing of it.
        site.fetch(base, https_Proxy=site.base)
    web.authorities.cache_clear()
    assert site.there() == set(SIZES)
    assert set(site.server.hosts) == {base.removeprefix("https://")}


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_an_archive_with_tls_is_believed_when_apts_own_authorities_sign_for_it(
    site: Site, tmp_path: Path, host: str
) -> None:
    context, certificate = tls(tmp_path)
    with site.server.running(context) as base:
        site.apt = Archive(main=(), authorities=((host, certificate), ("other.example", tmp_path / "none")))
        site.fetch(base)
        assert site.there() == set(SIZES)
        site.mirror.pool.path(site.sha256("small")).unlink()
        site.apt = Archive(main=(), authorities=((host, tmp_path / "none"),))
        assert f"the certificate authorities in {tmp_path / 'none'} cannot be read" in site.refused(base).message


def test_a_full_disk_is_told_before_the_first_byte(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 500_000, 500_000))
    assert "not enough disk space for what is to be fetched" in site.refused().message
    assert not site.server.requests
    # What has arrived already needs no room again.
    site.partial("large").write_bytes(site.data["large"][:600_000])
    assert site.fetch().files == 4


def test_nothing_has_its_name_before_its_bytes_are_on_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "make_durable", full)
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

    site.partial("large").write_bytes(bytes(300_000))
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
