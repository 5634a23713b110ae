"""Real clients of a published mirror, on this machine's loopback address and with folders of their own."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder as a plain web server does; give its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def environment(**extra: str) -> dict[str, str]:
    """The environment without what tells programs of other package archives and proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "LC_ALL": "C.UTF-8", **extra}


@dataclass(frozen=True)
class Apt:
    """An apt that knows nothing but one source, with lists, cache and state of its own."""

    root: Path
    suite: str

    @classmethod
    def of(cls, root: Path, address: str, key: bytes, suite: str = "trixie") -> Apt:
        """Make one in an empty folder; `key` is what its source is signed by."""
        for name in (
            "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "var/lib/dpkg",
            "var/lib/apt/lists/partial", "var/cache/apt/archives/partial",
        ):  # fmt: skip
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").write_text("")
        (root / "key.asc").write_bytes(key)
        sources = root / "etc/apt/sources.list.d/mirror.sources"
        sources.parent.mkdir()
        sources.write_text(
            f"Types: deb\nURIs: {address}\nSuites: {suite}\nComponents: main\nSigned-By: {root}/key.asc\n"
        )
        (root / "apt.conf").write_text(
            f'Dir "{root}";\nDir::State::status "{root}/var/lib/dpkg/status";\nAPT::Architecture "amd64";\n'
            'APT::Architectures { "amd64"; };\nAPT::Sandbox::User "root";\nAPT::Install-Recommends "false";\n'
            'Acquire::Languages "none";\n'
        )
        return cls(root, suite)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run apt-get; both outputs are in `stdout`."""
        return subprocess.run(
            ["apt-get", "--yes", *arguments],
            env=environment(APT_CONFIG=str(self.root / "apt.conf")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.root,
        )

    def update(self) -> subprocess.CompletedProcess[str]:
        """Update the way clients are told to."""
        return self.run("update", "--error-on=any")

    def download(self, *packages: str) -> subprocess.CompletedProcess[str]:
        """Resolve and download, without installing."""
        return self.run("install", "--download-only", *packages)

    @property
    def downloaded(self) -> list[str]:
        """The packages in its cache."""
        return sorted(path.name for path in (self.root / "var/cache/apt/archives").glob("*.deb"))


def pip(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run this Python's pip without its configuration; both outputs are in `stdout`."""
    return subprocess.run(
        [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *map(str, arguments)],
        env=environment(PIP_CONFIG_FILE=os.devnull),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def running_registry(program: Path, storage: Path, work: Path) -> Iterator[str]:
    """Run docker-registry read-only on a storage folder; give its address without a scheme."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        address = f"{LOOPBACK}:{free.getsockname()[1]}"
    settings = work / "registry.yml"
    settings.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}, maintenance: {{readonly: {{enabled: true}}}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with (work / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", settings], stdout=log, stderr=log, env=environment())
        try:
            _wait_for(f"http://{address}/v2/", process)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 20
    while True:
        try:
            opener.open(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.05)
