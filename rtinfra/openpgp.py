"""Which OpenPGP keys a text holds: read by itself, so that a key file is known to hold these keys and nothing else.

RFC 9580: armour (6.2), headers of packets (4.2), fingerprints of version 4 (5.5.4.2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Final

_BLOCK: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[A-Za-z]+: [ -~]*\n)*\n"
    rb"((?:[A-Za-z0-9+/]{1,76}={0,2}\n)+)(?:=[A-Za-z0-9+/]{4}\n)?-----END PGP PUBLIC KEY BLOCK-----\n"
)
_SIGNATURE, _PUBLIC_KEY, _USER_ID, _PUBLIC_SUBKEY = 2, 6, 13, 14
_VERSION: Final = 4


def dearmoured(text: bytes) -> bytes:
    """Return the bytes of one or several armoured public keys.

    Raises:
        ValueError: the text is anything else, or has anything else in it.
    """
    found, at = b"", 0
    while match := _BLOCK.match(text, at):
        try:
            found += base64.b64decode(match[1].replace(b"\n", b""), validate=True)
        except binascii.Error as error:
            raise ValueError("its armour is damaged") from error
        at = match.end()
    if not found or text[at:].strip():
        raise ValueError("is not armoured public keys alone")
    return found


def fingerprints(armoured: bytes) -> tuple[str, ...]:
    """Return the fingerprints of armoured public keys, 40 hex digits each, in their order.

    Raises:
        ValueError: the text is anything else, or has anything else in it: a private key, keys of another version.
    """
    found = []
    for tag, body in _packets(dearmoured(armoured)):
        if tag not in (_SIGNATURE, _PUBLIC_KEY, _USER_ID, _PUBLIC_SUBKEY):
            raise ValueError(f"has a packet of kind {tag}, which no public key has")
        if tag == _PUBLIC_KEY:
            if body[:1] != bytes([_VERSION]):
                raise ValueError("has a key of another version than 4")
            head = b"\x99" + len(body).to_bytes(2, "big")
            found.append(hashlib.sha1(head + body, usedforsecurity=False).hexdigest().upper())
        elif not found:
            raise ValueError("does not begin with a key")
    if not found:
        raise ValueError("holds no key")
    return tuple(found)


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each packet; lengths that are not known beforehand are none of a key's."""
    at = 0
    while at < len(data):
        first = data[at]
        if not first & 0x80:
            raise ValueError("is damaged")
        if first & 0x40:
            tag, at, length = first & 0x3F, *_new_length(data, at + 1)
        else:
            tag, width = first >> 2 & 0x0F, 1 << (first & 3)
            if width > 4:
                raise ValueError("has a packet without a length")
            at, length = at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big")
        body = data[at : at + length]
        if len(body) != length or length > 0xFFFF:
            raise ValueError("is cut off, or has a packet that is too long")
        yield tag, body
        at += length


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """Where the body begins, and its length."""
    first = data[at] if at < len(data) else 0
    if first < 192:
        return at + 1, first
    if first < 224:
        return at + 2, (first - 192 << 8) + int.from_bytes(data[at + 1 : at + 2], "big") + 192
    if first < 255:
        raise ValueError("has a packet of unknown length")
    return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
