"""Computers on one network, each a network namespace of this one, for tests of a packet filter with the real nft."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter

#: Listens at every address on the ports of its arguments, `udp` before those of UDP, and answers everybody.
_LISTEN: Final = """
import selectors, socket, sys
ready, kind = selectors.DefaultSelector(), socket.SOCK_STREAM
for word in sys.argv[1:]:
    if word == "udp":
        kind = socket.SOCK_DGRAM
        continue
    one = socket.socket(socket.AF_INET6, kind)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("::", int(word)))
    if kind == socket.SOCK_STREAM:
        one.listen(64)
    ready.register(one, selectors.EVENT_READ, kind)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        if key.data == socket.SOCK_STREAM:
            key.fileobj.accept()[0].close()
        else:
            key.fileobj.sendto(*key.fileobj.recvfrom(100))
"""
_ECHO: Final = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(("0.0.0.0", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""
_SAY: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as one, one.makefile("rw") as stream:
    for line in sys.stdin:
        stream.write(line)
        stream.flush()
        print(stream.readline(), end="", flush=True)
"""
#: Prints of each `udp:PORT` or `tcp:PORT` at the address of the first argument whether somebody answers.
_TRY: Final = """
import socket, sys
for word in sys.argv[2:]:
    transport, port = word.split(":")
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, kind) as one:
        one.settimeout(2)
        try:
            one.connect((sys.argv[1], int(port)))
            if transport == "udp":
                one.send(b"?")
                one.recv(100)
            print(word, "open")
        except OSError as error:
            print(word, "silent" if isinstance(error, TimeoutError) else "refused")
"""


def have_tools() -> None:
    """Install what is needed, as other tests do."""
    programs.ensure([Tool("nft", "nftables"), Tool("ip", "iproute2")], ConsoleReporter())


@dataclass
class Computer:
    """A network namespace; `run` runs a command in it."""

    holder: subprocess.Popen[bytes]

    @property
    def pid(self) -> str:
        """Number of the process that it lasts as long as."""
        return str(self.holder.pid)

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        done = subprocess.run(
            [*_enter(self.pid), *command], input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done

    def load(self, rules: bytes) -> None:
        """Let nft check rules and load them."""
        for words in (("nft", "-c", "-f", "-"), ("nft", "-f", "-")):
            self.run(*words, stdin=rules.decode())

    @contextmanager
    def listening(self, tcp: Sequence[int], udp: Sequence[int] = ()) -> Iterator[None]:
        """Listen on ports."""
        words = [*map(str, tcp), "udp", *map(str, udp)]
        with subprocess.Popen(
            [*_enter(self.pid), "python3", "-c", _LISTEN, *words], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                yield
            finally:
                process.kill()

    @contextmanager
    def talking(self, port: int) -> Iterator[None]:
        """Answer every line on a port with the same line."""
        with subprocess.Popen(
            [*_enter(self.pid), "python3", "-c", _ECHO, str(port)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            try:
                yield
            finally:
                process.kill()

    @contextmanager
    def connected(self, address: str, port: int) -> Iterator[Callable[[str], bool]]:
        """Connect and stay so; yields what says one line and tells whether it came back."""
        with subprocess.Popen(
            [*_enter(self.pid), "python3", "-c", _SAY, address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:

            def say(line: str) -> bool:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
                return process.stdout.readline() == f"{line}\n"

            try:
                yield say
            finally:
                process.kill()

    def tries(self, address: str, *ports: str) -> Mapping[str, str]:
        """Return what becomes of a connection to each `tcp:PORT` or `udp:PORT`: open, refused or silent."""
        lines = self.run("python3", "-c", _TRY, address, *ports).stdout.splitlines()
        return {word: became for word, _, became in (line.partition(" ") for line in lines)}


@contextmanager
def computers(**addresses: Sequence[str]) -> Iterator[list[Computer]]:
    """Yield computers with these addresses (`10.9.0.1/24`) on one network; the first is where the cables end."""
    have_tools()
    found: list[Computer] = []
    try:
        first = Computer(_namespace())
        found.append(first)
        first.run("sh", "-ec", "ip link set lo up; ip link add lan type bridge; ip link set lan up")
        names = list(addresses)
        for _ in names[1:]:
            found.append(Computer(_namespace()))
        for number, (computer, name) in enumerate(zip(found, names, strict=True)):
            card = "lan"
            if number:
                card = "card"
                first.run("ip", "link", "add", f"to{number}", "type", "veth", "peer", "card", "netns", computer.pid)
                first.run("ip", "link", "set", f"to{number}", "master", "lan", "up")
                computer.run("sh", "-ec", "ip link set lo up; ip link set card up")
            for address in addresses[name]:
                computer.run("ip", "address", "add", address, "dev", card, *(("nodad",) if ":" in address else ()))
        yield found
    finally:
        for computer in found:
            computer.holder.kill()
            computer.holder.communicate()


def _namespace() -> subprocess.Popen[bytes]:
    """Start the process that holds a network namespace."""
    # What programs note in /run is that computer's own.
    last = ["sh", "-c", "mount -t tmpfs none /run && echo ready && exec sleep infinity"]
    holder = subprocess.Popen(["unshare", "--net", "--mount", *last], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n", "there is no network namespace to be had"
    return holder


def _enter(pid: str) -> list[str]:
    return ["nsenter", f"--target={pid}", "--net", "--mount", "--"]
