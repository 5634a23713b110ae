"""Fetching against a web server on loopback: resumed, refused, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rtinfra.local.archive import Archive
from rtinfra.local.progress import Reporter
from rtinfra.mirror import download, pool
from rtinfra.mirror import fetch as fetching
from rtinfra.mirror import lock as locking
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.fetch import Fetched, Patience, fetch
from rtinfra.mirror.model import LOCAL, Blob, Content, Lock, LockedPackage, Origin
from rtinfra.mirror.store import Mirror
from rtinfra.paths import PROJECT
from tests.unit.mirror_archive import Behaviour, WebServer

QUICK = Patience(attempts=3, first_pause=0.01)
SIZES = {"small": 1_000, "middle": 90_000, "large": 700_000, "c++": 5_000}


class Site:
    """An archive with some files, a lock of them, and a mirror that has only the lock's index."""

    def __init__(self, root: Path, server: WebServer, base: str) -> None:
        self.server, self.base = server, base
        self._configuration = root / "apt.conf"
        self.configure()
        # Folders may have blanks in their names, and be closed to others.
        self.mirror = Mirror(root / "the mirror")
        self.mirror.root.mkdir(mode=0o700)
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

    def begin(self, name: str, data: bytes) -> Path:
        """Leave what an earlier run had of a file, as apt does: with the date that the server tells."""
        path = self.partial(name)
        path.write_bytes(data)
        shutil.copystat(self.server.root / self.path(name), path)
        return path

    def configure(self, **options: str) -> None:
        """Configure this computer's apt: "Acquire" and, with underscores, what is below it."""
        told = {
            "Dir::Etc::parts": "/none",
            "Dir::Etc::main": "/none",
            "Dir::Etc::netrc": "/none",
            "Dir::Etc::netrcparts": "/none",
            "Acquire::Retries": "1",
            "Acquire::Retries::Delay": "false",
            "Acquire::http::Timeout": "1",
            **{name.replace("_", "::"): value for name, value in options.items()},
        }
        self._configuration.write_text("".join(f'{name} "{value}";\n' for name, value in told.items()))
        os.environ["APT_CONFIG"] = str(self._configuration)

    def fetch(self, *bases: str, report: Reporter | None = None, patience: Patience = QUICK) -> Fetched:
        archive = Archive(main=bases or (self.base,))
        return fetch(self.lock, self.mirror, archive, report or Reporter(), patience)

    def refused(self, *bases: str) -> MirrorError:
        with pytest.raises(MirrorError) as caught:
            self.fetch(*bases)
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
        (bytes(90_001), "too long there: 90001 bytes, 90000 are expected"),
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


@pytest.mark.parametrize("option", ["Acquire_http_Proxy", "Acquire_http_Proxy_archive.invalid"])
def test_the_proxy_of_apt_is_asked(site: Site, option: str) -> None:
    site.configure(**{option: site.base.replace("//", "//me:s%40cret@")})
    site.fetch("http://archive.invalid")
    assert site.there() == set(SIZES)
    assert site.server.hosts == ["archive.invalid Basic bWU6c0BjcmV0"] * 4


def test_a_proxy_that_is_not_there_is_named_without_its_password(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:s3cret@127.0.0.1:9")
    error = site.refused("http://archive.invalid")
    assert "Could not connect to 127.0.0.1:9" in error.detail
    assert "s3cret" not in error.detail


def test_an_archive_that_wants_a_password_gets_it_and_nobody_else_sees_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    start = subprocess.Popen

    def started(words: list[str], **told: object) -> object:
        seen.extend(words)
        return start(words, **told)  # type: ignore[call-overload]

    # What everybody on a computer may read of its processes.
    monkeypatch.setattr(subprocess, "Popen", started)
    site.fetch(site.base.replace("//", "//me:s%40cret@"))
    assert site.there() == set(SIZES)
    assert site.server.logins == {"Basic bWU6c0BjcmV0"}
    assert "download-file" in seen and f"{site.base}/{site.path('small')}".replace("+", "%2B") in seen
    assert not [word for word in seen if re.search("s(@|%40)cret", word)]


def test_a_password_that_apt_cannot_be_told_is_refused_without_telling_it(site: Site) -> None:
    error = site.refused(site.base.replace("//", "//me:two%20words@"))
    assert "has a blank in it" in error.message and "words" not in str(error) and site.base in error.message


def test_logins_are_readable_by_their_owner_alone() -> None:
    with download.options(["https://me:s%40cret@a.example/debian", "http://b.example"]) as words:
        file = Path(words[-1].removeprefix("Dir::Etc::netrc="))
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text() == "machine https://a.example/debian login me password s@cret\n"
    assert not file.exists()


@pytest.mark.parametrize("with_other", [False, True])
@pytest.mark.parametrize("option", ["netrc", "netrcparts"])
def test_an_archive_gets_the_login_that_apt_has_for_it(
    site: Site, tmp_path: Path, option: str, with_other: bool
) -> None:
    own = tmp_path / "auth.d" / "own.conf"
    own.parent.mkdir()
    own.write_text(f"machine {site.base} login me password s@cret")
    site.configure(**{f"Dir_Etc_{option}": str(own if option == "netrc" else own.parent)})
    # Beside the login of an address, those of the files still count.
    site.fetch(*(["http://other:x@127.0.0.1:9"] if with_other else []), site.base)
    assert site.there() == set(SIZES)
    assert site.server.logins == {"Basic bWU6c0BjcmV0"}


def test_the_proxy_of_the_environment_is_asked_but_for_its_exceptions(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.base)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site.fetch()
    assert not site.server.hosts
    site.lock = site.lock.model_copy(update={"packages": (site.package("small"),)})
    site.mirror.pool.path(site.sha256("small")).unlink()
    site.fetch("http://archive.invalid")
    assert site.server.hosts == ["archive.invalid"]


def test_apt_can_be_told_to_ask_no_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    site.configure(Acquire_http_Proxy="DIRECT")
    site.fetch()
    assert site.there() == set(SIZES)


def test_a_list_of_mirrors_is_followed(site: Site, tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors"
    mirrors.write_text(f"{site.base}/nothing-here/\n{site.base}/\n")
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb mirror+file:{mirrors} trixie main\n")
    site.configure(Dir_Etc_sourcelist=str(sources), Dir_Etc_sourceparts="/none")
    site.fetch(f"mirror+file:{mirrors}")
    assert site.there() == set(SIZES)


def test_an_archive_on_this_computer_is_copied(site: Site) -> None:
    site.fetch(f"file:{site.server.root}")
    assert site.there() == set(SIZES)
    for name in SIZES:
        assert not site.mirror.pool.path(site.sha256(name)).is_symlink()
        assert (site.server.root / site.path(name)).read_bytes() == site.data[name]


def test_what_apt_says_of_its_own_configuration_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "apt.conf").write_text("Acquire { x")
    assert "Syntax error" in site.refused().detail


def tls(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Return what a server on loopback needs, and the certificate that clients have to know."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=test"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.mark.parametrize("option", ["Acquire_https_CaInfo", "Acquire_https_127.0.0.1_CaInfo"])
def test_an_archive_with_tls_is_believed_when_apts_own_authorities_sign_for_it(
    site: Site, tmp_path: Path, option: str
) -> None:
    context, certificate = tls(tmp_path)
    with site.server.running(context) as base:
        assert "certificate" in site.refused(base).detail
        assert not site.there()
        # Through the proxy, which sees nothing of it.
        site.configure(**{option: str(certificate), "Acquire_https_Proxy": site.base})
        site.fetch(base)
    assert site.there() == set(SIZES)
    assert set(site.server.hosts) == {base.removeprefix("https://")}


def test_an_archive_may_want_a_certificate_of_this_computer(site: Site, tmp_path: Path) -> None:
    context, certificate = tls(tmp_path)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with site.server.running(context) as base:
        site.configure(Acquire_https_CaInfo=str(certificate))
        site.refused(base)
        assert not site.there()
        own = {"Acquire_https_SslCert": str(certificate), "Acquire_https_SslKey": str(tmp_path / "key.pem")}
        site.configure(Acquire_https_CaInfo=str(certificate), **own)
        site.fetch(base)
    assert site.there() == set(SIZES)


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
