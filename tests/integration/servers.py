"""Real servers for tests: on loopback, free ports, data in a temporary folder, ended by the test that started them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter

_STARTS_WITHIN = 60.0
#: PostgreSQL refuses to run as root; any other account will do.
_PLAIN_ACCOUNT = "nobody"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A server that a test started."""

    command: Sequence[str | Path]
    port: int
    account: str | None = None
    log: Path | None = None
    _running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until its port answers."""
        log = self.log.open("ab") if self.log else subprocess.DEVNULL
        self._running = subprocess.Popen(
            [str(word) for word in self.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **_as(self.account),
        )
        wait_for(lambda: answers(self.port), f"{self.command[0]} on port {self.port}", self._running)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, at once unless another signal is named."""
        if self._running is not None:
            self._running.send_signal(number)
            self._running.wait(timeout=30)
            self._running = None


def answers(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for a condition; fails when it takes too long, or the process ends before."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while not condition():
        assert process is None or process.poll() is None, f"{what} ended with {process and process.returncode}"
        assert time.monotonic() < deadline, f"{what} is not there after {_STARTS_WITHIN:.0f} s"
        time.sleep(0.05)


@contextmanager
def redis(directory: Path, password: str | None = None) -> Iterator[Process]:
    """Run Debian's Redis."""
    programs.ensure([Tool("redis-server", "redis-server")], ConsoleReporter())
    port = free_port()
    program = programs.find("redis-server")
    assert program is not None
    configuration = directory / "redis.conf"
    configuration.write_text(
        f'bind 127.0.0.1\nport {port}\ndir {directory}\nsave ""\n' + (f"requirepass {password}\n" if password else "")
    )
    server = Process([program, configuration], port)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Postgres:
    """A running PostgreSQL."""

    process: Process
    user: str = "preflight"
    database: str = "postgres"

    def conninfo(self, port: int | None = None) -> str:
        """Return how it is reached, perhaps through another port."""
        return f"host=127.0.0.1 port={port or self.process.port} dbname={self.database} user={self.user}"


@contextmanager
def postgres(password: str) -> Iterator[Postgres]:
    """Run Debian's PostgreSQL with password logins (SCRAM), its data in a folder of its own account."""
    programs.ensure([Tool("/usr/lib/postgresql", "postgresql")], ConsoleReporter())
    tools = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    account = _PLAIN_ACCOUNT if os.geteuid() == 0 else None
    # Not below pytest's folder, which nobody but its owner may enter.
    with TemporaryDirectory(prefix="rtinfra-postgres-") as name:
        directory = Path(name)
        data, secret = directory / "data", directory / "password"
        data.mkdir(mode=0o700)
        secret.write_text(password)
        if account:
            for path in (directory, data, secret):
                os.chown(path, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)
        initdb = [
            *(tools / "initdb", "--pgdata", data, "--username", "preflight", "--auth", "scram-sha-256"),
            *("--pwfile", secret, "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        ]
        subprocess.run([str(word) for word in initdb], check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120,
                       **_as(account))  # fmt: skip
        port = free_port()
        command = [tools / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
        server = Process(command, port, account)
        server.start()
        try:
            yield Postgres(server)
        finally:
            # A fast shutdown: connections are cut, and no shared memory is left behind.
            server.kill(signal.SIGINT)


def _as(account: str | None) -> dict[str, Any]:
    """Return what starts a program as another account."""
    return {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []} if account else {}


@dataclass
class Relay:
    """A relay to a port of loopback that holds every answer back for `delay` seconds."""

    target: int
    delay: float = 0.0
    port: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Relay]:
        """Relay until the end of the block."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        try:
            yield self
        finally:
            for one in (listener, *self._sockets):
                one.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self._sockets += [client, server]
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        try:
            while content := source.recv(65536):
                if slow:
                    time.sleep(self.delay)
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def node_exporter(textfiles: Path) -> Iterator[str]:
    """Run Debian's node_exporter on a directory of text files; gives the address of its metrics."""
    programs.ensure([Tool("prometheus-node-exporter", "prometheus-node-exporter")], ConsoleReporter())
    program = shutil.which("prometheus-node-exporter")
    assert program is not None
    port = free_port()
    server = Process(
        [
            *(program, f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults"),
            *("--collector.textfile", f"--collector.textfile.directory={textfiles}"),
        ],
        port,
    )
    server.start()
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        server.kill()
