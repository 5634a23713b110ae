"""Sockets that programs of the host listen at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

# `users:(("sshd",pid=612,fd=6),...)`
_PROGRAM: Final = re.compile(r'"((?:[^"\\]|\\.)*)",pid=')
#: Every address of the host, as ss(8) writes it for IPv4 and IPv6 together.
_EVERY: Final = "*"


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
        return self.address != _EVERY and ip_address(self.address).is_loopback

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
    text, _, port = local.rpartition(":")
    text = text.partition("%")[0].strip("[]").partition("%")[0]
    names = _PROGRAM.findall("".join(rest))
    return Listening(transport, _address(text), int(port), tuple(dict.fromkeys(names)))


def _address(text: str) -> str:
    """Return an address in its one form: `*` for every one, IPv4 that is written as IPv6 as itself."""
    if text == _EVERY:
        return _EVERY
    found = ip_address(text)
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    return _EVERY if found.is_unspecified else str(found)
