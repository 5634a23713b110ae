"""pip of this computer, for wheels that are to run on another Python than this one's.

pip fetches from whatever index this computer is configured with: only what has one of the pinned hashes is accepted, so
the index needs no trust.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtinfra.local import programs
from rtinfra.local.errors import LocalError

#: Minor version of glibc 2 by Debian release; wheels for an older one run too (https://peps.python.org/pep-0600/).
GLIBC: Final[Mapping[str, int]] = {"bookworm": 36, "trixie": 41}
#: Of the oldest of them.
OLDEST_GLIBC: Final = min(GLIBC.values())
_FIRST_GLIBC: Final = 5
_LEGACY: Final = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
_SECONDS: Final = 900


@dataclass(frozen=True)
class Interpreter:
    """A Python on Linux: its version such as `3.13`, its machine such as `x86_64`, the minor version of its glibc 2."""

    version: str
    machine: str
    glibc: int = OLDEST_GLIBC

    @property
    def options(self) -> Iterator[str]:
        """What makes pip choose wheels for it."""
        yield from ("--only-binary=:all:", "--implementation", "cp", "--python-version", self.version)
        newest_first = [f"manylinux_2_{minor}" for minor in range(self.glibc, _FIRST_GLIBC - 1, -1)]
        for platform in (*newest_first, *_LEGACY):
            yield from ("--platform", f"{platform}_{self.machine}")


def download(requirements: Path, interpreter: Interpreter, folder: Path) -> None:
    """Fetch the wheels of all requirements, which are pinned with their hashes.

    Raises:
        LocalError: one of them has no wheel for this Python, or cannot be fetched.
    """
    options: list[str | Path] = ["download", "--no-deps", "--require-hashes", "--dest", folder, "-r", requirements]
    try:
        run([*options, *interpreter.options])
    except LocalError as error:
        missing = re.search(r"No matching distribution found for (\S+)", error.detail)
        raise LocalError(
            f"pip found no wheel of {missing[1]} for Python {interpreter.version} on {interpreter.machine}"
            if missing
            else f"pip could not fetch the wheels for Python {interpreter.version}",
            "check the network and pip's index (`pip config list`); a project without a wheel cannot be used here",
            error.detail,
        ) from error


def run(words: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
    """Run pip, without questions.

    Raises:
        LocalError: it failed; its errors are the detail.
    """
    options = ["--disable-pip-version-check", "--no-input", "--quiet"]
    try:
        programs.execute([sys.executable, "-m", "pip", *words, *options], timeout=_SECONDS, env=env)
    except LocalError as error:
        raise LocalError(error.message, error.next_step, _errors(error.detail)) from error


def _errors(said: str) -> str:
    # pip lists every version of every index first.
    return "\n".join(line[:300] for line in said.splitlines() if line.startswith("ERROR:")) or said[-2000:]
