"""The log: JSON lines after the Elastic Common Schema, written by a thread of its own."""

from __future__ import annotations

import errno
import json
import os
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .spans import SpanContext
from .system import format_utc

#: Further ECS fields of a log event, by their dotted names.
LogFields = Mapping[str, str | int]


class EcsLog:
    """JSON lines after the Elastic Common Schema in a file, and a short line on stderr for the journal.

    Callers only put a line into a queue; one thread writes, so that no disk ever stops a caller.
    """

    LEVELS: Final = ("debug", "info", "warn", "error", "critical")
    ECS_VERSION: Final = "8.11.0"
    QUEUE_LIMIT: Final = 10_000
    BATCH_LIMIT: Final = 256
    _JOURNAL_PRIORITY: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}

    def __init__(self, path: Path, process_name: str, service_name: str) -> None:
        self.events = dict.fromkeys(self.LEVELS, 0)
        self.dropped = 0
        self._path = path
        self._process_name = process_name
        self._service_name = service_name
        self._queue: queue.SimpleQueue[tuple[bytes, bytes] | threading.Event] = queue.SimpleQueue()
        self._count_lock = threading.Lock()
        self._descriptor = -1
        self._identity: tuple[int, int] | None = None
        self._reopen_wanted = False
        self._file_problem = ""
        # The journal turns "<4>" at the start of a line into a priority; a terminal would just show it.
        self._to_journal = "JOURNAL_STREAM" in os.environ

    def write(
        self, level: str, message: str, context: SpanContext | None = None, fields: LogFields | None = None
    ) -> None:
        """Queue one event; with a span context it can be found from its trace and back."""
        record: dict[str, str | int] = {
            "@timestamp": format_utc(time.time_ns()),
            "log.level": level,
            "message": message,
            "ecs.version": self.ECS_VERSION,
            "service.name": self._service_name,
            "process.name": self._process_name,
            "process.pid": os.getpid(),
            "process.thread.name": threading.current_thread().name,
        }
        if context is not None:
            record["trace.id"] = context.trace_id
            record["span.id"] = context.span_id
        if fields:
            record.update(fields)
        prefix = f"<{self._JOURNAL_PRIORITY[level]}>" if self._to_journal else ""
        short = f"{prefix}{level.upper()} {message}".replace("\n", " | ")
        with self._count_lock:
            self.events[level] += 1
            if self._queue.qsize() >= self.QUEUE_LIMIT:
                self.dropped += 1
                return
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._queue.put((line.encode(errors="replace"), f"{short}\n".encode(errors="replace")))

    def info(self, message: str, context: SpanContext | None = None, fields: LogFields | None = None) -> None:
        """Queue an event of level info."""
        self.write("info", message, context, fields)

    def warn(self, message: str, context: SpanContext | None = None, fields: LogFields | None = None) -> None:
        """Queue an event of level warn."""
        self.write("warn", message, context, fields)

    def error(self, message: str, context: SpanContext | None = None, fields: LogFields | None = None) -> None:
        """Queue an event of level error."""
        self.write("error", message, context, fields)

    def reopen(self) -> None:
        """Use a new file from the next line on (after a rotation)."""
        self._reopen_wanted = True

    def flush(self, timeout_s: float) -> None:
        """Wait until all lines queued so far are written, but not longer than the timeout."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(timeout_s)

    def run(self) -> None:
        """Write lines for ever; the body of the writer thread."""
        while True:
            batch = [self._queue.get()]
            while len(batch) < self.BATCH_LIMIT and not self._queue.empty():
                batch.append(self._queue.get())
            lines = [item for item in batch if isinstance(item, tuple)]
            if lines:
                self._write_file(b"".join(line for line, _ in lines), len(lines))
                self._write_stderr(b"".join(short for _, short in lines))
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _write_file(self, content: bytes, lines: int) -> None:
        try:
            self._open_if_needed()
            while content:
                content = content[os.write(self._descriptor, content) :]
            self._file_problem = ""
        except OSError as error:
            self.dropped += lines
            problem = f"{self._path}: {error.strerror}"
            if problem != self._file_problem:
                self._file_problem = problem
                self._write_stderr(f"WARN log lines are lost: {problem}\n".encode())

    def _open_if_needed(self) -> None:
        """Open the file again when it was renamed away or removed: rotation must not need a signal."""
        same_file = self._identity is not None and self._identity == self._identity_of_path()
        if same_file and not self._reopen_wanted:
            return
        self._reopen_wanted = False
        self._identity = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o640)
        status = os.fstat(self._descriptor)
        self._identity = (status.st_dev, status.st_ino)

    def _identity_of_path(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @staticmethod
    def _write_stderr(content: bytes) -> None:
        try:
            os.write(2, content)
        except OSError as error:
            # Nobody reads stderr any more; the file still has every line.
            if error.errno not in (errno.EPIPE, errno.EAGAIN, errno.EBADF, errno.EIO):
                raise
