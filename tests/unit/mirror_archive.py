"""A small Debian archive and Python index of our own for tests: real packages, a real key, a real web server."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from roles.shared import MirrorSettings
from rtinfra.local.archive import Archive


def settings(**changes: object) -> MirrorSettings:
    """The mirror settings of hosts that run almost nothing."""
    found: dict[str, object] = {
        "distribution": "debian-13",
        "suite": "trixie",
        "architecture": "amd64",
        "components": ("main",),
        "valid_days": 180,
        "replacements": (),
        "base_patterns": ("?essential",),
        "base_packages": ("ssh",),
        "boot_loaders": (),
        "python": ("3.13",),
    }
    return MirrorSettings.model_validate({**found, **changes})


def build(directory: Path, name: str, version: str = "1.0", architecture: str = "amd64", **fields: str) -> Path:
    """Build a package that contains nothing; `fields` are further lines of its control file."""
    tree = directory / f"{name}-{version}".replace(":", "-")
    (tree / "DEBIAN").mkdir(parents=True)
    lines = {"Package": name, "Version": version, "Architecture": architecture, "Maintainer": "test <t@example.com>"}
    lines |= {key.replace("_", "-"): value for key, value in fields.items()} | {"Description": "test"}
    (tree / "DEBIAN" / "control").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    path = directory / f"{name}_{version.rpartition(':')[2]}_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, path], check=True, capture_output=True)
    return path


class Key:
    """A signing key in a home of its own; `stop` ends its agent."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self._base = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
        self._home = home
        self._gpg("--passphrase", "", "--quick-generate-key", "archive <a@example.com>", "ed25519", "sign", "never")
        listed = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
        self.keyring = home / "keyring.gpg"
        self.keyring.write_bytes(self._gpg("--export"))
        self.armoured = home / "keyring.asc"
        self.armoured.write_bytes(self._gpg("--armor", "--export"))

    def sign(self, text: str) -> bytes:
        """Return the text with a signature around it."""
        return self._gpg("--clearsign", input=text.encode())

    def stop(self) -> None:
        """End the agent."""
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False)

    def _gpg(self, *words: str, input: bytes = b"") -> bytes:
        return subprocess.run([*self._base, *words], input=input, capture_output=True, check=True).stdout


@dataclass
class Upstream:
    """An archive in a folder."""

    root: Path
    key: Key
    suites: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, name: str, version: str = "1.0", suite: str = "trixie", **fields: str) -> Path:
        """Put a package into a suite."""
        folder = self.root / "pool" / suite
        folder.mkdir(parents=True, exist_ok=True)
        path = build(folder, name, version, **fields)
        self.suites.setdefault(suite, []).append(path)
        return path

    def publish(
        self,
        date: datetime | None = None,
        valid_until: datetime | None = None,
        sign: Callable[[str], bytes] | None = None,
    ) -> None:
        """Write the indexes of all suites."""
        for suite in ("trixie", "trixie-updates", "trixie-security"):
            self._publish(suite, date or datetime.now(UTC), valid_until, sign or self.key.sign)

    def archive(self, base: str | None = None, **changes: object) -> Archive:
        """How a computer is configured that uses this archive: as files, or at a web server."""
        uri = base or f"file:{self.root}"
        found: dict[str, object] = {"main": (uri,), "security": (uri,), "keyring": self.key.keyring}
        return Archive(**{**found, **changes})  # type: ignore[arg-type]

    def _publish(self, suite: str, date: datetime, until: datetime | None, sign: Callable[[str], bytes]) -> None:
        index = "\n".join(map(self._stanza, self.suites.get(suite, []))).encode()
        name = "main/binary-amd64/Packages"
        place = self.root / "dists" / suite / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(index)
        lines = [f"Origin: Test\nLabel: Test\nSuite: stable\nCodename: {suite}\nDate: {_time(date)}"]
        lines += [f"Valid-Until: {_time(until)}"] if until else []
        lines += ["Architectures: amd64\nComponents: main\nSHA256:"]
        lines += [f" {hashlib.sha256(index).hexdigest()} {len(index)} {name}\n"]
        (self.root / "dists" / suite / "InRelease").write_bytes(sign("\n".join(lines)))

    def _stanza(self, path: Path) -> str:
        control = subprocess.run(["dpkg-deb", "--field", path], capture_output=True, check=True).stdout.decode()
        data = path.read_bytes()
        return (
            f"{control}Filename: {path.relative_to(self.root)}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )


def _time(value: datetime) -> str:
    return format_datetime(value.astimezone(UTC), usegmt=True).replace("GMT", "UTC")


def soon(days: float) -> datetime:
    """A moment so many days from now."""
    return datetime.now(UTC) + timedelta(days=days)


def wheel(directory: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", requires: str = "") -> str:
    """Make a wheel with nothing in it; return its line of a file of requirements."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@dataclass
class Behaviour:
    """How a web server treats one path."""

    status: int | None = None
    cut_after: int | None = None
    """Bytes of the body after which it hangs up."""
    silent_after: int | None = None
    """Bytes of the body after which it says nothing more."""
    times: int = 1_000_000
    """How often, before it is as it should be."""
    data: bytes | None = None
    """Instead of the file."""
    location: str | None = None
    """Where it sends on to."""
    hangs_up: bool = False
    """After the answer, without saying so."""


class WebServer:
    """A web server of a folder on loopback that can be told to misbehave."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.behaviour: dict[str, Behaviour] = {}
        self.ranges = True
        self.pause = 0.0
        """Seconds after every 16 KiB."""
        self.requests: list[tuple[str, str]] = []
        """Path and Range of every request."""
        self.hosts: list[str] = []
        """Host and login of every request that came as to a proxy."""
        self.logins: set[str] = set()
        """What was said as name and password."""
        self.busy = threading.Event()

    def asked(self, name: str) -> list[str]:
        """The ranges asked for of the files of that name; empty for a whole file."""
        return [range for path, range in self.requests if path.endswith(name)]

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[str]:
        """Serve; gives the address."""
        here = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            _BLOCK: ClassVar[int] = 1 << 14

            def do_GET(self) -> None:
                here.answer(self)

            def do_CONNECT(self) -> None:
                here.connect(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            self.busy.set()
            server.shutdown()
            server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer as told."""
        self.logins.add(request.headers.get("Authorization", ""))
        if (place := urlsplit(request.path)).netloc:
            self.hosts.append(f"{place.netloc} {request.headers.get('Proxy-Authorization', '')}".strip())
        path = place.path.lstrip("/").replace("%2B", "+").replace("%2b", "+")
        asked = request.headers.get("Range", "")
        self.requests.append((path, asked))
        told = self.behaviour.get(path, Behaviour())
        if told.times <= 0:
            told = Behaviour()
        told.times -= 1
        if told.location:
            request.send_response(302)
            request.send_header("Location", told.location)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        file = self.root / path
        if told.status is not None or not file.is_file():
            request.send_response(told.status or 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data = file.read_bytes() if told.data is None else told.data
        date = formatdate(int(file.stat().st_mtime), usegmt=True)
        start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", asked)) and self.ranges else 0
        if request.headers.get("If-Range", date) != date:
            start = 0
        if start >= len(data) > 0:
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        request.send_header("Last-Modified", date)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        self._send(request, data[start:], told)
        request.close_connection |= told.hangs_up

    def connect(self, request: BaseHTTPRequestHandler) -> None:
        """Be a proxy: pass bytes on."""
        self.hosts.append(request.path)
        host, _, port = request.path.partition(":")
        with socket.create_connection((host, int(port))) as there:
            request.send_response(200)
            request.end_headers()
            back = threading.Thread(target=_pass_on, args=(there, request.connection), daemon=True)
            back.start()
            _pass_on(request.connection, there)
            back.join()
        request.close_connection = True

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, told: Behaviour) -> None:
        limit = min((value for value in (told.cut_after, told.silent_after) if value is not None), default=len(body))
        try:
            for at in range(0, limit, 1 << 14):
                request.wfile.write(body[at : min(at + (1 << 14), limit)])
                if self.pause:
                    time.sleep(self.pause)
        except (BrokenPipeError, ConnectionResetError):
            return
        if told.silent_after is not None:
            self.busy.wait(30)
        if limit < len(body):
            request.close_connection = True


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
