"""What the alert log takes and keeps: alerts whose types are checked, in a bounded amount of memory and of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

#: Alertmanager repeats what is firing every hour; what it has not repeated for longer it has forgotten.
FORGET_SECONDS: Final = 3 * 3600
#: All that is kept in memory, in bytes of JSON: some thousand alerts. The oldest make room; the file has them all.
MAX_KEPT_BYTES: Final = 2 * 2**20
_MAX_ALERTS: Final = 2000
#: Of one alert: our own have a dozen labels, and texts of a few hundred letters.
_MAX_TEXTS: Final = 50
_LONGEST_NAME: Final = 100
_LONGEST_TEXT: Final = 1000
#: Bytes of a line of the file that are worth reading: an alert within the bounds above, when each letter takes six.
_LONGEST_LINE: Final = 2 * _MAX_TEXTS * 6 * (_LONGEST_NAME + _LONGEST_TEXT)
_STATES: Final = ("firing", "resolved")


class NotAlerts(ValueError):
    """A request that is not what Alertmanager sends; the text says what is wrong with it."""


def parse_alerts(body: bytes) -> list[dict[str, Any]]:
    """Return the alerts of a webhook message of Alertmanager (version 4).

    Raises:
        NotAlerts: it is something else.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAlerts("not JSON") from None
    if not isinstance(message, dict) or message.get("version") != "4":
        raise NotAlerts("not a webhook message of version 4")
    alerts = message.get("alerts")
    if not isinstance(alerts, list):
        raise NotAlerts("without a list of alerts")
    if len(alerts) > _MAX_ALERTS:
        raise NotAlerts(f"more than {_MAX_ALERTS} alerts in one message")
    return [_checked(alert) for alert in alerts]


def _checked(alert: object) -> dict[str, Any]:
    if not isinstance(alert, dict) or alert.get("status") not in _STATES:
        raise NotAlerts("an alert is neither firing nor resolved")
    found: dict[str, Any] = {"status": alert["status"]}
    for part in ("labels", "annotations"):
        texts = alert.get(part)
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise NotAlerts(f"the {part} of an alert are not texts")
        some = list(texts.items())[:_MAX_TEXTS]
        found[part] = {_bounded(name, _LONGEST_NAME): _bounded(text, _LONGEST_TEXT) for name, text in some}
    if not found["labels"].get("alertname"):
        raise NotAlerts("an alert has no name")
    for name in ("startsAt", "endsAt", "generatorURL", "fingerprint"):
        if name in alert:
            if not isinstance(alert[name], str):
                raise NotAlerts(f"{name} of an alert is no text")
            found[name] = _bounded(alert[name], _LONGEST_TEXT)
    # Alertmanager's own number of the label set; without it the labels are the identity.
    labels = json.dumps(found["labels"], sort_keys=True).encode()
    found["fingerprint"] = found.get("fingerprint") or hashlib.sha256(labels).hexdigest()
    return found


def _bounded(text: str, longest: int) -> str:
    # Half a pair of surrogates can be written in JSON and in no file.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


@dataclass(frozen=True)
class Kept:
    """One alert as it stands in the file; `received` in seconds since the epoch."""

    received: float
    status: str
    severity: str
    line: bytes

    @classmethod
    def of(cls, alert: dict[str, Any], received: float) -> Kept:
        """Return what is kept of a checked alert."""
        stamp = datetime.fromtimestamp(received, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"received": stamp, **alert}, ensure_ascii=False).encode()
        return cls(received, alert["status"], alert["labels"].get("severity", "none"), line)

    @property
    def alert(self) -> dict[str, Any]:
        """All of it."""
        found: dict[str, Any] = json.loads(self.line)
        return found


class Memory:
    """The last word on each alert, by its number; of more than memory is for, the oldest are forgotten."""

    def __init__(self) -> None:
        self._alerts: dict[str, Kept] = {}
        self._bytes = 0

    def put(self, fingerprint: str, kept: Kept) -> None:
        """Remember an alert in the place of what was known of it."""
        self._drop(fingerprint)
        self._alerts[fingerprint] = kept
        self._bytes += len(kept.line)
        while self._bytes > MAX_KEPT_BYTES:
            self._drop(next(iter(self._alerts)))

    def since(self, oldest: float) -> list[Kept]:
        """Forget what is older; return the rest, newest first."""
        for fingerprint in [name for name, kept in self._alerts.items() if kept.received < oldest]:
            self._drop(fingerprint)
        return sorted(self._alerts.values(), key=lambda kept: kept.received, reverse=True)

    def _drop(self, fingerprint: str) -> None:
        gone = self._alerts.pop(fingerprint, None)
        self._bytes -= len(gone.line) if gone else 0


class Journal:
    """The file with one line of JSON for each alert that came, kept in a bounded number of files."""

    def __init__(self, directory: Path, max_bytes: int, keep: int) -> None:
        self.path = directory / "alerts.jsonl"
        self._max_bytes = max_bytes
        self._keep = keep

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines; when this returns they are on the disk."""
        if not lines:
            return
        if self.path.exists() and self.path.stat().st_size >= self._max_bytes:
            self._rotate()
        with self.path.open("ab") as file:
            # After a power cut the file may end in the middle of a line.
            if file.tell() and not self._ends_with_line():
                file.write(b"\n")
            file.write(b"".join(b"%b\n" % line for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))
        self._numbered(self._keep + 1).unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def read(self) -> Iterator[tuple[str, Kept]]:
        """Yield number and alert of the newest two files, oldest first, line by line.

        What is no alert is left out: a line that a power cut tore, and whatever an earlier version let in.
        """
        for path in (self._numbered(1), self.path):
            if not path.exists():
                continue
            with path.open("rb") as file:
                whole = True
                while line := file.readline(_LONGEST_LINE):
                    starts, whole = whole, line.endswith(b"\n")
                    if starts and whole and (found := _read_line(line)):
                        yield found


def _read_line(line: bytes) -> tuple[str, Kept] | None:
    try:
        record = json.loads(line)
        alert = _checked(record)
        received = datetime.fromisoformat(record["received"])
        if received.tzinfo is None:
            return None
        return alert["fingerprint"], Kept.of(alert, received.timestamp())
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None
