"""Files that outlive the process: checkpoints, and the record of its starts."""

from __future__ import annotations

import binascii
import calendar
import json
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from .system import NS_PER_S, format_utc, write_atomic

CHECKPOINTS_KEPT: Final = 3

#: The state in a checkpoint, as JSON has it.
State = dict[str, Any]


class Checkpoint(NamedTuple):
    """A saved state of the process."""

    path: Path
    id: str
    """A UUID."""
    written_ns: int
    size_bytes: int
    state: State

    def age_s(self) -> float:
        """Return how long ago it was written, in seconds."""
        return max(0.0, (time.time_ns() - self.written_ns) / NS_PER_S)


class CheckpointStore:
    """Checkpoints in files named by UTC, written atomically and with a checksum; the newest few are kept."""

    def __init__(self, directory: Path, process_name: str, kept: int = CHECKPOINTS_KEPT) -> None:
        self._directory = directory
        self._process_name = process_name
        self._kept = kept
        self._file_name = re.compile(re.escape(process_name) + r"_(\d{8}T\d{6}\.\d{9}Z)\.json")
        self.last: Checkpoint | None = None

    def save(self, state: State) -> Checkpoint:
        """Write the next checkpoint and remove old ones."""
        existing = self._newest_first()
        written_ns = time.time_ns()
        name = _file_time(written_ns)
        if existing and name <= existing[0][0]:
            # The clock was put back. The order of the names is that of writing all the same.
            name = _after(existing[0][0])
        record: dict[str, Any] = {
            "checkpoint_id": str(uuid.uuid4()),
            "process_name": self._process_name,
            "timestamp": format_utc(written_ns),
            "written_ns": written_ns,
            "rt_state": state,
            "checkpoint_size_bytes": 0,
            "is_complete": True,
        }
        content = self._encoded(record)
        path = self._directory / f"{self._process_name}_{name}.json"
        write_atomic(path, content)
        for _, old in existing[self._kept - 1 :]:
            old.unlink(missing_ok=True)
        self.last = Checkpoint(path, record["checkpoint_id"], written_ns, len(content), state)
        return self.last

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest intact checkpoint, and a sentence for every damaged one that is newer."""
        problems: list[str] = []
        for _, path in self._newest_first():
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
        if record["is_complete"] is not True or record["checkpoint_size_bytes"] != len(content):
            raise ValueError("it is not complete")
        return Checkpoint(path, record["checkpoint_id"], record["written_ns"], len(content), dict(record["rt_state"]))

    def _encoded(self, record: dict[str, Any]) -> bytes:
        """Return the file of a record that knows its own size."""
        while True:
            content = json.dumps({**record, "crc32": self._checksum(record)}, indent=1).encode() + b"\n"
            if len(content) == record["checkpoint_size_bytes"]:
                return content
            record["checkpoint_size_bytes"] = len(content)

    def _newest_first(self) -> list[tuple[str, Path]]:
        found = []
        for path in self._directory.iterdir():
            match = self._file_name.fullmatch(path.name)
            if match:
                found.append((match[1], path))
        return sorted(found, reverse=True)

    @staticmethod
    def _checksum(record: Mapping[str, object]) -> str:
        # CRC, since it has to find damage, not forgery, and hashlib would load OpenSSL.
        return f"{binascii.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def _file_time(epoch_ns: int) -> str:
    """Return a point in time as names of checkpoints have it: 20261128T101530.000000001Z."""
    seconds, rest_ns = divmod(epoch_ns, NS_PER_S)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{rest_ns:09d}Z"


def _after(name: str) -> str:
    """Return the name that follows at once."""
    seconds = calendar.timegm(time.strptime(name[:15], "%Y%m%dT%H%M%S"))
    return _file_time(seconds * NS_PER_S + int(name[16:25]) + 1)


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
