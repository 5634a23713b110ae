"""How often people are told: failures always, warnings at most once in a while, over all processes and reboots."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rtinfra.local.file_lock import locked
from rtinfra.local.files import replace_file
from rtinfra.notify.message import Priority

_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class _State:
    """`sent_at` is the Unix time of the last warning that went out; `withheld` counts those held back since."""

    sent_at: float = 0.0
    withheld: int = 0


@dataclass(frozen=True)
class Decision:
    """Whether to send, and how many warnings were held back before."""

    send: bool
    withheld_before: int = 0


class Throttle:
    """Keeps its state in one file. The decision takes the place at once: two processes never both send."""

    def __init__(self, state: Path, interval: float, clock: Callable[[], float] = time.time) -> None:
        self._path = state
        self._interval = interval
        self._clock = clock

    def decide(self, priority: Priority) -> Decision:
        """Decide about a message that is to go out now."""
        if priority is Priority.P0:
            return Decision(send=True)
        with locked(self._path.with_suffix(".lock"), "sending a notification", _LOCK_SECONDS):
            state, now = self._read(), self._clock()
            # A clock that was set back must not silence anybody: a time in the future counts as long ago.
            if 0 <= now - state.sent_at < self._interval:
                self._write(_State(state.sent_at, state.withheld + 1))
                return Decision(send=False)
            self._write(_State(sent_at=now))
            return Decision(send=True, withheld_before=state.withheld)

    def release(self, decision: Decision) -> None:
        """Nobody was reached: the next warning may go out at once."""
        with locked(self._path.with_suffix(".lock"), "sending a notification", _LOCK_SECONDS):
            self._write(_State(withheld=decision.withheld_before + 1))

    def _read(self) -> _State:
        try:
            document = json.loads(self._path.read_bytes())
            return _State(float(document["sent_at"]), int(document["withheld"]))
        except (OSError, ValueError, KeyError, TypeError):
            # Never sent, or damaged: one warning too many is better than none.
            return _State()

    def _write(self, state: _State) -> None:
        replace_file(self._path, json.dumps(asdict(state)).encode(), mode=0o640)
