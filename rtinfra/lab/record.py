"""What is written down about a machine: shape, ports, groups; and how its files are written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Record:
    """A machine's ``machine.json``; a machine that was never made has an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        """All of it."""
        try:
            record: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return record

    def write(self, **changes: Any) -> None:
        """Write these entries, and keep all others."""
        write_atomically(self._path, json.dumps({**self.read(), **changes}, indent=2) + "\n")

    @property
    def ports(self) -> dict[int, int]:
        """Port of the guest -> port of 127.0.0.1 on this host."""
        return {int(guest): host for guest, host in self.read().get("ports", {}).items()}


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, readable by this user only; readers see the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o600)
    temporary.rename(path)
