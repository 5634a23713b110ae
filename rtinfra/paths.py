"""Where things are on the control machine."""

from __future__ import annotations

import os
from pathlib import Path

#: The project folder: the one that holds deploy.py, group_data/, roles/ and templates/.
PROJECT = Path(__file__).resolve().parent.parent


def lab_directory() -> Path:
    """Return where lab machines keep their state; RTINFRA_LAB_DIR moves it."""
    return Path(os.environ.get("RTINFRA_LAB_DIR") or PROJECT / ".lab").absolute()


def lab_inventory() -> Path:
    """Return the inventory file of the lab machines; it exists while one is up."""
    return lab_directory() / "inventory.yaml"
