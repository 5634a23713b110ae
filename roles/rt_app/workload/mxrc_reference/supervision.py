"""What systemd and the process tell each other: notifications, the watchdog, signals."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Final


class Notifier:
    """The notify protocol (sd_notify(3)); does nothing outside systemd."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the null byte of the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(1.0)

    def send(self, *assignments: str) -> bool:
        """Send assignments such as READY=1; return whether they were handed over."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True


class Watchdog:
    """Feeds systemd's watchdog by the progress of the loop: a stuck loop is not fed for."""

    def __init__(self, environ: Mapping[str, str], notifier: Notifier, progress: Callable[[], int]) -> None:
        self._notifier = notifier
        self._progress = progress
        self._fed_at = -1
        for_this_process = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        timeout_us = environ.get("WATCHDOG_USEC", "") if for_this_process else ""
        #: Seconds between two feeds; 0: no watchdog. A quarter, so that one late feed does no harm.
        self.interval_s = int(timeout_us) / 1e6 / 4 if timeout_us.isdigit() else 0.0

    def feed(self, status: str) -> bool:
        """Feed when the loop moved since the last time; return whether it was fed."""
        progress = self._progress()
        if progress == self._fed_at:
            return False
        self._fed_at = progress
        return self._notifier.send("WATCHDOG=1", f"STATUS={status}")


class Signals:
    """SIGTERM, SIGINT and SIGHUP as bytes on a socket, for the main thread only."""

    HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._reader, writer = socket.socketpair()
        self._reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach())
        for number in self.HANDLED:
            signal.signal(number, lambda *_: None)
        # Threads inherit the blocked mask; the supervisor, in the main thread, opens it again for itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.HANDLED)

    def open(self) -> None:
        """Let signals reach the calling thread."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.HANDLED)

    def wait(self, timeout_s: float) -> bytes:
        """Return the numbers of the signals that came, after the timeout at the latest."""
        readable, _, _ = select.select([self._reader], [], [], timeout_s)
        return self._reader.recv(64) if readable else b""
