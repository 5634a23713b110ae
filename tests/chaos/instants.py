"""The moments of a deploy at which the power goes, chosen by a number, and following a deploy up to them.

A moment is a place in an operation and not a time of a clock: the same seed hits the same kind of place on a fast and
on a slow machine, today and when somebody repeats it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rtinfra.lab import Machine
from rtinfra.runner import DeployResult

#: How many moments there are.
COUNT = 20
#: Those of `make test`: one in the packages, one in the change of the boot loader, one in the reboot.
FEW = (11, 15, 16)
#: Their seed, unless somebody chooses another.
SEED = 20261126

#: Seconds from the start of the kernel to the end of a bare machine's start, where USUAL was measured.
USUAL_START = 34.0
#: The operations of a deploy to a bare real-time host, and how many seconds each takes there.
USUAL = {
    "rt_kernel | last known good": 15.0,
    "packages": 200.0,
    "base | files": 5.0,
    "rt_tuning | files": 32.0,
    "rt_app | user": 1.0,
    "rt_app | files": 12.0,
    "rt_kernel | boot loader": 16.0,
    "rt_kernel | reboot when needed": 60.0,
    "drift | files": 4.0,
    "units": 15.0,
}

_STARTING = "--> Starting operation: "
_TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Instant:
    """A moment of a deploy: when `share` (0 to 1) of the usual time of `operation` has passed."""

    number: int
    operation: str
    share: float

    def __str__(self) -> str:
        return f"{self.number}: {self.operation}, {self.share:.0%}"


def instants(seed: int = SEED, count: int = COUNT) -> list[Instant]:
    """Choose moments, one at random in each of `count` equal parts of a deploy's usual time."""
    chance = random.Random(seed)
    total = sum(USUAL.values())
    return [_at((number + chance.random()) / count * total, number) for number in range(count)]


def spread(chosen: Sequence[Instant], count: int) -> list[Instant]:
    """Take `count` of the moments, evenly over the deploy."""
    return [chosen[(2 * index + 1) * len(chosen) // (2 * count)] for index in range(count)]


def _at(seconds: float, number: int) -> Instant:
    for operation, usual in USUAL.items():
        if seconds < usual:
            return Instant(number, operation, seconds / usual)
        seconds -= usual
    return Instant(number, operation, 1.0)


def slowness(machine: Machine) -> float:
    """How many times as long as usual everything takes on a machine, by the start it had."""
    microseconds = machine.run(
        "systemctl is-system-running --wait >/dev/null; systemctl show --property FinishTimestampMonotonic --value"
    ).stdout
    return int(microseconds) / 1e6 / USUAL_START


class Follower:
    """Says where a deploy is: given its lines as they come, whether a moment has been reached."""

    def __init__(self, slowness: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._slowness = slowness
        self._clock = clock
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}

    def line(self, text: str) -> None:
        """Take a line of the deploy's log."""
        if text.startswith(_STARTING):
            with self._lock:
                self._started[text.removeprefix(_STARTING).strip()] = self._clock()

    def reached(self, instant: Instant) -> bool:
        """Whether the moment has come: so far into its operation, or that ended sooner than usual."""
        with self._lock:
            order = list(USUAL)
            later = order[order.index(instant.operation) + 1 :]
            if any(operation in self._started for operation in later):
                return True
            since = self._started.get(instant.operation)
            due = instant.share * USUAL[instant.operation] * self._slowness
            return since is not None and self._clock() - since >= due


def follow(
    deploy: Callable[[Callable[[str], None]], DeployResult],
    chosen: Sequence[Instant],
    slowness: float,
    act: Callable[[Instant], None],
) -> DeployResult:
    """Run `deploy` and call `act` at each of the moments, which stand in the order of the deploy.

    `slowness`: how many times as long as usual everything takes on this machine.
    """
    follower = Follower(slowness)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(deploy, follower.line)
        for instant in chosen:
            while not follower.reached(instant) and not run.done():
                time.sleep(_TICK_SECONDS)
            act(instant)
        return run.result()
