"""A lock and a fetch from an archive in Ubuntu's form: pockets, components, a login as for a subscription.

What only the vendor's real archives can show is not here: docs/proof.md.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from rtinfra.local.archive import Archive, Source, choose, discover
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import Reporter
from rtinfra.mirror.apt import AptRoot, Solution
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.fetch import fetch
from rtinfra.mirror.model import Blob, Content, Lock
from rtinfra.mirror.required import PackageSet
from rtinfra.mirror.store import Mirror
from tests.unit.mirror_archive import Key, WebServer, _time, build, settings

SUITE = "noble"
LOGIN, PASSWORD = "bearer", "C0ntract-token"
POCKETS = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
COMPONENTS = ("main", "universe")


class LockedServer(WebServer):
    """A server that lets nobody in without the subscription's token."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        token = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") == f"Basic {token}":
            super().answer(request)
            return
        request.send_response(401)
        request.send_header("WWW-Authenticate", 'Basic realm="subscription"')
        request.send_header("Content-Length", "0")
        request.end_headers()


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    # Sockets of gpg's agent: their path may not be long.
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp") as home:
        made = Key(Path(home) / "a")
        yield made
        made.stop()


def publish(root: Path, key: Key) -> None:
    """Write an archive as Ubuntu's are: every pocket has the suite as its name and all components."""
    packages = {
        (SUITE, "main"): [build(root / "pool/main", "libc6", Essential="yes"), build(root / "pool/main", "ssh", "1.0")],
        (SUITE, "universe"): [build(root / "pool/universe", "rt-tests", Depends="libc6, ssh")],
        (f"{SUITE}-updates", "main"): [build(root / "pool/main", "ssh", "1.0ubuntu1.1")],
        (f"{SUITE}-security", "main"): [build(root / "pool/main", "ssh", "1.0ubuntu1.2")],
    }
    for pocket in POCKETS:
        lines = [
            f"Origin: Ubuntu\nLabel: Ubuntu\nSuite: {pocket}\nVersion: 24.04\nCodename: {SUITE}",
            f"Date: {_time(datetime.now(UTC))}\nArchitectures: amd64\nComponents: {' '.join(COMPONENTS)}\nSHA256:",
        ]
        for component in COMPONENTS:
            index = "\n".join(stanza(root, path) for path in packages.get((pocket, component), [])).encode()
            name = f"{component}/binary-amd64/Packages"
            place = root / "dists" / pocket / name
            place.parent.mkdir(parents=True)
            place.write_bytes(index)
            lines.append(f" {hashlib.sha256(index).hexdigest()} {len(index)} {name}")
        (root / "dists" / pocket / "InRelease").write_bytes(key.sign("\n".join(lines) + "\n"))


def stanza(root: Path, path: Path) -> str:
    name, version, _ = path.stem.split("_")
    depends = "Depends: libc6, ssh\n" if name == "rt-tests" else ""
    essential = "Essential: yes\n" if name == "libc6" else ""
    data = path.read_bytes()
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: test <t@example.com>\n"
        f"{essential}{depends}Description: test\nFilename: {path.relative_to(root)}\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
    )


@pytest.fixture
def archive(tmp_path: Path, key: Key) -> Iterator[Archive]:
    """What this computer is configured with: ubuntu.sources and a login in auth.conf.d."""
    root = tmp_path / "served" / "ubuntu"
    publish(root, key)
    with LockedServer(root.parent).running() as base:
        yield configured(tmp_path / "apt", f"{base}/ubuntu", key, PASSWORD)


def configured(apt: Path, uri: str, key: Key, password: str) -> Archive:
    keyring = apt / "ubuntu-archive-keyring.gpg"
    (apt / "sources.list.d").mkdir(parents=True, exist_ok=True)
    (apt / "auth.conf.d").mkdir(exist_ok=True)
    keyring.write_bytes(key.keyring.read_bytes())
    stanzas = (
        f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main universe restricted\nSigned-By: {keyring}\n"
        for suites in (f"{SUITE} {SUITE}-updates {SUITE}-backports", f"{SUITE}-security")
    )
    (apt / "sources.list.d" / "ubuntu.sources").write_text("\n".join(stanzas))
    (apt / "auth.conf.d" / "90subscription.conf").write_text(f"machine {uri}/ login {LOGIN} password {password}\n")
    return discover(apt, {}, SUITE)


def resolve(tmp_path: Path, archive: Archive) -> Solution:
    chosen = settings(distribution="ubuntu-24.04", suite=SUITE, components=COMPONENTS)
    wanted = PackageSet(("?essential", "rt-tests"), (), ("rt1",))
    return AptRoot(tmp_path / "root", archive, chosen, Reporter()).resolve((wanted,))


def test_an_archive_behind_a_login_is_locked_and_fetched(tmp_path: Path, archive: Archive, key: Key) -> None:
    found = resolve(tmp_path, archive)
    assert {(one.name, one.version, one.origin) for one in found.packages} == {
        ("libc6", "1.0", SUITE),
        ("rt-tests", "1.0", SUITE),
        ("ssh", "1.0ubuntu1.2", f"{SUITE}-security"),
    }
    assert {one.label for one in found.origins.values()} == {"Ubuntu"}
    assert {one.signed_by for one in found.origins.values()} == {(key.fingerprint,)}

    mirror = Mirror(tmp_path / "mirror")
    blob = Blob(sha256=hashlib.sha256(found.stanzas).hexdigest(), size=len(found.stanzas))
    mirror.pool.add_bytes(Content(blob.sha256, blob.size, "index", "Packages"), found.stanzas)
    lock = Lock(
        format=1, created=datetime.now(UTC), suite=SUITE, architecture="amd64", valid_days=180, stanzas=blob,
        origins=dict(found.origins), packages=found.packages, images=(), wheels=(), files=(),
    )  # fmt: skip
    assert fetch(lock, mirror, archive, Reporter()).files == 3
    assert not mirror.pool.missing(lock.contents())


def test_a_login_that_is_not_taken_is_said_without_the_password(tmp_path: Path, archive: Archive, key: Key) -> None:
    wrong = configured(tmp_path / "apt", archive.main[0], key, "another-token")
    with pytest.raises(MirrorError) as caught:
        resolve(tmp_path, wrong)
    assert "401" in str(caught.value)
    assert "another-token" not in str(caught.value)


def test_the_subscriptions_own_archive_is_not_taken_for_ubuntus() -> None:
    ubuntu = Source(("http://a.example/ubuntu",), (SUITE, f"{SUITE}-updates"), ("main", "universe"))
    extra = Source(
        ("https://esm.example/realtime/ubuntu",), (SUITE,), ("main",), "/usr/share/keyrings/ubuntu-pro-rt.gpg"
    )
    debian = Source(("http://a.example/debian",), ("trixie",), ("main",))
    assert choose([extra, debian, ubuntu], SUITE) == (ubuntu, None)
    assert choose([extra, debian, ubuntu], "trixie") == (debian, None)
    assert choose([extra, debian, ubuntu]) == (debian, None)
    with pytest.raises(LocalError, match="names no Ubuntu archive"):
        choose([debian, extra], SUITE)
