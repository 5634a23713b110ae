"""The same desired state as one plain shell script, as people write them: no checks, no trial, no second thoughts."""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from collections.abc import Iterator

from benchmarks.record import Desired
from rtinfra.operations.resources import Absent, Directory, File, Owned, Resource

#: Begins the line with which the script says what it does next.
STAGE = "@ "
_ROOT = ("root", "root")
_END = "END-OF-FILES"
# As the deploy asks apt: no question, no recommended package, no configuration file replaced.
_APT = "apt-get -y -q --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"


def shell_script(desired: Desired) -> bytes:
    """Return a script for a bare host that installs packages and files, writes the boot menu, and reboots."""
    return "\n".join(_lines(desired)).encode() + b"\n"


def _lines(desired: Desired) -> Iterator[str]:
    yield from ("#!/bin/sh", "set -eu", "export DEBIAN_FRONTEND=noninteractive")
    yield f"echo '{STAGE}packages'"
    yield "apt-get -q update"
    yield f"{_APT} install {shlex.join(desired.packages)}"
    yield f"echo '{STAGE}files'"
    yield f"base64 -d <<'{_END}' | tar -x -p -m -C /"
    yield base64.encodebytes(archive(desired)).decode().rstrip("\n")
    yield _END
    yield from (f"rm -f {shlex.quote(path.path)}" for path in desired.paths if isinstance(path, Absent))
    # The accounts of files that are not root's are in files themselves.
    yield "systemd-sysusers"
    for path in desired.paths:
        if isinstance(path, Owned) and (path.owner, path.group) != _ROOT:
            place = shlex.quote(path.path)
            yield f"chown {path.owner}:{path.group} {place} && chmod {path.mode} {place}"
    yield f"echo '{STAGE}boot loader'"
    # Not the one of the role rt_kernel, which is among the files.
    yield "/usr/sbin/update-grub"
    yield f"echo '{STAGE}units'"
    yield from _units(desired)
    yield f"echo '{STAGE}reboot'"
    yield "systemctl reboot"


def _units(desired: Desired) -> Iterator[str]:
    for startup, verb in (("enabled", "enable"), ("disabled", "disable"), ("masked", "mask")):
        names = [unit.name for unit in desired.units if unit.startup == startup]
        if names:
            yield f"systemctl {verb} --quiet {shlex.join(names)}"


def archive(desired: Desired) -> bytes:
    """Return a tar of every file and directory with its mode; all belong to root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in desired.paths:
            member = _member(path)
            if member is not None:
                tar.addfile(member, io.BytesIO(path.content) if isinstance(path, File) else None)
    return packed.getvalue()


def _member(path: Resource) -> tarfile.TarInfo | None:
    member = tarfile.TarInfo(path.path.lstrip("/"))
    match path:
        case File():
            member.size = len(path.content)
        case Directory():
            member.type = tarfile.DIRTYPE
        case Absent():
            return None
        case _:
            raise TypeError(f"{type(path).__name__} has no counterpart in a shell script here")
    member.mode = int(path.mode, 8)
    member.uname = member.gname = "root"
    return member
