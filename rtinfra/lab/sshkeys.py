"""Keys and client configuration: who may log in to a machine, and how a client knows it is the right one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rtinfra.lab.errors import LabError
from rtinfra.local import programs


def ensure_key(path: Path, comment: str) -> str:
    """Create an ed25519 key pair without passphrase when there is none; returns the public key line."""
    public = path.with_name(f"{path.name}.pub")
    if not (path.exists() and public.exists()):
        path.unlink(missing_ok=True)
        programs.execute(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path], timeout=60)
    return public.read_text(encoding="ascii").strip()


def known_hosts_line(port: int, host_key: str) -> str:
    """The entry for a machine behind a port of 127.0.0.1 (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT")."""
    kind, key = host_key.split()[:2]
    return f"[127.0.0.1]:{port} {kind} {key}\n"


def client_config(name: str, user: str, port: int, key: Path, known_hosts: Path, control: Path) -> str:
    """An ssh_config(5) with which ``ssh -F FILE NAME`` reaches the machine, and nothing else does."""
    return f"""\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile "{key}"
  IdentitiesOnly yes
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  HostKeyAlgorithms ssh-ed25519
  BatchMode yes
  ConnectTimeout 30
  ServerAliveInterval 10
  ServerAliveCountMax 6
  ControlMaster auto
  ControlPath "{control}"
  ControlPersist 300
  LogLevel ERROR
"""


def runtime_directory() -> Path:
    """A short directory of this user for sockets, whose paths may not exceed 107 characters (unix(7)).

    Not $XDG_RUNTIME_DIR: that one is removed when the user logs out, and machines run on.
    Raises LabError when somebody else owns the directory.
    """
    path = Path(f"/tmp/rtinfra-{os.geteuid()}")  # nosec B108 - owner and mode are checked below
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise LabError(
            f"{path} must be a directory that only this user can enter, and it is not",
            f"look at it with `ls -ld {path}`, then remove it",
        )
    return path
