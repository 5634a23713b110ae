#!/usr/bin/python3 -ISB
"""Reference workload: stands in for the MXRC processes until the real application is delivered.

One file, two programs; launcher.py, installed under their names, starts it from its compiled form. As
`rt_process` it is the real-time process: a SCHED_FIFO loop on its isolated core with locked memory. As
`non_rt_process` (or with `--role non-rt`) it is the other one: an ordinary process on the housekeeping cores.
Both speak what the application speaks to its surroundings:
systemd's notify protocol, health and metrics over HTTP, ECS logs, OTLP spans, checkpoints. Both need only
the Python standard library.

Threads, and why they are separate:

    main          signals, watchdog, health check; does no file I/O, so a slow disk cannot starve the watchdog
    cycle-loop    the loop; the only thread with a real-time policy; does no I/O and takes no lock
    housekeeping  checkpoints, NUMA statistics, garbage collection
    log-writer    log file and stderr
    span-export   OTLP over HTTP
    tasks         runs tasks one after the other
    http-*        health and metrics servers, one short-lived thread per request

Real-time notes. A Python loop shares the interpreter lock with its helpers, so a helper can delay it by the
switch interval set below plus the length of one C call. That is fine for accepting a host and its telemetry;
the latency of a host is measured with cyclictest, not with this program.

Imports are few on purpose: they are most of the start-up time on a slow machine, and all their memory is
locked.
"""

from __future__ import annotations

import argparse
import binascii
import ctypes
import enum
import errno
import gc
import json
import os
import queue
import re
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

if __name__ == "__main__":
    # http.client would load OpenSSL (5 MB, locked) for https, which nothing here uses; it copes without.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import http.client
import http.server
import socketserver

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
NS_PER_US: Final = 1_000

EXIT_FAILURE: Final = 1
EXIT_BAD_CONFIG: Final = 2

#: Longest the interpreter lets one thread run while another waits for it, in seconds.
SWITCH_INTERVAL_S: Final = 50e-6
#: Stack of every thread but main, in bytes. The default of 8 MB would be locked in memory for each.
THREAD_STACK_BYTES: Final = 512 * 1024
#: The loop waits at least 1/4 of the time it ran, so 20 % of its core stay free whatever happens. Where
#: kernel.sched_rt_runtime_us is -1, nothing else would stop a loop that is too slow for its period.
BUSY_PER_IDLE: Final = 4
CHECKPOINTS_KEPT: Final = 3
#: Seconds between two turns of the sliding window that jitter and miss rate are shown for.
WINDOW_S: Final = 30.0
STATISTICS_S: Final = 10.0
FIRST_CYCLE_S: Final = 10.0
#: Longest wait for one thread at a stop, in seconds; all together must stay below 2 s.
STOP_JOIN_S: Final = 0.5


class ConfigError(Exception):
    """A configuration file or option that cannot be used; the text names file and key."""


# --- Settings ---------------------------------------------------------------------------------------------


class Role(NamedTuple):
    """What differs between the two programs."""

    name: str
    realtime: bool
    health_port: int
    metrics_port: int
    cycle_us: int
    default_service_name: str


RT_ROLE: Final = Role("rt_process", True, 8080, 9090, 1_000, "mxrc-rt")
NON_RT_ROLE: Final = Role("non_rt_process", False, 8081, 9091, 100_000, "mxrc-non-rt")


class AffinitySettings(NamedTuple):
    """cpu_affinity.json, the section of this process."""

    cpu_cores: list[int]
    priority: int
    policy: str
    isolation_mode: str
    is_exclusive: bool


class NumaSettings(NamedTuple):
    """numa_binding.json, the section of this process. systemd applies the binding; here it is measured."""

    numa_node: int
    memory_policy: str
    strict_binding: bool
    migrate_pages: bool
    cpu_cores_hint: list[int]


class FailoverSettings(NamedTuple):
    """failover_policy.json. systemd does the restarts; here are the self check and the checkpoints."""

    health_check_interval_ms: int
    health_check_timeout_ms: int
    failure_threshold: int
    restart_delay_ms: int
    max_restart_count: int
    restart_window_sec: int
    enable_state_recovery: bool
    checkpoint_interval_sec: int
    enable_leader_election: bool


class TracingSettings(NamedTuple):
    """tracing_config.json. An empty endpoint switches the export off."""

    service_name: str
    sampling_rate: float
    endpoint: str
    eventbus: bool
    task_executor: bool
    rt_cycle: bool


class Settings(NamedTuple):
    """Everything from the four files, and what in them was ignored."""

    affinity: AffinitySettings
    numa: NumaSettings
    failover: FailoverSettings
    tracing: TracingSettings
    warnings: list[str]


class Section:
    """One JSON object of a configuration file, read key by key with errors that name file and key."""

    def __init__(self, path: Path, name: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._name = name
        self._values = values
        self._read: set[str] = set()

    @classmethod
    def load(cls, path: Path) -> Section:
        """Read a whole file as one section."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must be a JSON object")
        return cls(path, "", values)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def section(self, key: str, *, required: bool = True) -> Section:
        """Return the object below a key; an empty one when it may be absent."""
        self._read.add(key)
        value = self._values.get(key, None if required else {})
        if not isinstance(value, dict):
            name = self._full(key)
            problem = f'missing key "{name}"' if value is None else f'"{name}" must be an object'
            raise ConfigError(f"{self._path}: {problem}")
        return Section(self._path, self._full(key), value)

    def integer(self, key: str, minimum: int, maximum: int | None = None) -> int:
        """Return a whole number within bounds."""
        value = self._required(key)
        if not _is_int(value) or value < minimum or (maximum is not None and value > maximum):
            bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise self._bad(key, value, f"a whole number, {bounds}")
        return int(value)

    def number(self, key: str, minimum: float, maximum: float) -> float:
        """Return a number within bounds."""
        value = self._required(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise self._bad(key, value, f"a number, {minimum} to {maximum}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false; an error without a default when absent."""
        value = self._required(key) if default is None else self._optional(key, default)
        if not isinstance(value, bool):
            raise self._bad(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None, choices: Iterable[str] = ()) -> str:
        """Return a text; an error without a default when absent."""
        value = self._required(key) if default is None else self._optional(key, default)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self._bad(key, value, f"one of {', '.join(choices)}" if choices else "a text")
        return value

    def cores(self, key: str, default: list[int] | None = None) -> list[int]:
        """Return a list of CPU numbers in order; an error without a default when absent."""
        value = self._required(key) if default is None else self._optional(key, default)
        if not isinstance(value, list) or not value or not all(_is_int(core) and core >= 0 for core in value):
            raise self._bad(key, value, "a list of CPU numbers")
        return sorted(set(value))

    def unknown(self) -> list[str]:
        """Return a sentence for every key nobody asked for."""
        names = sorted(set(self._values) - self._read)
        return [f'{self._path}: unknown key "{self._full(name)}" ignored' for name in names]

    def _required(self, key: str) -> Any:
        self._read.add(key)
        if key not in self._values:
            raise ConfigError(f'{self._path}: missing key "{self._full(key)}"')
        return self._values[key]

    def _optional(self, key: str, default: Any) -> Any:
        self._read.add(key)
        return self._values.get(key, default)

    def _full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _bad(self, key: str, value: object, wanted: str) -> ConfigError:
        return ConfigError(f'{self._path}: "{self._full(key)}" is {json.dumps(value)}, must be {wanted}')


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def load_settings(options: argparse.Namespace, role: Role) -> Settings:
    """Read and check the configuration files.

    Raises:
        ConfigError: a file is missing or malformed, or a key is missing or out of range.
    """
    warnings: list[str] = []

    section = Section.load(options.config).section(role.name)
    affinity = AffinitySettings(
        cpu_cores=section.cores("cpu_cores"),
        priority=section.integer("priority", 0, 99),
        policy=section.text("policy", choices=("SCHED_FIFO", "SCHED_RR", "SCHED_OTHER")),
        isolation_mode=section.text("isolation_mode", "NONE"),
        is_exclusive=section.flag("is_exclusive", False),
    )
    if (affinity.policy == "SCHED_OTHER") != (affinity.priority == 0):
        raise ConfigError(
            f'{options.config}: "{role.name}.priority" is {affinity.priority}, which does not go with policy '
            f"{affinity.policy} (SCHED_OTHER: 0, SCHED_FIFO and SCHED_RR: 1 to 99)"
        )
    warnings += section.unknown()

    section = Section.load(options.numa_config).section(role.name)
    numa = NumaSettings(
        numa_node=section.integer("numa_node", 0),
        memory_policy=section.text("memory_policy", "LOCAL"),
        strict_binding=section.flag("strict_binding", False),
        migrate_pages=section.flag("migrate_pages", False),
        cpu_cores_hint=section.cores("cpu_cores_hint", affinity.cpu_cores),
    )
    if numa.cpu_cores_hint != affinity.cpu_cores:
        warnings.append(
            f"{options.numa_config}: cpu_cores_hint {numa.cpu_cores_hint} differs from cpu_cores "
            f"{affinity.cpu_cores} in {options.config}; the latter counts"
        )
    warnings += section.unknown()

    # The policy may speak of the real-time process only; then it holds for both.
    policies = Section.load(options.failover_config)
    section = policies.section(role.name if policies.has(role.name) else RT_ROLE.name)
    failover = FailoverSettings(
        health_check_interval_ms=section.integer("health_check_interval_ms", 1),
        health_check_timeout_ms=section.integer("health_check_timeout_ms", 1),
        failure_threshold=section.integer("failure_threshold", 1),
        restart_delay_ms=section.integer("restart_delay_ms", 0),
        max_restart_count=section.integer("max_restart_count", 1),
        restart_window_sec=section.integer("restart_window_sec", 1),
        enable_state_recovery=section.flag("enable_state_recovery"),
        checkpoint_interval_sec=section.integer("checkpoint_interval_sec", 1),
        enable_leader_election=section.flag("enable_leader_election", False),
    )
    if failover.enable_leader_election:
        warnings.append(f"{options.failover_config}: enable_leader_election has no effect in this workload")
    warnings += section.unknown()

    if options.tracing_config is None:
        tracing = TracingSettings(role.default_service_name, 0.0, "", False, False, False)
    else:
        tracing = _load_tracing(options.tracing_config, role, warnings)
    if options.service_name:
        tracing = tracing._replace(service_name=options.service_name)
    return Settings(affinity, numa, failover, tracing, warnings)


def _load_tracing(path: Path, role: Role, warnings: list[str]) -> TracingSettings:
    section = Section.load(path)
    service_name = section.text("service_name")
    sampling_rate = section.number("sampling_rate", 0.0, 1.0)
    propagator = section.text("propagator", "W3C")
    if propagator.upper() != "W3C":
        warnings.append(f'{path}: propagator "{propagator}" is not supported, W3C is used')

    exporter = section.section("exporter")
    kind = exporter.text("type", "OTLP")
    exporter.text("protocol", "http")
    endpoint = exporter.text("endpoint", "")
    if not kind.upper().startswith("OTLP") or not re.fullmatch(r"http://[^\s/]+(/\S*)?", endpoint):
        warnings.append(f'{path}: exporter type "{kind}" with endpoint "{endpoint}": spans are not exported')
        endpoint = ""

    instrumentation = section.section("instrumentation", required=False)
    settings = TracingSettings(
        # The file names the service of the real-time process.
        service_name=service_name if role.realtime else role.default_service_name,
        sampling_rate=sampling_rate,
        endpoint=endpoint,
        eventbus=instrumentation.flag("eventbus", True),
        task_executor=instrumentation.flag("task_executor", True),
        rt_cycle=instrumentation.flag("rt_cycle", True),
    )
    warnings += [*section.unknown(), *exporter.unknown(), *instrumentation.unknown()]
    return settings


def parse_options(argv: Sequence[str]) -> tuple[argparse.Namespace, Role]:
    """Read the command line; every option can also come from the environment as MXRC_<OPTION>."""
    # The role decides defaults of the other options, so it is looked for first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    program_is_non_rt = Path(argv[0]).name.startswith("non_rt")
    first.add_argument("--role", choices=("rt", "non-rt"), default="non-rt" if program_is_non_rt else "rt")
    known, _ = first.parse_known_args(argv[1:])
    role = RT_ROLE if known.role == "rt" else NON_RT_ROLE

    parser = argparse.ArgumentParser(
        prog=role.name,
        parents=[first],
        allow_abbrev=False,
        description="Reference workload: stands in for MXRC's processes.",
        epilog="Every option with a value can also be given as environment variable MXRC_<OPTION>, "
        "for example MXRC_CYCLE_US=20000; MXRC_ENABLE_FAULTS=1 switches faults on.",
    )

    def add(name: str, kind: Callable[[str], Any], default: str | None, text: str) -> None:
        value = os.environ.get("MXRC_" + name.upper().replace("-", "_"), default)
        parser.add_argument("--" + name, type=kind, default=value, required=value is None, help=text)

    add("config", Path, None, "cpu_affinity.json")
    add("numa-config", Path, None, "numa_binding.json")
    add("failover-config", Path, None, "failover_policy.json")
    add("tracing-config", _optional_path, "", "tracing_config.json; without it nothing is traced")
    add("bind", str, "127.0.0.1", "address /health and the task API listen on (%(default)s)")
    add("metrics-bind", str, "127.0.0.1", "address /metrics listens on (%(default)s)")
    add("health-port", _port, str(role.health_port), "port of /health and the task API (%(default)s)")
    add("metrics-port", _port, str(role.metrics_port), "port of /metrics (%(default)s)")
    add("cycle-us", _cycle_us, str(role.cycle_us), "period of the loop in microseconds (%(default)s)")
    add("deadline-us", int, "0", "a cycle done later than this after its release is a miss; 0: the period")
    add("checkpoint-dir", Path, "/var/mxrc/checkpoints", "directory of checkpoints (%(default)s)")
    add("log-file", Path, f"/var/log/mxrc/{role.name}.log", "JSON log (%(default)s)")
    add("service-name", str, "", "name of the service in traces and metrics")
    parser.add_argument(
        "--enable-faults",
        action="store_true",
        default=os.environ.get("MXRC_ENABLE_FAULTS", "").lower() in ("1", "true", "yes"),
        help="accept POST /api/v1/fault",
    )
    return parser.parse_args(argv[1:]), role


def _optional_path(text: str) -> Path | None:
    return Path(text) if text else None


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 1 to 65535")
    return value


def _cycle_us(text: str) -> int:
    value = int(text)
    if not 100 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 100 and 1000000 microseconds")
    return value


# --- The operating system ---------------------------------------------------------------------------------


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


# --- Log --------------------------------------------------------------------------------------------------


class SpanContext(NamedTuple):
    """What W3C trace context carries from one service to the next."""

    trace_id: str
    span_id: str
    sampled: bool
    trace_state: str = ""

    def traceparent(self) -> str:
        """Return the value of the traceparent header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


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
        record: dict[str, Any] = {
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


class Threads:
    """Starts threads that the process cannot live without."""

    def __init__(self, log: EcsLog) -> None:
        self._log = log

    def start(self, name: str, body: Callable[[], None]) -> threading.Thread:
        """Run `body` in a named thread. An error in it ends the process: systemd then starts a sound one."""

        def run() -> None:
            LIBC.name_thread(name)
            try:
                body()
            except Exception:
                self._log.write("critical", f"thread {name} failed: {traceback.format_exc()}")
                self._log.flush(1.0)
                os._exit(EXIT_FAILURE)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


# --- systemd ----------------------------------------------------------------------------------------------


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


class Scheduling:
    """Policy, priority and cores of the threads; what is not permitted is a warning, not an end."""

    _POLICIES: Final = {"SCHED_OTHER": os.SCHED_OTHER, "SCHED_FIFO": os.SCHED_FIFO, "SCHED_RR": os.SCHED_RR}

    def __init__(self, settings: AffinitySettings, realtime: bool, log: EcsLog) -> None:
        self._settings = settings
        self._realtime = realtime
        self._log = log
        self.memory_locked = False
        self.loop_policy = ""
        self.loop_priority = 0
        self.loop_cores: list[int] = []

    def settle_helpers(self) -> None:
        """Make the main thread, and with it all threads it starts, an ordinary one on the process's cores.

        The unit gives the whole process a real-time policy; a helper with it would delay the loop.
        Isolated cores have no load balancing: a thread stays where it is. So helpers are first put on the
        cores that the loop does not use, and are then given the full set, which is what everybody expects
        to see.
        """
        policy, priority, cores = self._effective()
        self._log.info(f"started with {policy} {priority} on cores {cores}")
        self._set_policy("SCHED_OTHER", 0)
        every_core = self._settings.cpu_cores
        if self._realtime and len(every_core) > 1:
            self._set_cores(every_core[1:])
        self._set_cores(every_core)

    def settle_loop(self) -> None:
        """Give the calling thread the configured policy; a real-time loop stays on the first core."""
        cores = self._settings.cpu_cores[:1] if self._realtime else self._settings.cpu_cores
        self._set_cores(cores)
        self._set_policy(self._settings.policy, self._settings.priority)
        self.loop_policy, self.loop_priority, self.loop_cores = self._effective()
        self._log.info(f"loop runs with {self.loop_policy} {self.loop_priority} on cores {self.loop_cores}")

    def lock_memory(self) -> None:
        """Keep all memory resident, so that the loop never waits for a page."""
        problem = LIBC.lock_memory()
        self.memory_locked = not problem
        if problem:
            self._log.warn(f"memory is not locked: {problem} (needs LimitMEMLOCK=infinity)")

    def _effective(self) -> tuple[str, int, list[int]]:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        names = {number: name for name, number in self._POLICIES.items()}
        priority = os.sched_getparam(0).sched_priority
        return names.get(policy, str(policy)), priority, sorted(os.sched_getaffinity(0))

    def _set_policy(self, name: str, priority: int) -> None:
        # An unprivileged process may keep the reset-on-fork flag but not drop it.
        reset_flag = os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK
        try:
            os.sched_setscheduler(0, self._POLICIES[name] | reset_flag, os.sched_param(priority))
        except OSError as error:
            reason = f"{error.strerror} (needs LimitRTPRIO={priority})"
            self._log.warn(f"{name} {priority} not permitted: {reason}")

    def _set_cores(self, cores: list[int]) -> None:
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            self._log.warn(f"cores {cores} cannot be used: {error.strerror}")


# --- The loop ---------------------------------------------------------------------------------------------


class Distribution:
    """Counts of durations: exact to 1 us below 1024 us, by powers of two above."""

    LINEAR_US: Final = 1024
    #: Upper bounds shown in a Prometheus histogram, in microseconds. All are edges of the counts.
    EDGES_US: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1024, 2048, 4096, 8192, 16384, 65536, 262144)
    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * (self.LINEAR_US + 65)

    @classmethod
    def index(cls, duration_us: int) -> int:
        """Return which count a duration belongs to."""
        return duration_us if duration_us < cls.LINEAR_US else cls.LINEAR_US + duration_us.bit_length()

    def add(self, other: Distribution) -> None:
        """Add the counts of another distribution."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def total(self) -> int:
        """Return how many durations were counted."""
        return sum(self.counts)

    def below(self, edge_us: int) -> int:
        """Return how many durations were shorter than an edge."""
        return sum(self.counts[: self.index(edge_us)])

    def quantile(self, share: float) -> int:
        """Return the duration in us that `share` of all stay below; rounded up above 1024 us."""
        wanted = share * self.total()
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return index if index < self.LINEAR_US else (1 << (index - self.LINEAR_US)) - 1
        return 0


class Window:
    """What the loop did in some seconds. Written by the loop only."""

    __slots__ = ("latency", "latency_max_us", "misses", "scheduled")

    def __init__(self) -> None:
        self.latency = Distribution()
        self.latency_max_us = 0
        self.misses = 0
        self.scheduled = 0


class Recent(NamedTuple):
    """The last 30 to 60 seconds of the loop."""

    jitter_p99_us: int
    jitter_max_us: int
    miss_rate: float


class Controller:
    """Stand-in for the application's control law: one axis that follows a target."""

    __slots__ = ("position", "target", "velocity")

    def __init__(self) -> None:
        self.position = 0.0
        self.velocity = 0.0
        self.target = 0.0

    def step(self) -> None:
        """Advance by one cycle."""
        self.velocity = 0.9 * self.velocity + 0.005 * (self.target - self.position)
        self.position += self.velocity


class Faults:
    """Makes the loop misbehave on demand. All faults wait without using the processor."""

    KINDS: Final = ("hang", "crash", "deadline_miss", "slow")

    def __init__(self) -> None:
        #: The fault in force; the loop looks at this once per cycle.
        self.kind: str | None = None
        self._until_ns = 0
        self._released = threading.Event()

    def start(self, kind: str, duration_ms: int | None) -> None:
        """Begin a fault for so many milliseconds; None is for ever."""
        self._released.clear()
        self._until_ns = sys.maxsize if duration_ms is None else time.monotonic_ns() + duration_ms * NS_PER_MS
        self.kind = kind

    def release(self) -> None:
        """End a fault, so that the process can stop."""
        self.kind = None
        self._released.set()

    def apply(self, period_ns: int) -> None:
        """Misbehave for one cycle; called by the loop."""
        left_ns = self._until_ns - time.monotonic_ns()
        if left_ns <= 0:
            self.kind = None
        elif self.kind == "hang":
            self._released.wait(None if self._until_ns == sys.maxsize else left_ns / NS_PER_S)
        elif self.kind == "deadline_miss":
            time.sleep(2 * period_ns / NS_PER_S)
        elif self.kind == "slow":
            # Longer cycles that still meet their deadline on a host that is fast enough.
            time.sleep(0.6 * period_ns / NS_PER_S)


class CycleLoop:
    """The periodic loop, on absolute deadlines of the monotonic clock.

    Cycle k is released at t0 + k * period. Its latency is how late it starts, its deadline how late it may be
    done. A cycle that is done too late is a miss; releases that passed meanwhile are skipped, and each is a
    miss too: the loop never tries to catch up.

    Other threads only read the counters, single integers that need no lock.
    """

    def __init__(self, period_us: int, deadline_us: int, controller: Controller, faults: Faults) -> None:
        self.period_ns = period_us * NS_PER_US
        self.controller = controller
        self.cycles = 0
        self.misses = 0
        self.busy_ns = 0
        self.latency_sum_us = 0
        self.last_done_ns = time.monotonic_ns()
        self.cycle_time = Distribution()
        #: Set to have one cycle noted in `cycle_sample` as (number, start, end), for a span.
        self.sample_wanted = False
        self.cycle_sample: tuple[int, int, int] | None = None
        self._deadline_ns = deadline_us * NS_PER_US or self.period_ns
        self._faults = faults
        self._running = True
        self._window = Window()
        self._previous_window = Window()
        self._past_latency = Distribution()

    def stop(self) -> None:
        """Let the loop end after its current cycle."""
        self._running = False
        self._faults.release()

    def run(self) -> None:
        """Run cycles until stopped. Every line in the loop counts: this is the hot path."""
        period_ns = self.period_ns
        deadline_ns = self._deadline_ns
        smallest_idle_ns = period_ns // 10
        linear_us = Distribution.LINEAR_US
        timespec = Timespec()
        timespec_address = ctypes.addressof(timespec)
        sleep = LIBC.clock_nanosleep
        clock, absolute = LIBC.CLOCK_MONOTONIC, LIBC.TIMER_ABSTIME
        now = time.monotonic_ns
        faults = self._faults
        step = self.controller.step
        cycle_time_counts = self.cycle_time.counts

        release = wake_at = now() + period_ns
        while self._running:
            timespec.tv_sec = wake_at // NS_PER_S
            timespec.tv_nsec = wake_at % NS_PER_S
            if sleep(clock, absolute, timespec_address, None):
                # Only a bad argument or a signal ends it early. Never spin, whatever the reason.
                time.sleep(period_ns / NS_PER_S)
            start = now()
            latency_us = (start - release) // 1000
            window = self._window
            # Distribution.index(), without the call.
            window.latency.counts[latency_us if latency_us < linear_us else linear_us + latency_us.bit_length()] += 1
            self.latency_sum_us += latency_us
            if latency_us > window.latency_max_us:
                window.latency_max_us = latency_us

            step()
            if faults.kind is not None:
                faults.apply(period_ns)

            done = now()
            busy_ns = done - start
            busy_us = busy_ns // 1000
            cycle_time_counts[busy_us if busy_us < linear_us else linear_us + busy_us.bit_length()] += 1
            self.busy_ns += busy_ns
            self.last_done_ns = done
            self.cycles += 1
            window.scheduled += 1
            if done - release > deadline_ns:
                self.misses += 1
                window.misses += 1
            if self.sample_wanted:
                self.sample_wanted = False
                self.cycle_sample = (self.cycles, start, done)

            release += period_ns
            wake_at = release
            # The wait in every round that keeps this thread from taking the core for itself.
            earliest = done + max(smallest_idle_ns, busy_ns // BUSY_PER_IDLE)
            if earliest > release:
                skipped = (earliest - release) // period_ns
                release += skipped * period_ns
                wake_at = earliest
                self.misses += skipped
                window.misses += skipped
                window.scheduled += skipped

    def turn_window(self) -> None:
        """Begin a new window; called every WINDOW_S seconds by one thread."""
        # The loop may hold on to its window until the end of a cycle: a window is summed up one turn later.
        self._past_latency.add(self._previous_window.latency)
        self._previous_window = self._window
        self._window = Window()

    def recent(self) -> Recent:
        """Return jitter and miss rate of the current and the previous window."""
        windows = (self._previous_window, self._window)
        latency = Distribution()
        for window in windows:
            latency.add(window.latency)
        largest = max(window.latency_max_us for window in windows)
        scheduled = sum(window.scheduled for window in windows)
        misses = sum(window.misses for window in windows)
        return Recent(min(latency.quantile(0.99), largest), largest, misses / scheduled if scheduled else 0.0)

    def latency(self) -> Distribution:
        """Return the latencies of all cycles."""
        everything = Distribution()
        for part in (self._past_latency, self._previous_window.latency, self._window.latency):
            everything.add(part)
        return everything


# --- Checkpoints ------------------------------------------------------------------------------------------


class Checkpoint(NamedTuple):
    """A saved state of the process."""

    path: Path
    sequence: int
    written_ns: int
    size_bytes: int
    state: dict[str, Any]


class CheckpointStore:
    """Numbered checkpoint files, each written atomically and with a checksum; the newest few are kept."""

    def __init__(self, directory: Path, process_name: str, kept: int = CHECKPOINTS_KEPT) -> None:
        self._directory = directory
        self._process_name = process_name
        self._kept = kept
        self._file_name = re.compile(re.escape(process_name) + r"_(\d{10})\.json")
        self.last: Checkpoint | None = None

    def save(self, state: dict[str, Any]) -> Checkpoint:
        """Write the next checkpoint and remove old ones."""
        numbered = self._numbered()
        sequence = numbered[0][0] + 1 if numbered else 1
        written_ns = time.time_ns()
        record = {
            "checkpoint_id": f"{self._process_name}-{sequence}",
            "process_name": self._process_name,
            "sequence": sequence,
            "timestamp": format_utc(written_ns),
            "written_ns": written_ns,
            "state": state,
        }
        record["crc32"] = self._checksum(record)
        content = json.dumps(record, indent=1).encode() + b"\n"
        path = self._directory / f"{self._process_name}_{sequence:010d}.json"
        write_atomic(path, content)
        for _, old in numbered[self._kept - 1 :]:
            old.unlink(missing_ok=True)
        self.last = Checkpoint(path, sequence, written_ns, len(content), state)
        return self.last

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest intact checkpoint, and a sentence for every damaged one that is newer."""
        problems: list[str] = []
        for _, path in self._numbered():
            try:
                return self._read(path), problems
            except (OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"damaged checkpoint {path}: {error}")
        return None, problems

    def remove_leftovers(self) -> None:
        """Remove temporary files of a process that was killed while writing."""
        for path in self._directory.glob(f"{self._process_name}[_.]*.tmp"):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> Checkpoint:
        content = path.read_bytes()
        record = json.loads(content)
        checksum = record.pop("crc32")
        if checksum != self._checksum(record):
            raise ValueError("checksum does not match")
        return Checkpoint(path, record["sequence"], record["written_ns"], len(content), dict(record["state"]))

    def _numbered(self) -> list[tuple[int, Path]]:
        found = []
        for path in self._directory.iterdir():
            match = self._file_name.fullmatch(path.name)
            if match:
                found.append((int(match[1]), path))
        return sorted(found, reverse=True)

    @staticmethod
    def _checksum(record: Mapping[str, Any]) -> str:
        # CRC, since it has to find damage, not forgery, and hashlib would load OpenSSL.
        return f"{binascii.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


class RunRecord:
    """Counts starts and restarts over the life of the host, in a small file beside the checkpoints.

    A start after a clean stop is a start; a start after anything else is a restart.
    """

    def __init__(self, directory: Path, process_name: str) -> None:
        self._path = directory / f"{process_name}.state.json"
        self.start_count = 0
        self.restart_count = 0

    def begin(self, restart_count_in_checkpoint: int) -> str:
        """Count this start; return what was wrong with the file, or an empty text."""
        problem = ""
        clean_stop = True
        try:
            record = json.loads(self._path.read_bytes())
            self.start_count = int(record["start_count"])
            self.restart_count = int(record["restart_count"])
            clean_stop = bool(record["clean_stop"])
        except FileNotFoundError:
            self.restart_count = restart_count_in_checkpoint
        except (OSError, ValueError, KeyError, TypeError) as error:
            # The file is only ever replaced whole: damage means that the last stop was no clean one.
            problem = f"damaged {self._path}: {error}"
            self.restart_count = restart_count_in_checkpoint
            clean_stop = False
        self.start_count += 1
        if not clean_stop:
            self.restart_count += 1
        self._save(clean_stop=False)
        return problem

    def end(self) -> None:
        """Note a clean stop."""
        self._save(clean_stop=True)

    def _save(self, clean_stop: bool) -> None:
        counts = {"start_count": self.start_count, "restart_count": self.restart_count}
        record = {**counts, "clean_stop": clean_stop}
        write_atomic(self._path, json.dumps(record).encode() + b"\n")


# --- Tracing ----------------------------------------------------------------------------------------------

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def parse_traceparent(header: str | None, trace_state: str | None = None) -> SpanContext | None:
    """Return the caller's span context, or None when there is none or it is malformed (W3C: ignore it)."""
    match = _TRACEPARENT.fullmatch((header or "").strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return SpanContext(trace_id, span_id, bool(int(flags, 16) & 1), trace_state or "")


#: Attributes of a span or of the process that made it.
Attributes = Mapping[str, str | int | bool]


class Span:
    """A timed piece of work in a trace; a context manager that ends it and notes an error."""

    INTERNAL: Final = 1
    SERVER: Final = 2
    PRODUCER: Final = 4

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent_span_id: str,
        kind: int,
        attributes: Attributes,
        on_end: Callable[[Span], None] | None,
    ) -> None:
        self.name = name
        self.context = context
        self.parent_span_id = parent_span_id
        self.kind = kind
        self.attributes = dict(attributes)
        self.start_ns = time.time_ns()
        self.end_ns = 0
        self.error = ""
        self._on_end = on_end

    def __enter__(self) -> Span:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self.error = str(error)
        self.end(time.time_ns())

    def end(self, end_ns: int) -> None:
        """End the span at a point in time, in ns since the epoch."""
        self.end_ns = end_ns
        if self._on_end is not None:
            self._on_end(self)

    def to_otlp(self) -> dict[str, Any]:
        """Return the span in OTLP's JSON encoding: ids in hex, 64-bit numbers as text."""
        span: dict[str, Any] = {
            "traceId": self.context.trace_id,
            "spanId": self.context.span_id,
            "parentSpanId": self.parent_span_id,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.start_ns),
            "endTimeUnixNano": str(self.end_ns),
            "attributes": otlp_attributes(self.attributes),
            "status": {"code": 2, "message": self.error} if self.error else {},
        }
        if self.context.trace_state:
            span["traceState"] = self.context.trace_state
        return span


def otlp_attributes(attributes: Attributes) -> list[dict[str, Any]]:
    """Return attributes in OTLP's JSON encoding."""
    encoded: list[dict[str, Any]] = []
    for key, value in attributes.items():
        if isinstance(value, bool):
            encoded.append({"key": key, "value": {"boolValue": value}})
        elif isinstance(value, int):
            encoded.append({"key": key, "value": {"intValue": str(value)}})
        else:
            encoded.append({"key": key, "value": {"stringValue": value}})
    return encoded


class Tracer:
    """Makes spans. Sampling is parent based: the caller's decision counts, else a share of the trace ids."""

    def __init__(self, sampling_rate: float, on_end: Callable[[Span], None]) -> None:
        self._threshold = int(sampling_rate * (1 << 63))
        self._on_end = on_end

    def span(
        self,
        name: str,
        parent: SpanContext | None,
        attributes: Attributes,
        kind: int = Span.INTERNAL,
        enabled: bool = True,
    ) -> Span:
        """Begin a span. One that is not enabled leaves no trace: its children get its parent as parent."""
        if parent is None:
            trace_id = os.urandom(16).hex()
            sampled = enabled and int(trace_id[16:], 16) >> 1 < self._threshold
            context = SpanContext(trace_id, os.urandom(8).hex(), sampled)
            parent_span_id = ""
        elif enabled:
            context = parent._replace(span_id=os.urandom(8).hex())
            parent_span_id = parent.span_id
        else:
            context = parent
            parent_span_id = ""
        on_end = self._on_end if enabled and context.sampled else None
        return Span(name, context, parent_span_id, kind, attributes, on_end)


class SpanExporter:
    """Sends ended spans to a collector, OTLP/HTTP with JSON, in batches from a bounded queue.

    An absent collector costs nothing but a line in the log: the queue fills, new spans are counted as
    dropped, and the same batch is tried again with growing pauses.
    """

    QUEUE_LIMIT: Final = 2048
    BATCH_LIMIT: Final = 256
    LINGER_S: Final = 0.5
    TIMEOUT_S: Final = 2.0
    FIRST_PAUSE_S: Final = 1.0
    LONGEST_PAUSE_S: Final = 30.0
    #: Answers after which the same request may succeed later (OTLP specification, retryable responses).
    RETRYABLE: Final = (429, 502, 503, 504)

    def __init__(self, endpoint: str, resource: Attributes, log: EcsLog) -> None:
        self.exported = 0
        self.dropped = 0
        self._log = log
        self._resource = otlp_attributes(resource)
        address, _, path = endpoint.removeprefix("http://").partition("/")
        self._address = address
        self._path = "/" + path.rstrip("/") if path else ""
        if not self._path.endswith("/v1/traces"):
            self._path += "/v1/traces"
        self._queue: deque[Span] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._reachable = True

    def add(self, span: Span) -> None:
        """Queue an ended span; called from any thread but the loop."""
        if not self._address:
            return
        with self._changed:
            if len(self._queue) >= self.QUEUE_LIMIT:
                self.dropped += 1
                return
            self._queue.append(span)
            self._changed.notify()

    def queued(self) -> int:
        """Return how many spans wait."""
        return len(self._queue)

    def stop(self) -> None:
        """Let the thread end after one last attempt."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Export until stopped; the body of the exporter thread."""
        pause_s = self.FIRST_PAUSE_S
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                # A moment for the rest of a trace to end, so that it travels together.
                self._changed.wait_for(lambda: self._stopping, self.LINGER_S)
            if self._export_batch():
                pause_s = self.FIRST_PAUSE_S
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause_s)
            pause_s = min(2 * pause_s, self.LONGEST_PAUSE_S)
        self._export_batch()

    def _export_batch(self) -> bool:
        """Send the oldest spans; return False when they should be sent again later."""
        # Only this thread takes spans away, so the oldest ones stay in place until they are delivered.
        with self._changed:
            batch = [self._queue[index] for index in range(min(len(self._queue), self.BATCH_LIMIT))]
        if not batch:
            return True
        try:
            status = self._post([span.to_otlp() for span in batch])
        except (OSError, http.client.HTTPException) as error:
            self._note_reachable(False, f"{type(error).__name__}: {error}")
            return False
        if status in self.RETRYABLE:
            self._note_reachable(False, f"HTTP status {status}")
            return False
        with self._changed:
            for _ in batch:
                self._queue.popleft()
        if status < 300:
            self.exported += len(batch)
        else:
            self.dropped += len(batch)
        self._note_reachable(status < 300, f"HTTP status {status}")
        return True

    def _post(self, spans: list[dict[str, Any]]) -> int:
        scope_spans = [{"scope": {"name": "mxrc.reference"}, "spans": spans}]
        body = {"resourceSpans": [{"resource": {"attributes": self._resource}, "scopeSpans": scope_spans}]}
        connection = http.client.HTTPConnection(self._address, timeout=self.TIMEOUT_S)
        try:
            connection.request("POST", self._path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _note_reachable(self, reachable: bool, reason: str) -> None:
        if reachable and not self._reachable:
            self._log.info(f"spans are accepted again by {self._address}")
        if not reachable and self._reachable:
            self._log.warn(f"spans cannot be sent to {self._address}: {reason}; trying again silently")
        self._reachable = reachable


# --- Tasks ------------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """What travels over the event bus. The span context goes with it, as the header of a message would."""

    topic: str
    context: SpanContext
    task_id: str
    payload: dict[str, Any]


class EventBus:
    """Publish and subscribe inside the process; publishing is a span of its own."""

    def __init__(self, tracer: Tracer, enabled: bool) -> None:
        self.published = 0
        self._tracer = tracer
        self._enabled = enabled
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Have all events handed to a function."""
        self._subscribers.append(subscriber)

    def publish(self, topic: str, parent: SpanContext, task_id: str, payload: dict[str, Any]) -> None:
        """Hand an event to all subscribers."""
        attributes = {"messaging.destination.name": topic, "mxrc.task_id": task_id}
        with self._tracer.span("eventbus.publish", parent, attributes, Span.PRODUCER, self._enabled) as span:
            self.published += 1
            for subscriber in self._subscribers:
                subscriber(Event(topic, span.context, task_id, payload))


class ActionTimeoutError(Exception):
    """The loop did not take a command in time."""


class TaskRejectedError(Exception):
    """A task that cannot be accepted now; `status` is the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Task(NamedTuple):
    """A task that was accepted; its span began at that moment."""

    task_id: str
    mode: str
    span: Span


class TaskExecutor:
    """Runs tasks one after the other: a task is sequences, these are actions, and each moves the axis."""

    #: How often a task runs its sequence, by mode.
    REPETITIONS: Final = {"once": 1, "periodic": 3}
    #: (name, target of the axis) of the actions in a sequence.
    ACTIONS: Final = (("move_out", 1.0), ("move_back", 0.0))
    QUEUE_LIMIT: Final = 2048
    ACTION_TIMEOUT_S: Final = 1.0

    def __init__(self, loop: CycleLoop, bus: EventBus, tracer: Tracer, enabled: bool, log: EcsLog) -> None:
        self.started = 0
        self.completed = 0
        self.failed = 0
        self.last_task_id = ""
        self._loop = loop
        self._bus = bus
        self._tracer = tracer
        self._enabled = enabled
        self._log = log
        self._lock = threading.Lock()
        self._active: dict[str, Task] = {}
        self._queue: queue.SimpleQueue[Task] = queue.SimpleQueue()

    def submit(self, task_id: str, mode: str, parent: SpanContext | None) -> SpanContext:
        """Accept a task; return the context of its span.

        Raises:
            TaskRejectedError: the same task still runs, or too many tasks wait.
        """
        with self._lock:
            if task_id in self._active:
                raise TaskRejectedError(409, f"task {task_id} is running")
            if len(self._active) >= self.QUEUE_LIMIT:
                raise TaskRejectedError(503, f"{self.QUEUE_LIMIT} tasks are waiting")
            attributes = {"mxrc.task_id": task_id, "mxrc.task_mode": mode}
            span = self._tracer.span("task.execute", parent, attributes, Span.SERVER, self._enabled)
            task = Task(task_id, mode, span)
            self._active[task_id] = task
            self.started += 1
            self.last_task_id = task_id
        self._queue.put(task)
        return span.context

    def active(self) -> list[str]:
        """Return the ids of tasks that run or wait."""
        with self._lock:
            return list(self._active)

    def run(self) -> None:
        """Run tasks for ever; the body of the executor thread."""
        while True:
            task = self._queue.get()
            context = task.span.context
            fields = {"mxrc.task_id": task.task_id}
            self._log.info("Task execution started", context, fields)
            try:
                with task.span:
                    for number in range(1, self.REPETITIONS[task.mode] + 1):
                        self._run_sequence(task, number)
            except ActionTimeoutError as error:
                self.failed += 1
                self._log.error(f"Task execution failed: {error}", context, fields)
            else:
                self.completed += 1
                self._log.info("Task execution completed", context, fields)
            with self._lock:
                del self._active[task.task_id]

    def _run_sequence(self, task: Task, number: int) -> None:
        attributes: Attributes = {"mxrc.task_id": task.task_id, "mxrc.sequence": number}
        with self._tracer.span("sequence.run", task.span.context, attributes, enabled=self._enabled) as span:
            for name, target in self.ACTIONS:
                self._execute_action(task, name, target, span.context)

    def _execute_action(self, task: Task, name: str, target: float, parent: SpanContext) -> None:
        attributes = {"mxrc.task_id": task.task_id, "mxrc.action": name}
        with self._tracer.span("action.execute", parent, attributes, enabled=self._enabled) as span:
            before = self._loop.cycles
            self._loop.controller.target = target
            give_up = time.monotonic() + self.ACTION_TIMEOUT_S
            # A cycle that had already begun may not have seen the target; the second one has.
            while self._loop.cycles < before + 2:
                if time.monotonic() > give_up:
                    raise ActionTimeoutError(f"Action timeout: {name}")
                time.sleep(self._loop.period_ns / NS_PER_S)
            payload = {"action": name, "target": target}
            self._bus.publish("action.completed", span.context, task.task_id, payload)


# --- Health, memory, metrics ------------------------------------------------------------------------------


class HealthStatus(enum.IntEnum):
    """States of a process, with the numbers the application shows in mxrc_process_health_status."""

    STOPPED = 0
    STARTING = 1
    HEALTHY = 2
    DEGRADED = 3
    UNHEALTHY = 4
    STOPPING = 5


class HealthMonitor:
    """Checks every interval that the loop moved within the timeout.

    A failed check makes the process DEGRADED, as many in a row as the threshold make it UNHEALTHY. Deadline
    misses are no matter of health: they have metrics and alerts, and a restart would not cure them.
    """

    def __init__(self, settings: FailoverSettings, loop: CycleLoop, log: EcsLog) -> None:
        #: The application sets it when it is ready and when it stops.
        self.status = HealthStatus.STARTING
        self._loop = loop
        self._log = log
        self._timeout_ns = max(settings.health_check_timeout_ms * NS_PER_MS, 3 * loop.period_ns)
        self._threshold = settings.failure_threshold
        self._failures = 0

    def loop_age_ns(self) -> int:
        """Return how long ago the loop finished a cycle."""
        return max(0, time.monotonic_ns() - self._loop.last_done_ns)

    def check(self) -> None:
        """Do one self check."""
        age_ns = self.loop_age_ns()
        self._failures = self._failures + 1 if age_ns > self._timeout_ns else 0
        if self._failures >= self._threshold:
            status = HealthStatus.UNHEALTHY
        elif self._failures:
            status = HealthStatus.DEGRADED
        else:
            status = HealthStatus.HEALTHY
        if status != self.status:
            level = "info" if status == HealthStatus.HEALTHY else "error"
            self._log.write(level, f"health is {status.name}, last cycle {age_ns // NS_PER_MS} ms ago")
            self.status = status


class MemoryPlacement:
    """Counts resident memory by NUMA node, over all mappings as `numastat -p` does."""

    _NODE_PAGES = re.compile(r" N(\d+)=(\d+)")
    _PAGE_SIZE = re.compile(r" kernelpagesize_kB=(\d+)")

    def __init__(self, node: int, path: Path = Path("/proc/self/numa_maps")) -> None:
        self.node = node
        #: Resident bytes by node; empty on a kernel without NUMA.
        self.bytes_by_node: dict[int, int] = {}
        self._path = path

    def measure(self) -> None:
        """Read the kernel's figures."""
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return
        counted: dict[int, int] = {}
        for line in lines:
            size = self._PAGE_SIZE.search(line)
            page_bytes = int(size[1]) * 1024 if size else 4096
            for node, pages in self._NODE_PAGES.findall(line):
                counted[int(node)] = counted.get(int(node), 0) + int(pages) * page_bytes
        self.bytes_by_node = counted

    def local_percent(self) -> float | None:
        """Return the share on the configured node in percent, or None when it is not known."""
        total = sum(self.bytes_by_node.values())
        return 100.0 * self.bytes_by_node.get(self.node, 0) / total if total else None


class ResourceUsage:
    """Processor time and resident memory of this process."""

    def __init__(self) -> None:
        self.cpu_percent = 0.0
        self.memory_bytes = 0
        self._measured_at = time.monotonic()
        self._cpu_s = time.process_time()

    def measure(self) -> None:
        """Measure since the last time."""
        now, cpu_s = time.monotonic(), time.process_time()
        if now > self._measured_at:
            self.cpu_percent = 100.0 * (cpu_s - self._cpu_s) / (now - self._measured_at)
        self._measured_at, self._cpu_s = now, cpu_s
        pages = Path("/proc/self/statm").read_text().split()[1]
        self.memory_bytes = int(pages) * os.sysconf("SC_PAGE_SIZE")


class HttpStatistics:
    """Counts and durations of HTTP requests."""

    EDGES_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: dict[tuple[str, int], int] = {}
        #: By endpoint: one count per edge and one above all, then the sum in seconds.
        self.durations: dict[str, tuple[list[int], float]] = {}

    def observe(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count one request."""
        slot = sum(seconds > edge for edge in self.EDGES_S)
        with self._lock:
            key = (method, status)
            self.requests[key] = self.requests.get(key, 0) + 1
            counts, total = self.durations.get(endpoint, ([0] * (len(self.EDGES_S) + 1), 0.0))
            counts[slot] += 1
            self.durations[endpoint] = (counts, total + seconds)


class MetricsText:
    """Builds a page in Prometheus' text format 0.0.4."""

    CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, common_labels: Mapping[str, str]) -> None:
        self._common = dict(common_labels)
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str) -> None:
        """Begin a metric family."""
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def sample(self, name: str, value: float, **labels: str) -> None:
        """Add a sample with the common labels and some of its own."""
        self.bare_sample(name, value, **self._common, **labels)

    def bare_sample(self, name: str, value: float, **labels: str) -> None:
        """Add a sample with exactly these labels."""
        pairs = ",".join(f'{key}="{self._escape(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{pairs}}} {value}")

    def single(self, name: str, kind: str, text: str, value: float, **labels: str) -> None:
        """Add a family of one sample."""
        self.family(name, kind, text)
        self.sample(name, value, **labels)

    def histogram(self, name: str, text: str, distribution: Distribution, sum_us: float) -> None:
        """Add a histogram in microseconds."""
        self.family(name, "histogram", text)
        for edge in Distribution.EDGES_US:
            self.sample(f"{name}_bucket", distribution.below(edge), le=str(edge))
        count = distribution.total()
        self.sample(f"{name}_bucket", count, le="+Inf")
        self.sample(f"{name}_sum", sum_us)
        self.sample(f"{name}_count", count)

    def render(self) -> bytes:
        """Return the page."""
        return ("\n".join(self._lines) + "\n").encode()

    @staticmethod
    def _escape(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# --- HTTP -------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """What a route gets to see of a request; names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes


class Response(NamedTuple):
    """What a route answers; `afterwards` runs once the answer is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    afterwards: Callable[[], None] | None = None


def json_response(status: int, document: Mapping[str, Any], **headers: str) -> Response:
    """Return an answer with a JSON document."""
    return Response(status, json.dumps(document).encode() + b"\n", headers=headers)


Route = Callable[[Request], Response]
#: By path, then by method.
Routes = Mapping[str, Mapping[str, Route]]


class RequestHandler(http.server.BaseHTTPRequestHandler):
    """Looks a route up, calls it, counts it."""

    server: HttpServer
    #: Seconds a client may take to send its request.
    timeout = 2.0
    BODY_LIMIT = 4096

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._answer("POST")

    def version_string(self) -> str:
        """Return what the Server header says: no versions."""
        return "mxrc-reference"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are counted, not logged: probes would fill the log."""

    def _answer(self, method: str) -> None:
        began = time.monotonic()
        endpoint = self.path.partition("?")[0]
        methods = self.server.routes.get(endpoint)
        if methods is None:
            # One label for all unknown paths: a caller must not be able to create metrics.
            response = json_response(404, {"error": "Not Found", "path": endpoint})
            endpoint = "other"
        elif method not in methods:
            document = {"error": "Method Not Allowed", "path": endpoint}
            response = json_response(405, document, Allow=", ".join(methods))
        else:
            response = self._call(methods[method])
        # Counted before it is sent: who has the answer finds it in the metrics.
        self.server.statistics.observe(method, endpoint, response.status, time.monotonic() - began)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)
        if response.afterwards is not None:
            response.afterwards()

    def _call(self, route: Route) -> Response:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdigit():
            return json_response(400, {"error": "Bad Request", "reason": "Content-Length is no number"})
        if int(length) > self.BODY_LIMIT:
            reason = f"body is larger than {self.BODY_LIMIT} bytes"
            return json_response(413, {"error": "Content Too Large", "reason": reason})
        headers = {name.lower(): value for name, value in self.headers.items()}
        return route(Request(headers, self.rfile.read(int(length))))


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers each request in a thread of its own, so that no client can keep others waiting.

    Not http.server's class: that one looks its own name up in DNS, which takes seconds in a closed network.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    REQUESTS_AT_ONCE = 64

    def __init__(self, address: str, port: int, routes: Routes, parts: HttpParts) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.routes = routes
        self.statistics = parts.statistics
        self._log = parts.log
        self._slots = threading.BoundedSemaphore(self.REQUESTS_AT_ONCE)
        super().__init__((address, port), RequestHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a request, once fewer than the limit are running."""
        self._slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one request in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of a route; a client that went away is none."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            self._log.error(f"request failed: {traceback.format_exc()}")


class HttpParts(NamedTuple):
    """What all servers share."""

    statistics: HttpStatistics
    log: EcsLog


class BadRequestError(Exception):
    """A request that is refused; the text is the reason."""


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request body.

    Raises:
        BadRequestError: it is none.
    """
    # Deep nesting could overflow the small stack of a thread inside the parser.
    if body.count(b"[") + body.count(b"{") > 16:
        raise BadRequestError("body is nested too deeply")
    try:
        document = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequestError("body must be a JSON object")
    return document


def refuse_unknown_keys(document: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a request with keys that would be ignored."""
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise BadRequestError(f"unknown key {', '.join(unknown)}")


# --- The process ------------------------------------------------------------------------------------------


class Application:
    """Puts the parts together, starts them in order and stops them in order."""

    _TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
    LONGEST_FAULT_MS: Final = 600_000

    def __init__(self, options: argparse.Namespace, role: Role, settings: Settings) -> None:
        self._options = options
        self._role = role
        self._settings = settings
        self._started_at = time.monotonic()
        self._stop = threading.Event()
        self._recovered_from: Checkpoint | None = None
        self._recovered_cycles = 0
        self._recovered_misses = 0
        self._recovered_tasks = {"started": 0, "completed": 0, "failed": 0}

        tracing = settings.tracing
        self._log = EcsLog(options.log_file, role.name, tracing.service_name)
        self._threads = Threads(self._log)
        self._scheduling = Scheduling(settings.affinity, role.realtime, self._log)
        self._faults = Faults()
        self._loop = CycleLoop(options.cycle_us, options.deadline_us, Controller(), self._faults)
        self._health = HealthMonitor(settings.failover, self._loop, self._log)
        self._notifier = Notifier(os.environ)
        self._watchdog = Watchdog(os.environ, self._notifier, lambda: self._loop.cycles)
        self._checkpoints = CheckpointStore(options.checkpoint_dir, role.name)
        self._run_record = RunRecord(options.checkpoint_dir, role.name)
        self._placement = MemoryPlacement(settings.numa.numa_node)
        self._resources = ResourceUsage()

        resource: Attributes = {
            "service.name": tracing.service_name,
            "process.pid": os.getpid(),
            "process.executable.name": role.name,
            "host.name": socket.gethostname(),
        }
        self._exporter = SpanExporter(tracing.endpoint, resource, self._log)
        self._tracer = Tracer(tracing.sampling_rate, self._exporter.add)
        self._bus = EventBus(self._tracer, tracing.eventbus)
        self._bus.subscribe(self._log_event)
        self._tasks = TaskExecutor(self._loop, self._bus, self._tracer, tracing.task_executor, self._log)

        self._http = HttpParts(HttpStatistics(), self._log)

    def run(self) -> int:
        """Run until a signal says stop; return the exit status."""
        wakeup = self._take_signals()
        self._scheduling.settle_helpers()
        self._threads.start("log-writer", self._log.run)
        for warning in self._settings.warnings:
            self._log.warn(warning)
        try:
            # Ports first: they keep a second instance away from the state of this one.
            servers = self._open_servers()
            self._recover()
            loop_thread = self._start_loop()
        except OSError as error:
            self._log.error(f"cannot start: {error}")
            self._log.flush(1.0)
            return EXIT_FAILURE

        self._threads.start("housekeeping", self._run_housekeeping)
        export_thread = self._threads.start("span-export", self._exporter.run)
        self._threads.start("tasks", self._tasks.run)
        for name, server in servers.items():
            self._threads.start(name, server.serve_forever)

        self._health.status = HealthStatus.HEALTHY
        self._log.info(
            f"ready: period {self._options.cycle_us} us, health on port {self._options.health_port}, "
            f"metrics on port {self._options.metrics_port}, restart count {self._run_record.restart_count}"
        )
        self._notifier.send("READY=1", f"STATUS={self._status_line()}")
        self._supervise(wakeup)
        self._shut_down(loop_thread, export_thread)
        return 0

    # Start and stop

    @staticmethod
    def _take_signals() -> socket.socket:
        """Have signals arrive as bytes on a socket, in the main thread only; return the reading end."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach())
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for number in handled:
            signal.signal(number, lambda *_: None)
        # Threads inherit the blocked mask; the supervisor, in the main thread, opens it again for itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, handled)
        return reader

    def _open_servers(self) -> dict[str, HttpServer]:
        options = self._options
        health_routes: Routes = {
            "/health": {"GET": self._get_health},
            "/health/ready": {"GET": self._get_ready},
            "/health/live": {"GET": self._get_live},
            "/health/details": {"GET": self._get_details},
            "/api/v1/task/start": {"POST": self._post_task},
            "/api/v1/fault": {"POST": self._post_fault},
        }
        wanted: dict[str, tuple[str, int, Routes]] = {
            "http-health": (options.bind, options.health_port, health_routes),
            "http-metrics": (options.metrics_bind, options.metrics_port, {"/metrics": {"GET": self._get_metrics}}),
        }
        servers = {}
        for name, (address, port, routes) in wanted.items():
            try:
                servers[name] = HttpServer(address, port, routes, self._http)
            except OSError as error:
                raise OSError(f"{address} port {port} cannot be opened: {error.strerror}") from error
        return servers

    def _recover(self) -> None:
        """Count this start, take over the state of the last checkpoint, and write a fresh one at once."""
        self._checkpoints.remove_leftovers()
        checkpoint, problems = self._checkpoints.newest()
        for problem in problems:
            self._log.error(problem)
        state = checkpoint.state if checkpoint else {}
        problem = self._run_record.begin(int(state.get("restart_count", 0)))
        if problem:
            self._log.error(problem)
        if checkpoint is not None and self._settings.failover.enable_state_recovery:
            self._take_over(checkpoint)
        # At once, so that a process killed in its first minute has something to recover from.
        self._save_checkpoint()

    def _take_over(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self._recovered_from = checkpoint
        self._recovered_cycles = int(state.get("cycles_total", 0))
        self._recovered_misses = int(state.get("deadline_misses_total", 0))
        axis = state.get("axis", {})
        controller = self._loop.controller
        controller.position = float(axis.get("position", 0.0))
        controller.velocity = float(axis.get("velocity", 0.0))
        controller.target = float(axis.get("target", 0.0))
        tasks = state.get("tasks", {})
        for key in self._recovered_tasks:
            self._recovered_tasks[key] = int(tasks.get(key, 0))
        self._tasks.last_task_id = str(tasks.get("last_task_id", ""))
        self._log.info(
            f"Recovered from checkpoint: {self._role.name}-{checkpoint.sequence} ({checkpoint.path}), "
            f"{self._recovered_cycles} cycles"
        )
        for task_id in tasks.get("active", []):
            # A task is not repeated: nobody knows how far its last action came.
            self._log.warn("Task was interrupted by a restart", fields={"mxrc.task_id": task_id})
            self._recovered_tasks["failed"] += 1

    def _start_loop(self) -> threading.Thread:
        """Start the loop and wait for its first cycle: only then is the process ready."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # Everything made so far lives for ever: keep the collector away from it, and from the loop.
        gc.collect()
        gc.freeze()
        gc.disable()
        if self._role.realtime:
            self._scheduling.lock_memory()

        def body() -> None:
            self._scheduling.settle_loop()
            self._loop.run()

        thread = self._threads.start("cycle-loop", body)
        give_up = time.monotonic() + FIRST_CYCLE_S
        while not self._loop.cycles:
            if time.monotonic() > give_up:
                raise TimeoutError(f"the loop did no cycle in {FIRST_CYCLE_S:.0f} s")
            time.sleep(0.002)
        return thread

    def _supervise(self, wakeup: socket.socket) -> None:
        """The main thread's work: signals, watchdog, self check, windows."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        schedule = Schedule()
        if self._watchdog.interval_s:
            schedule.every(self._watchdog.interval_s, self._feed_watchdog)
        schedule.every(self._settings.failover.health_check_interval_ms / 1000, self._health.check)
        schedule.every(WINDOW_S, self._loop.turn_window)
        tracing = self._settings.tracing
        if self._role.realtime and tracing.rt_cycle and tracing.endpoint:
            schedule.every(1.0, self._trace_cycle)
        while True:
            readable, _, _ = select.select([wakeup], [], [], schedule.run_due())
            for number in wakeup.recv(64) if readable else b"":
                if number == signal.SIGHUP:
                    self._log.reopen()
                    self._log.info("log file opened again")
                else:
                    self._log.info(f"stopping: {signal.Signals(number).name}")
                    return

    def _shut_down(self, loop_thread: threading.Thread, export_thread: threading.Thread) -> None:
        self._health.status = HealthStatus.STOPPING
        self._notifier.send("STOPPING=1", "STATUS=stopping")
        self._stop.set()
        self._loop.stop()
        self._exporter.stop()
        loop_thread.join(STOP_JOIN_S)
        try:
            self._save_checkpoint()
            self._run_record.end()
        except OSError as error:
            self._log.error(f"state at stop is not saved: {error}")
        export_thread.join(STOP_JOIN_S)
        self._log.info(f"stopped after {self._loop.cycles} cycles, {self._loop.misses} deadline misses")
        self._log.flush(STOP_JOIN_S)

    def _feed_watchdog(self) -> None:
        self._watchdog.feed(self._status_line())

    def _status_line(self) -> str:
        return f"{self._status_name()}, {self._loop.cycles} cycles, {self._loop.misses} deadline misses"

    def _status_name(self) -> str:
        return self._health.status.name

    def _trace_cycle(self) -> None:
        """Make a span of a cycle the loop noted, and ask for the next: once a second, not in every cycle."""
        sample = self._loop.cycle_sample
        if sample is not None:
            self._loop.cycle_sample = None
            number, start_ns, done_ns = sample
            to_epoch_ns = time.time_ns() - time.monotonic_ns()
            span = self._tracer.span("rt.cycle", None, {"mxrc.cycle": number})
            span.start_ns = start_ns + to_epoch_ns
            span.end(done_ns + to_epoch_ns)
        self._loop.sample_wanted = True

    def _run_housekeeping(self) -> None:
        self._measure()
        schedule = Schedule()
        schedule.every(self._settings.failover.checkpoint_interval_sec, self._housekeep)
        schedule.every(STATISTICS_S, self._measure)
        while not self._stop.wait(schedule.run_due()):
            pass

    def _measure(self) -> None:
        self._placement.measure()
        self._resources.measure()

    def _housekeep(self) -> None:
        # Automatic collection is off; what the helpers leave behind is little, so this is short.
        gc.collect()
        if self._stop.is_set():
            return
        try:
            self._save_checkpoint()
        except OSError as error:
            self._log.error(f"checkpoint is not written: {error}")

    def _save_checkpoint(self) -> None:
        controller = self._loop.controller
        state = {
            "restart_count": self._run_record.restart_count,
            "cycles_total": self._recovered_cycles + self._loop.cycles,
            "deadline_misses_total": self._recovered_misses + self._loop.misses,
            "axis": {
                "position": controller.position,
                "velocity": controller.velocity,
                "target": controller.target,
            },
            "tasks": {
                **self._task_counts(),
                "last_task_id": self._tasks.last_task_id,
                "active": self._tasks.active(),
            },
        }
        self._checkpoints.save(state)

    def _task_counts(self) -> dict[str, int]:
        before = self._recovered_tasks
        return {
            "started": before["started"] + self._tasks.started,
            "completed": before["completed"] + self._tasks.completed,
            "failed": before["failed"] + self._tasks.failed,
        }

    def _log_event(self, event: Event) -> None:
        fields = {"mxrc.task_id": event.task_id, "event.action": event.topic}
        self._log.info(f"Event {event.topic}: {event.payload['action']}", event.context, fields)

    # Routes

    def _get_health(self, _request: Request) -> Response:
        """Say whether the process does its work: 200 only when HEALTHY."""
        status = 200 if self._health.status == HealthStatus.HEALTHY else 503
        return json_response(status, self._health_document())

    def _get_details(self, _request: Request) -> Response:
        """Say the same, with status 200 always."""
        return json_response(200, self._health_document())

    def _get_ready(self, _request: Request) -> Response:
        """Say whether tasks can be taken."""
        ready = self._health.status == HealthStatus.HEALTHY
        document = {"ready": ready, "status": self._status_name(), "process_name": self._role.name}
        return json_response(200 if ready else 503, document)

    def _get_live(self, _request: Request) -> Response:
        """Say that the process answers. A stuck loop is no matter of this: the watchdog handles it."""
        document = {
            "alive": True,
            "status": self._status_name(),
            "process_name": self._role.name,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started_at, 3),
        }
        return json_response(200, document)

    def _health_document(self) -> dict[str, Any]:
        loop, scheduling = self._loop, self._scheduling
        age_ms = self._health.loop_age_ns() // NS_PER_MS
        last = self._checkpoints.last
        recovered = self._recovered_from
        return {
            "status": self._status_name(),
            "process_name": self._role.name,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started_at, 3),
            "last_heartbeat": format_utc(time.time_ns() - age_ms * NS_PER_MS),
            "loop_age_ms": age_ms,
            "start_count": self._run_record.start_count,
            "restart_count": self._run_record.restart_count,
            "cycles": loop.cycles,
            "cycles_total": self._recovered_cycles + loop.cycles,
            "deadline_miss_count": loop.misses,
            "tasks": {**self._task_counts(), "active": len(self._tasks.active())},
            "last_checkpoint": last
            and {
                "sequence": last.sequence,
                "written": format_utc(last.written_ns),
                "age_seconds": round(self._checkpoint_age_s(last), 3),
            },
            "recovered_from": recovered
            and {
                "sequence": recovered.sequence,
                "written": format_utc(recovered.written_ns),
                "cycles_total": self._recovered_cycles,
            },
            "scheduling": {
                "policy": scheduling.loop_policy,
                "priority": scheduling.loop_priority,
                "loop_cores": scheduling.loop_cores,
                "configured_cores": self._settings.affinity.cpu_cores,
                "memory_locked": scheduling.memory_locked,
                "cycle_us": self._options.cycle_us,
            },
        }

    def _post_task(self, request: Request) -> Response:
        try:
            document = parse_json_object(request.body)
            refuse_unknown_keys(document, ("task_id", "mode"))
            task_id, mode = document.get("task_id"), document.get("mode")
            if not isinstance(task_id, str) or not self._TASK_ID.fullmatch(task_id):
                raise BadRequestError("task_id must be 1 to 128 letters, digits and . _ : -")
            if not isinstance(mode, str) or mode.lower() not in TaskExecutor.REPETITIONS:
                raise BadRequestError(f"mode must be one of {', '.join(TaskExecutor.REPETITIONS)}")
        except BadRequestError as error:
            return json_response(400, {"error": "Bad Request", "reason": str(error)})
        parent = parse_traceparent(request.headers.get("traceparent"), request.headers.get("tracestate"))
        try:
            context = self._tasks.submit(task_id, mode.lower(), parent)
        except TaskRejectedError as error:
            return json_response(error.status, {"error": "Rejected", "reason": str(error)})
        document = {
            "status": "accepted",
            "task_id": task_id,
            "mode": mode.lower(),
            "trace_id": context.trace_id,
            "sampled": context.sampled,
        }
        return json_response(202, document, traceparent=context.traceparent())

    def _post_fault(self, request: Request) -> Response:
        if not self._options.enable_faults:
            return json_response(403, {"error": "Forbidden", "reason": "needs --enable-faults"})
        try:
            document = parse_json_object(request.body)
            refuse_unknown_keys(document, ("kind", "duration_ms"))
            kind, duration_ms = document.get("kind"), document.get("duration_ms")
            if kind not in Faults.KINDS:
                raise BadRequestError(f"kind must be one of {', '.join(Faults.KINDS)}")
            if duration_ms is not None and (not _is_int(duration_ms) or not 1 <= duration_ms <= self.LONGEST_FAULT_MS):
                raise BadRequestError(f"duration_ms must be a whole number, 1 to {self.LONGEST_FAULT_MS}")
        except BadRequestError as error:
            return json_response(400, {"error": "Bad Request", "reason": str(error)})
        limit = "without limit" if duration_ms is None else f"for {duration_ms} ms"
        self._log.warn(f"fault on demand: {kind} {limit}")
        response = json_response(202, {"status": "accepted", "kind": kind, "duration_ms": duration_ms})
        if kind == "crash":
            return response._replace(afterwards=self._crash)
        self._faults.start(kind, duration_ms)
        return response

    def _crash(self) -> None:
        self._log.flush(0.5)
        os.abort()

    # Metrics

    def _get_metrics(self, _request: Request) -> Response:
        page = MetricsText({"process": self._role.name})
        if self._role.realtime:
            self._add_loop_metrics(page)
        else:
            page.single("mxrc_non_rt_cycle_count_total", "counter", "Cycles of the loop.", self._loop.cycles)
        self._add_process_metrics(page)
        self._add_pipeline_metrics(page)
        self._add_service_metrics(page)
        return Response(200, page.render(), MetricsText.CONTENT_TYPE)

    def _add_loop_metrics(self, page: MetricsText) -> None:
        # Counters begin at 0 with the process. Were they recovered from a checkpoint, they would step back
        # by up to a minute, and Prometheus would take the whole count for new.
        loop, scheduling = self._loop, self._scheduling
        recent = loop.recent()
        page.single("mxrc_rt_cycle_count_total", "counter", "Cycles executed by this process.", loop.cycles)
        text = "Cycles done too late or skipped."
        page.single("mxrc_rt_deadline_miss_count_total", "counter", text, loop.misses)
        text = "Share of missed cycles, 0 to 1, last 30 to 60 s."
        page.single("mxrc_rt_deadline_miss_rate", "gauge", text, recent.miss_rate)
        text = "Start latency of cycles, 99 % quantile, last 30 to 60 s."
        page.single("mxrc_rt_jitter_us", "gauge", text, recent.jitter_p99_us)
        text = "Start latency of cycles, maximum, last 30 to 60 s."
        page.single("mxrc_rt_jitter_max_us", "gauge", text, recent.jitter_max_us)
        text = "Start latency of all cycles."
        page.histogram("mxrc_rt_start_latency_us", text, loop.latency(), loop.latency_sum_us)
        text = "Execution time of all cycles."
        page.histogram("mxrc_rt_cycle_time_us", text, loop.cycle_time, loop.busy_ns / NS_PER_US)
        page.single("mxrc_rt_period_us", "gauge", "Period of the loop.", self._options.cycle_us)
        text = "Cycles of earlier runs, from the checkpoint."
        page.single("mxrc_rt_recovered_cycles", "gauge", text, self._recovered_cycles)
        page.single(
            "mxrc_rt_scheduling_info",
            "gauge",
            "Effective scheduling of the loop.",
            1,
            policy=scheduling.loop_policy,
            priority=str(scheduling.loop_priority),
            cores=",".join(map(str, scheduling.loop_cores)),
        )
        locked = int(scheduling.memory_locked)
        page.single("mxrc_rt_memory_locked", "gauge", "1: all memory is locked.", locked)

    def _add_process_metrics(self, page: MetricsText) -> None:
        affinity, node = self._settings.affinity, str(self._placement.node)
        page.single(
            "mxrc_process_health_status",
            "gauge",
            "0=STOPPED, 1=STARTING, 2=HEALTHY, 3=DEGRADED, 4=UNHEALTHY, 5=STOPPING.",
            int(self._health.status),
        )
        uptime_s = round(time.monotonic() - self._started_at, 3)
        page.single("mxrc_process_uptime_seconds", "gauge", "Time since the process started.", uptime_s)
        restarts = self._run_record.restart_count
        page.single("mxrc_restart_count", "gauge", "Starts after an unclean end, over all runs.", restarts)
        # The same two under the names the application gives them.
        page.single("mxrc_process_restart_count_total", "counter", "Same as mxrc_restart_count.", restarts)
        last = self._checkpoints.last
        if last is not None:
            age_s = round(self._checkpoint_age_s(last), 3)
            page.single("mxrc_checkpoint_age_seconds", "gauge", "Age of the last checkpoint.", age_s)
            text = "Same as mxrc_checkpoint_age_seconds."
            page.single("mxrc_failover_checkpoint_age_seconds", "gauge", text, age_s)
            text = "Size of the last checkpoint."
            page.single("mxrc_failover_checkpoint_size_bytes", "gauge", text, last.size_bytes)
        page.single(
            "mxrc_cpu_affinity_info",
            "gauge",
            "Configured cores.",
            1,
            configured_cores=",".join(map(str, affinity.cpu_cores)),
            isolation_mode=affinity.isolation_mode,
        )
        page.single("mxrc_numa_node", "gauge", "Configured NUMA node.", self._placement.node)
        percent = self._placement.local_percent()
        if percent is not None:
            page.single(
                "mxrc_numa_local_memory_percent",
                "gauge",
                "Share of resident memory on the configured node.",
                round(percent, 2),
                numa_node=node,
            )
            page.family("mxrc_numa_resident_bytes", "gauge", "Resident memory by node.")
            for number, size in sorted(self._placement.bytes_by_node.items()):
                page.sample("mxrc_numa_resident_bytes", size, numa_node=str(number))

    def _add_pipeline_metrics(self, page: MetricsText) -> None:
        log, exporter = self._log, self._exporter
        page.family("mxrc_logging_events_total", "counter", "Log events by level.")
        for level, count in log.events.items():
            page.sample("mxrc_logging_events_total", count, level=level)
        page.single("mxrc_logging_dropped_total", "counter", "Log events that were not written.", log.dropped)
        rate = self._settings.tracing.sampling_rate
        page.single("mxrc_tracing_sampling_rate", "gauge", "Share of traces that are kept, 0 to 1.", rate)
        page.single("mxrc_tracing_spans_exported_total", "counter", "Spans delivered.", exporter.exported)
        page.single("mxrc_tracing_spans_dropped_total", "counter", "Spans lost.", exporter.dropped)
        page.single("mxrc_tracing_queue_length", "gauge", "Spans waiting.", exporter.queued())
        page.single("mxrc_eventbus_events_total", "counter", "Events published.", self._bus.published)
        page.family("mxrc_tasks_total", "counter", "Tasks by result, in this process.")
        page.sample("mxrc_tasks_total", self._tasks.completed, result="completed")
        page.sample("mxrc_tasks_total", self._tasks.failed, result="failed")

    def _add_service_metrics(self, page: MetricsText) -> None:
        service = self._settings.tracing.service_name
        statistics = self._http.statistics
        page.family("http_requests_total", "counter", "HTTP requests.")
        for (method, status), count in sorted(statistics.requests.items()):
            page.bare_sample("http_requests_total", count, service=service, method=method, status=str(status))
        name = "http_request_duration_seconds"
        page.family(name, "histogram", "Duration of HTTP requests.")
        for endpoint, (counts, total_s) in sorted(statistics.durations.items()):
            labels = {"service": service, "endpoint": endpoint}
            below = 0
            for edge, count in zip(HttpStatistics.EDGES_S, counts, strict=False):
                below += count
                page.bare_sample(f"{name}_bucket", below, **labels, le=str(edge))
            page.bare_sample(f"{name}_bucket", sum(counts), **labels, le="+Inf")
            page.bare_sample(f"{name}_sum", round(total_s, 6), **labels)
            page.bare_sample(f"{name}_count", sum(counts), **labels)
        page.family("system_resource_usage", "gauge", "Processor (percent of one core) and memory (bytes).")
        resources = self._resources
        usage = {"cpu_percent": round(resources.cpu_percent, 2), "memory_bytes": resources.memory_bytes}
        for kind, value in usage.items():
            page.bare_sample("system_resource_usage", value, service=service, resource_type=kind)

    @staticmethod
    def _checkpoint_age_s(checkpoint: Checkpoint) -> float:
        return max(0.0, (time.time_ns() - checkpoint.written_ns) / NS_PER_S)


def main(argv: Sequence[str]) -> int:
    """Run the program; return its exit status (0 clean stop, 1 cannot run, 2 bad configuration)."""
    options, role = parse_options(argv)
    try:
        settings = load_settings(options, role)
    except ConfigError as error:
        print(f"{role.name}: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    threading.stack_size(THREAD_STACK_BYTES)
    return Application(options, role, settings).run()


def run(argv: Sequence[str]) -> NoReturn:
    """Run the program and end the process."""
    status = main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    # Helper threads are still waiting for work; a normal exit would tear the interpreter down under them.
    os._exit(status)


if __name__ == "__main__":
    run(sys.argv)
