"""Fetching as this computer's own apt does: its proxies, logins, certificates and lists of mirrors."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtinfra.mirror import download
from tests.unit.fetch_site import SIZES, Site
from tests.unit.mirror_archive import WebServer


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "APT_CONFIG"):
        monkeypatch.setenv(name, "")
    server = WebServer(tmp_path / "served")
    with server.running() as base:
        yield Site(tmp_path, server, base)


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
