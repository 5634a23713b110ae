"""What a lab machine sends over its card to the outside, as its network card sees it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from rtinfra.lab import Machine

_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_SSH = 22
_DHCP = {67, 68}


def opened(path: Path, machine: Machine) -> set[str]:
    """Return what the machine tried to reach outside, out of what `Machine.capture` wrote: `address:port`.

    Answers on its ssh port and what every network card says to find its own address are no attempts.
    """
    return {
        target for target in _targets(path, bytes.fromhex(machine.mac_address.replace(":", ""))) if target is not None
    }


def _targets(path: Path, own: bytes) -> Iterator[str | None]:
    data = path.read_bytes()
    offset = 24  # the file's header
    while offset + 16 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset + 8)
        frame = data[offset + 16 : offset + 16 + length]
        offset += 16 + length
        if len(frame) >= 54 and frame[6:12] == own:
            yield _target(frame)


def _target(frame: bytes) -> str | None:
    (kind,) = struct.unpack_from("!H", frame, 12)
    address: IPv4Address | IPv6Address
    if kind == _IPV4:
        protocol, address = frame[23], ip_address(frame[30:34])
        ports = struct.unpack_from("!HH", frame, 14 + 4 * (frame[14] & 15))
    elif kind == _IPV6:
        protocol, address = frame[20], ip_address(frame[38:54])
        ports = struct.unpack_from("!HH", frame.ljust(58, b"\0"), 54)
    else:
        return None
    if protocol not in (_TCP, _UDP):
        return None if address.is_multicast or address.is_link_local else f"{address} (protocol {protocol})"
    if (protocol == _TCP and ports[0] == _SSH) or (protocol == _UDP and set(ports) <= _DHCP | {546, 547}):
        return None
    return f"{address}:{ports[1]}"
