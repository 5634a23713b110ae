"""The real-time application: the files it reads, its two processes, its logs and checkpoints."""

from __future__ import annotations

import binascii
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtinfra.verify.look import foreign
from rtinfra.verify.look.answer import Answer, hard_limits, json_object
from rtinfra.verify.questions import Questions

#: Files that the application reads, below its directory of settings and without `.json`.
DOCUMENTS: Final = ("cpu_affinity", "numa_binding", "failover_policy", "tracing_config")


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of the real-time process; `written` in seconds since the epoch."""

    written: int
    text: str

    @property
    def content(self) -> dict[str, Any]:
        """Its JSON; empty when it is none."""
        return json_object(self.text)

    @property
    def is_intact(self) -> bool:
        """Whether its checksum is right."""
        record = self.content
        checksum = record.pop("crc32", None)
        return bool(checksum == f"{binascii.crc32(json.dumps(record, sort_keys=True).encode()):08x}")


@dataclass(frozen=True)
class Application:
    """The application's files and processes.

    `documents` are the JSON files it reads, by name. `rt_command` and `rt_limits` (hard ones, by the kernel's names)
    are the real-time process's, `users` those of the two processes. `log_tails` are the last lines of its logs,
    `open_logs` those that a process has open. `checkpoint_access` is mode, user and group of their directory.
    """

    documents: Mapping[str, Mapping[str, Any]]
    rt_command: tuple[str, ...]
    rt_limits: Mapping[str, str]
    users: tuple[str, ...]
    open_logs: tuple[str, ...]
    log_tails: tuple[str, ...]
    checkpoint_access: str
    checkpoint: Checkpoint | None

    def section(self, document: str, process: str) -> Mapping[str, Any]:
        """Return what a document says of a process; empty when it says nothing."""
        found = self.documents.get(document, {}).get(process, {})
        return found if isinstance(found, dict) else {}


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for files of the application and of its processes, `$rt` and `$non_rt`."""
    places = questions.application
    if places is None:
        return {}
    logs, checkpoints = shlex.quote(places.log_dir), shlex.quote(places.checkpoint_dir)
    return {
        **{f"json {name}": f"cat {shlex.quote(places.config_dir)}/{name}.json" for name in DOCUMENTS},
        "rt_cmdline": "tr '\\0' '\\n' <\"/proc/$rt/cmdline\"",
        "rt_uid": 'stat -c %U "/proc/$rt"; stat -c %U "/proc/$non_rt"',
        "rt_limits": 'cat "/proc/$rt/limits"',
        "open_logs": f'readlink "/proc/$rt/fd"/* "/proc/$non_rt/fd"/* | grep -F {logs}/',
        "log_tails": foreign.last_lines(places.log_dir, ("rt_process.log", "non_rt_process.log")),
        "checkpoint_dir": f"stat -c '%a %U %G' {checkpoints}",
        # Times alone: names are the application's words.
        "checkpoints": f"find {checkpoints} -maxdepth 1 -type f -name 'rt_process_*.json' -printf '%Ts\\n'",
        "newest_checkpoint": foreign.newest(places.checkpoint_dir, "rt_process_"),
    }


def read(answer: Answer) -> Application:
    """Read what `ask` asked."""
    times = [int(line) for line in answer.filled("checkpoints")]
    return Application(
        documents={name: json_object(answer.text(f"json {name}")) for name in DOCUMENTS},
        rt_command=tuple(answer.lines("rt_cmdline")),
        rt_limits=hard_limits(answer.lines("rt_limits")),
        users=tuple(answer.lines("rt_uid")),
        open_logs=tuple(answer.lines("open_logs")),
        log_tails=tuple(answer.lines("log_tails")),
        checkpoint_access=answer.line("checkpoint_dir"),
        checkpoint=Checkpoint(max(times), answer.text("newest_checkpoint")) if times else None,
    )
