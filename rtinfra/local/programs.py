"""The programs of this computer: is each one here, install the missing ones, run them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtinfra.local.errors import LocalError
from rtinfra.local.file_lock import locked
from rtinfra.local.progress import Reporter

# Where administration programs are; not in everybody's PATH.
_ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_APT_LOCK = Path("/run/lock/rtinfra-apt.lock")


@dataclass(frozen=True)
class Tool:
    """A program (or a file, when it starts with a slash) and the Debian package that brings it."""

    name: str
    package: str


def find(name: str) -> Path | None:
    """The path of a program or file, or None."""
    if name.startswith("/"):
        path = Path(name)
        return path if path.exists() else None
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_PATH}")
    return Path(found) if found else None


def ensure(tools: Iterable[Tool], report: Reporter) -> None:
    """Install what is missing; when this user may not, say which command does it.

    Raises LocalError when packages are missing and cannot be installed.
    """
    required = tuple(tools)
    packages = _missing(required)
    if not packages:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or find("apt-get") is None:
        raise LocalError(
            f"these Debian packages are needed and not installed: {', '.join(packages)}",
            f"run: sudo {' '.join(command)}",
        )
    with (
        # apt waits for another one that installs, and fails at once beside one that fetches its lists.
        locked(_APT_LOCK, "installing Debian packages", timeout=1200),
        report.step(f"Installing Debian packages on this machine: {', '.join(packages)}", usual=60),
    ):
        # A machine that never ran `apt-get update`, or long ago, fails the first attempt.
        attempt = _apt(command)
        if attempt.returncode != 0:
            _apt(["apt-get", "update"])
            attempt = _apt(command)
    left = _missing(required)
    if left:
        raise LocalError(
            f"apt-get could not install {', '.join(left)}",
            f"see why with: apt-get update && {' '.join(command)}",
            "\n".join(attempt.stdout.splitlines()[-10:]),
        )


def _missing(tools: Iterable[Tool]) -> list[str]:
    """The Debian packages of the tools that are not here."""
    return sorted({tool.package for tool in tools if find(tool.name) is None})


def _apt(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Another apt may be at work (automatic updates): wait for it instead of failing.
    waiting = [command[0], "--quiet", "--option", "DPkg::Lock::Timeout=300", *command[1:]]
    return execute(waiting, timeout=1200, check=False, env={"DEBIAN_FRONTEND": "noninteractive"})


def execute(
    command: Sequence[str | Path],
    *,
    timeout: float,
    check: bool = True,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path = Path(os.devnull),
) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine in at most ``timeout`` seconds; its whole family ends with it.

    It reads the file ``stdin``. Standard error is part of ``stdout``. Raises LocalError when it takes too long or
    (``check``) fails.
    """
    program = find(str(command[0]))
    if program is None:
        raise LocalError(
            f"the program {command[0]} is needed and not installed",
            f"install the Debian package that has {command[0]}, for example: sudo apt-get install {command[0]}",
        )
    words = [str(word) for word in (program, *command[1:])]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    environment["PATH"] = f"{environment.get('PATH', os.defpath)}:{_ADMIN_PATH}"
    # In a session of its own the program is not hit by Ctrl-C directly: we end it, children included.
    with (
        stdin.open("rb") as reader,
        subprocess.Popen(
            words,
            stdin=reader,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd=cwd,
        ) as process,
    ):
        try:
            raw, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            end_family(process)
            raise LocalError(
                f"{program.name} did not finish within {timeout:.0f} s",
                "try again; on a very slow or busy machine stop other work first",
                (error.output or b"").decode(errors="replace")[-2000:],
            ) from error
        except BaseException:
            end_family(process)
            raise
    output = raw.decode(errors="replace")
    if check and process.returncode != 0:
        raise LocalError(
            f"{program.name} ended with exit code {process.returncode}",
            f"its last lines above say why; the whole command was: {' '.join(words)}",
            "\n".join(output.splitlines()[-15:]),
        )
    return subprocess.CompletedProcess(words, process.returncode, output, "")


def end_family(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything it started: first politely (it may have mounts to undo), then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return
