"""One process at a time."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtinfra.local.errors import LocalError


@contextmanager
def locked(path: Path, purpose: str, timeout: float) -> Iterator[None]:
    """Hold a lock file; wait at most ``timeout`` seconds for another process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with path.open("a", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LocalError(
                        f"another rtinfra has been {purpose} for more than {timeout:.0f} s",
                        "wait for it to finish or end it, then try again",
                    ) from error
                time.sleep(0.2)
        yield
