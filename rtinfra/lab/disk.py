"""The disk of a machine: what it wrote, on top of a base image that machines share."""

from __future__ import annotations

import json
from pathlib import Path

from rtinfra.lab.errors import LabError
from rtinfra.local import programs


def make(path: Path, base: Path) -> None:
    """Make an empty disk on top of a base image; it has its name once it is whole."""
    fresh = path.with_suffix(".new")
    programs.execute(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", fresh], timeout=60)
    fresh.rename(path)


def require_base(path: Path, machine: str) -> None:
    """Raise LabError when the base image under a disk is gone."""
    result = programs.execute(["qemu-img", "info", "-U", "--output=json", path], timeout=60)
    base = Path(json.loads(result.stdout)["full-backing-filename"])
    if not base.exists():
        raise LabError(
            f"the base image under the disk of {machine} is gone: {base}",
            f"`rtinfra lab reset {machine}` makes a fresh machine (what was on it is lost)",
        )
