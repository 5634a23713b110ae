"""Sockets that programs of the host listen at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

# `users:(("sshd",pid=612,fd=6),...)`
_PROGRAM: Final = re.compile(r'"((?:[^"\\]|\\.)*)",pid=')
#: What ss(8) writes for every address.
_EVERYWHERE: Final = ("*", "0.0.0.0", "::")  # nosec B104 - read, not bound to


@dataclass(frozen=True)
class Listening:
    """One socket: `transport` tcp or udp, `address` without zone and brackets, `*` for every one, its programs."""

    transport: str
    address: str
    port: int
    programs: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether only programs of the same host reach it."""
        return self.address != "*" and ip_address(self.address).is_loopback

    def __str__(self) -> str:
        place = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'/'.join(self.programs) or 'the kernel'} at {self.transport} {place}:{self.port}"


@dataclass(frozen=True)
class Sockets:
    """Every socket that takes what others send. `asking` are the ports that the kernel gives to who asks others."""

    all: tuple[Listening, ...]
    asking: range


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for them with their programs."""
    return {"sockets": "ss -Hlntup", "asking_ports": "cat /proc/sys/net/ipv4/ip_local_port_range"}


def read(answer: Answer) -> Sockets:
    """Read what `ask` asked."""
    first, last = (answer.line("asking_ports").split() or ["0", "-1"])[:2]
    return Sockets(
        all=tuple(listening(line) for line in answer.filled("sockets")), asking=range(int(first), int(last) + 1)
    )


def listening(line: str) -> Listening:
    """Read a line of `ss -Hlntup`.

    Raises:
        ValueError: it is none.
    """
    transport, _, _, _, local, *rest = line.split(maxsplit=5)
    address, _, port = local.rpartition(":")
    address = address.partition("%")[0].strip("[]").partition("%")[0].removeprefix("::ffff:")
    names = _PROGRAM.findall("".join(rest))
    return Listening(
        transport, "*" if address in _EVERYWHERE else str(ip_address(address)), int(port), tuple(dict.fromkeys(names))
    )
