"""System log and rotation of log files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rtinfra.verify.look.answer import Answer, json_object
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Logs:
    """The system log's bounds in bytes by journald's names, and its file on disk, empty while it is in memory only.

    `logrotate` is what a rehearsal of rotating everything says, after the program's path; empty without the program.
    """

    journal_usage: Mapping[str, int]
    journal_file: str
    logrotate: tuple[str, ...]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask journald and logrotate."""
    return {
        # What journald itself says its bounds are.
        "journal_usage": (
            "journalctl -b -q --no-pager -n 8 -o json --output-fields=JOURNAL_NAME,JOURNAL_PATH,MAX_USE,DISK_KEEP_FREE "
            "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"
        ),
        "journal_file": 'ls -d "/var/log/journal/$(cat /etc/machine-id)/system.journal"',
        # A rehearsal (-d) of rotating everything now (-f).
        "logrotate": (
            "command -v logrotate && "
            "logrotate -d -f /etc/logrotate.conf 2>&1 | grep -E '^(error|renaming|copying|truncating)'"
        ),
    }


def read(answer: Answer) -> Logs:
    """Read what `ask` asked."""
    return Logs(
        journal_usage=_usage(answer.lines("journal_usage")),
        journal_file=answer.line("journal_file"),
        logrotate=tuple(answer.lines("logrotate")),
    )


def _usage(lines: Iterable[str]) -> dict[str, int]:
    """Return the bounds journald announced last for its files on disk."""
    usage: dict[str, int] = {}
    for line in lines:
        record = json_object(line)
        if record.get("JOURNAL_NAME") == "System Journal":
            usage = {key: int(record[key]) for key in ("MAX_USE", "DISK_KEEP_FREE") if key in record}
    return usage
