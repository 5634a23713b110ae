"""What a .deb file says of itself, read without installing anything on the control machine."""

from __future__ import annotations

import subprocess  # nosec B404 - fixed program, no shell
from pathlib import Path


def package_name(deb: Path) -> str:
    """Return the Debian package name of a .deb file.

    Raises:
        ValueError: when the file is not a readable Debian package, or dpkg-deb is missing.
    """
    try:
        done = subprocess.run(  # nosec B603 B607
            ["dpkg-deb", "--field", str(deb), "Package"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ValueError("dpkg-deb is needed to read local packages; install the package dpkg") from error
    if done.returncode != 0:
        raise ValueError(f"{deb} is not a Debian package: {done.stderr.strip()}")
    return done.stdout.strip()
