"""A room on this computer: a network of its own, in which real programs run from the images that hosts get.

Programs live in a network namespace with the addresses of a small fleet and no way out, each in its own root directory,
as in its container. They need no machine, so an outage takes as long as it is meant to and no longer.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rtinfra.images.image_store import LocalStore
from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter

_Seen = TypeVar("_Seen")
_READY_WITHIN = 60.0
# Also when this process is killed.
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
# /proc for programs that look at themselves; then the program sees nothing but its own root. This shell stays, as the
# first process of its namespace: its end is that of all others, while a wish to end with a parent (PR_SET_PDEATHSIG)
# does not survive the change of the account.
_ENTER = 'mount -t proc proc "$1/proc" && shift && { chroot "$@" & wait "$!"; }'


class Network:
    """A network namespace with these addresses; nothing leads into it or out of it."""

    def __init__(self, addresses: Sequence[str]) -> None:
        programs.ensure([Tool("ip", "iproute2")], ConsoleReporter())
        self._holder = subprocess.Popen([*_ENDS_WITH_US, "unshare", "--net", "sleep", "infinity"])
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        own = Path("/proc/self/ns/net").readlink()
        eventually("a network namespace", 10, lambda: Path(self._path).readlink() != own)
        self.execute("ip", "link", "set", "lo", "up")
        for address in addresses:
            self.execute("ip", "address", "add", f"{address}/32", "dev", "lo")

    def inside(self, *command: str | Path) -> list[str]:
        """Return the command line that runs a command in this network, no longer than this process lives."""
        return [*_ENDS_WITH_US, "nsenter", f"--net={self._path}", "--", *map(str, command)]

    def execute(self, *command: str) -> None:
        """Run a command in this network."""
        programs.execute(self.inside(*command), timeout=30)

    def get(self, url: str, **query: object) -> Any:
        """Return the JSON behind a URL in this network; None when nobody answers."""
        text = urllib.parse.urlencode(query)
        return self._call(url + (f"?{text}" if text else ""), None)

    def text(self, url: str) -> str | None:
        """Return the text behind a URL in this network; None when nobody answers."""
        return self._thread.submit(_fetch, url, None).result()

    def post(self, url: str, body: object) -> Any:
        """Send JSON to a URL in this network and return the answer; None when nobody takes it."""
        return self._call(url, json.dumps(body).encode())

    def close(self) -> None:
        """Let it go."""
        self._thread.shutdown()
        self._holder.kill()
        self._holder.wait()

    @property
    def _path(self) -> str:
        return f"/proc/{self._holder.pid}/ns/net"

    def _call(self, url: str, body: bytes | None) -> Any:
        answer = self._thread.submit(_fetch, url, body).result()
        return None if answer is None else json.loads(answer)

    def _enter(self) -> None:
        """Bring the one thread that asks into the network (setns(2); Python has it from 3.12 on)."""
        with Path(self._path).open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")


def _fetch(url: str, body: bytes | None) -> str | None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, OSError):
        return None


@dataclass
class Program:
    """A program of the fleet: its root directory, its command line and environment, and where it says it is ready."""

    network: Network
    root: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: str
    account: int
    """Number of the account and group it runs as."""
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        chroot = ["sh", "-c", _ENTER, "sh", str(self.root), f"--userspec={self.account}:{self.account}", str(self.root)]
        # In a process namespace of its own, of which nothing outlives this process.
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with self.root.with_suffix(".log").open("ab") as log:
            self._running = subprocess.Popen(
                self.network.inside(*alone, *chroot, *self.command),
                env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(f"{self.command[0]} at {self.ready}", _READY_WITHIN, self._is_ready)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None
            eventually(f"the end of {self.command[0]}", 10, lambda: self.network.text(self.ready) is None)

    def check(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another program of the same root."""
        return subprocess.run(["chroot", self.root, *command], capture_output=True, text=True, timeout=120, check=False)

    def _is_ready(self) -> bool:
        assert self._running is not None
        assert self._running.poll() is None, self.root.with_suffix(".log").read_text(errors="replace")[-3000:]
        return self.network.text(self.ready) is not None


def unpack(image: str, root: Path) -> tuple[str, ...]:
    """Lay out the root directory of an image of the store; return the entrypoint it was packed with."""
    with tarfile.open(LocalStore().archive(image)) as archive:

        def blob(digest: str) -> Any:
            return archive.extractfile(f"blobs/{digest.replace(':', '/')}")

        index = json.load(archive.extractfile("index.json") or blob(""))
        manifest = json.load(blob(index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"])) as content:
                content.extractall(root, filter="tar")
        return tuple(json.load(blob(manifest["config"]["digest"]))["config"]["Entrypoint"])


def put(root: Path, path: str, content: bytes, mode: str = "0644") -> Path:
    """Write a file below a root directory."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(int(mode, 8))
    return target


def own(root: Path, path: str, account: int) -> Path:
    """Make a directory below a root directory that belongs to an account."""
    target = root / path.lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    shutil.chown(target, account, account)
    return target


def eventually(what: str, seconds: float, look: Callable[[], _Seen]) -> _Seen:
    """Return the first truthy thing that `look` sees within `seconds`; fails naming `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return found
