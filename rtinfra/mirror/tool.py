"""This tool as a file that can be carried: the same commit gives the same bytes."""

from __future__ import annotations

import io
import stat
import tarfile
import tomllib
from pathlib import Path

from rtinfra.images.oci import EPOCH
from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LOCK_NAME

#: Name of the tool's requirements in the lock, and where they are in the project.
REQUIREMENTS_NAME = "requirements.txt"
REQUIREMENTS = Path("requirements/runtime.txt")


def version(project: Path) -> str:
    """Return the version of the tool."""
    return str(tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def archive_name(project: Path) -> str:
    """Return what the archive is called."""
    return f"rtinfra-{version(project)}.tar"


def archive(project: Path) -> bytes:
    """Return a tar archive of everything that is under version control, below one folder.

    Sorted, with one fixed time and no names of people. The lock is left out: it names the hash of this archive.

    Raises:
        MirrorError: the project folder is not under version control, or a file of it was removed.
    """
    top = archive_name(project).removesuffix(".tar")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in _tracked(project):
            path = project / name
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.mtime = EPOCH
            try:
                status = path.lstat()
                if path.is_symlink():
                    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
                    tar.addfile(entry)
                    continue
                data = path.read_bytes()
            except FileNotFoundError:
                raise MirrorError(
                    f"{name} is under version control and not in {project}",
                    "restore it (`git checkout -- FILE`) or remove it for good (`git rm FILE`)",
                ) from None
            entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _tracked(project: Path) -> list[str]:
    # A list, not a look at the folder: secrets and hosts of the operator lie there too.
    command: list[str | Path] = ["git", "-c", f"safe.directory={project}", "-C", project, "ls-files", "-z"]
    try:
        listed = programs.execute(command, timeout=60).stdout
    except LocalError as error:
        raise MirrorError(
            f"{project} is not under version control, so it cannot be told which files are the tool's",
            "lock the mirror in a git clone of rtinfra (`git clone`), with git installed",
            error.detail,
        ) from error
    return sorted(name for name in listed.split("\0") if name and name != LOCK_NAME)
