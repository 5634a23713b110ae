"""Hashes of files that may hold a secret: `-vvv` prints them, and nobody can try passwords on them.

The key is another one in each run. A host gets it on standard input, where nothing shows it, and forgets it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Final

from typing_extensions import override

_KEY: Final = secrets.token_hex(32)
#: Reads the key on a host, into a variable of the shell and of what it starts; on nothing else than standard input.
READ_KEY: Final = "read -r K && export K"
#: Prints hash and path of each file behind it, as sha256sum(1) does; nothing when there is no key.
HASH_EACH: Final = (
    'test -n "$K" && for f; do d=$({ printf %s "$K"; cat -- "$f"; } | sha256sum) && '
    'printf "%s  %s\\n" "${d%% *}" "$f"; done'
)


class _Key:
    """The key as pyinfra takes standard input: it shows what a fact was asked with."""

    def readlines(self) -> list[str]:
        """Return its only line."""
        return [_KEY]

    def __iter__(self) -> Iterator[str]:
        yield from self.readlines()

    @override
    def __repr__(self) -> str:
        return "(a key)"


#: What a command with READ_KEY in it gets as `_stdin`.
KEY: Final = _Key()


def of(content: bytes) -> str:
    """Return the hash of a content; the length of the key is always the same, so no two contents share one."""
    return hashlib.sha256(_KEY.encode() + content).hexdigest()
