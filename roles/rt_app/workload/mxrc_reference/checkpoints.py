"""Files that outlive the process: numbered checkpoints, and the record of its starts."""

from __future__ import annotations

import binascii
import json
import re
import time
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
    sequence: int
    written_ns: int
    size_bytes: int
    state: State

    def age_s(self) -> float:
        """Return how long ago it was written, in seconds."""
        return max(0.0, (time.time_ns() - self.written_ns) / NS_PER_S)


class CheckpointStore:
    """Numbered checkpoint files, each written atomically and with a checksum; the newest few are kept."""

    def __init__(self, directory: Path, process_name: str, kept: int = CHECKPOINTS_KEPT) -> None:
        self._directory = directory
        self._process_name = process_name
        self._kept = kept
        self._file_name = re.compile(re.escape(process_name) + r"_(\d{10})\.json")
        self.last: Checkpoint | None = None

    def save(self, state: State) -> Checkpoint:
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
    def _checksum(record: Mapping[str, object]) -> str:
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
