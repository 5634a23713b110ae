"""A small client for QEMU's control socket (QMP: one JSON object a line)."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rtinfra.lab.errors import LabError


class QmpError(LabError):
    """QEMU does not answer, or answered with an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "see `rtinfra lab status` and `rtinfra lab log`; `rtinfra lab reset` starts afresh")


class Qmp:
    """Connection to the monitor of a running QEMU (QMP), as a context manager.

    ``timeout`` bounds, in seconds, the wait for each answer. QEMU serves one client at a time, so keep
    conversations short. Raises QmpError.
    """

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(self._timeout)
        try:
            self._socket.connect(str(self._path))
            self._reader = self._socket.makefile("r", encoding="utf-8")
            self._receive(time.monotonic() + self._timeout)
        except OSError as error:
            self._socket.close()
            raise QmpError(f"the machine's control socket {self._path} does not answer ({error})") from error
        self.execute("qmp_capabilities")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._socket.close()

    def execute(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Send one command and return its result; events in between are skipped."""
        seconds = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        message = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            while True:
                answer = self._receive(deadline)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"QEMU refused {command}: {answer['error'].get('desc', answer['error'])}")
        except OSError as error:
            raise QmpError(f"QEMU did not answer {command} within {seconds:.0f} s ({error})") from error

    def quit(self) -> None:
        """End QEMU at once, which to the guest is a power cut. QEMU may be gone before it answers."""
        try:
            self._socket.sendall(b'{"execute": "quit"}\n')
            while self._reader.readline():
                pass
        except OSError:
            pass

    def _receive(self, deadline: float) -> dict[str, Any]:
        self._socket.settimeout(max(0.1, deadline - time.monotonic()))
        line = self._reader.readline()
        if not line:
            raise ConnectionError("the connection was closed")
        answer: dict[str, Any] = json.loads(line)
        return answer
