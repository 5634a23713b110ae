"""What the process needs of the kernel and of the clock: C library calls, time, files that survive a power cut."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
NS_PER_US: Final = 1_000

#: Exit status of a process that cannot run or go on; systemd starts another.
EXIT_FAILURE: Final = 1


class Timespec(ctypes.Structure):
    """struct timespec of the kernel."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class Libc:
    """The C library calls Python has no wrapper for.

    Plain foreign calls only: a callback would need memory that is writable and executable, which
    MemoryDenyWriteExecute= forbids. A CDLL call releases the interpreter lock while it sleeps.
    """

    CLOCK_MONOTONIC = 1
    TIMER_ABSTIME = 1
    MCL_CURRENT = 1
    MCL_FUTURE = 2
    PR_SET_NAME = 15

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.clock_nanosleep = libc.clock_nanosleep
        self.clock_nanosleep.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self.clock_nanosleep.restype = ctypes.c_int
        self._mlockall = libc.mlockall
        self._prctl = libc.prctl

    def lock_memory(self) -> str:
        """Lock all present and future memory; return why not, or an empty text."""
        if self._mlockall(self.MCL_CURRENT | self.MCL_FUTURE) == 0:
            return ""
        return os.strerror(ctypes.get_errno())

    def name_thread(self, name: str) -> None:
        """Name the calling thread for ps, top and /proc/PID/task/*/comm (at most 15 characters)."""
        self._prctl(self.PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


LIBC: Final = Libc()


def format_utc(epoch_ns: int) -> str:
    """Return a point in time as ISO 8601 in UTC with milliseconds."""
    seconds, rest_ns = divmod(epoch_ns, NS_PER_S)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns // NS_PER_MS:03d}Z"


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file so that after a power cut either the old or the new content is there, whole."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Schedule:
    """Jobs that run every so many seconds, for a thread that waits in between."""

    def __init__(self) -> None:
        self._jobs: list[tuple[float, Callable[[], None]]] = []
        self._due: list[float] = []

    def every(self, seconds: float, job: Callable[[], None]) -> None:
        """Add a job; its first run is one interval from now."""
        self._jobs.append((seconds, job))
        self._due.append(time.monotonic() + seconds)

    def run_due(self) -> float:
        """Run what is due; return the seconds until the next job."""
        for index, (interval, job) in enumerate(self._jobs):
            if time.monotonic() >= self._due[index]:
                job()
                self._due[index] = time.monotonic() + interval
        return max(0.0, min(self._due) - time.monotonic())
