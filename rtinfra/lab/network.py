"""What machines have of this host's network: ports of 127.0.0.1, and addresses of the network that they share."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from rtinfra.lab import qemu
from rtinfra.lab.spec import LAN_BLOCK

# Below the range the kernel gives to outgoing connections (32768 and up), which could hold a port for a moment.
_FIRST_PORT, _PORTS = 20000, 10000
_LAN_GROUP, _LAN_NETWORK = "230.0.0.77", "10.77.0"


def choose_ports(
    root: Path, guest_ports: Iterable[int], known: Mapping[int, int], taken: Collection[int]
) -> dict[int, int]:
    """For each port of the guest the one chosen before, and a free one, by nobody ``taken``, for what is new."""
    # Starting at a different place in every state directory, so that two labs on one host rarely meet.
    offset = _offset(root)
    candidates = (_FIRST_PORT + (offset + step) % _PORTS for step in range(_PORTS))
    chosen = {}
    for guest in guest_ports:
        chosen[guest] = known.get(guest) or next(
            port for port in candidates if port not in taken and qemu.port_is_free(port)
        )
    return chosen


def lan_cable(root: Path) -> tuple[str, int]:
    """Multicast group and port that stand for the cable between the machines of a state directory."""
    # One port for each state directory, so that two labs on one host do not hear each other.
    return _LAN_GROUP, _FIRST_PORT + _offset(root)


def choose_lan_block(taken: Collection[int | None]) -> int:
    """The first block of addresses that no other machine has."""
    return next(block for block in range(24) if block not in taken)


def lan_addresses(block: int, count: int) -> tuple[str, ...]:
    """The first ``count`` addresses of a block."""
    start = (block + 1) * LAN_BLOCK
    return tuple(f"{_LAN_NETWORK}.{start + number}" for number in range(count))


def lan_file(card: str, addresses: Iterable[str]) -> str:
    """A systemd.network(5) that gives the addresses to the card with this hardware address."""
    lines = "".join(f"Address={address}/24\n" for address in addresses)
    return f"[Match]\nMACAddress={card}\n\n[Network]\n{lines}"


def _offset(root: Path) -> int:
    return int(hashlib.sha256(str(root).encode()).hexdigest(), 16) % _PORTS
