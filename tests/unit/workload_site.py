"""The reference workload, put into a directory the way the role puts it on a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from roles.rt_app import role
from roles.rt_app.workload_archive import pack

SOURCES = Path(role.__file__).parent / "workload"
#: Where a host has it.
LIBRARY = "/usr/local/lib/rtinfra"


def install(library: Path) -> Path:
    """Place the archive in a directory; return its path."""
    archive = library / "mxrc_reference.pyz"
    archive.write_bytes(pack(SOURCES))
    return archive


def compile_as_deployed(library: Path) -> Path:
    """Run the role's action as sync.sh does, with this Python; return the compiled form."""
    command = role.COMPILE.command
    assert command.count(LIBRARY) == 1
    command = f"umask 077; {command.replace(LIBRARY, str(library))}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-euc", command], env={**os.environ, "PATH": path}, check=True)
    return library / "mxrc_reference.compiled.pyz"


def launcher(program: Path, library: Path) -> Path:
    """Write a launcher that looks into the directory; its name decides the role, as on the host."""
    text = (SOURCES / "launcher.py").read_text(encoding="utf-8")
    assert text.count(LIBRARY) == 2
    program.write_text(text.replace(LIBRARY, str(library)), encoding="utf-8")
    program.chmod(0o755)
    return program
