"""The programs the lab is built from."""

from __future__ import annotations

import os

from rtinfra.lab import firmware
from rtinfra.local import bootstrap, programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter

_ALWAYS = (
    Tool("qemu-system-x86_64", "qemu-system-x86"),
    Tool("qemu-img", "qemu-utils"),
    Tool("mke2fs", "e2fsprogs"),
    Tool("sfdisk", "fdisk"),
    Tool("mformat", "mtools"),
    Tool("tar", "tar"),
    Tool("ssh", "openssh-client"),
    Tool("ssh-keygen", "openssh-client"),
)
# Without root, a pretence of it owns the guest's files while they are written to the disk.
_WITHOUT_ROOT = (Tool("fakeroot", "fakeroot"),)


def ensure_tools(report: Reporter | None = None) -> None:
    """Install what is missing; when this user may not, say which command does it.

    Raises LocalError when packages are missing and cannot be installed.
    """
    tools = _ALWAYS if os.geteuid() == 0 else (*_ALWAYS, *_WITHOUT_ROOT)
    programs.ensure((*bootstrap.tools(), *firmware.TOOLS, *tools), report or Reporter())
