"""The interface of a check: what it is given, what it gives back.

A check is a name and a function from `Context` to `Result`. It is one module in `rtinfra/preflight/checks`; see
docs/preflight.md for how to add one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import SecretStr

from rtinfra.preflight.settings import Environment


class Status(StrEnum):
    """What a check found. WARN: it works, and somebody should look. FAIL: not ready."""

    PASS = "PASS"  # nosec B105 - no password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Result:
    """What a check found, in words for people; no secret, no value of a variable.

    `next_step` says what to do, empty when there is nothing to do. `latency` is the time of the real request in
    seconds, of checks that make one.
    """

    status: Status
    message: str
    next_step: str = ""
    latency: float | None = None


class Secrets(Protocol):
    """Source of secrets for checks."""

    def get(self, name: str) -> SecretStr:
        """Return a secret; raises SecretError, whose text has no value in it."""
        ...


@dataclass(frozen=True)
class Context:
    """What a check may know. It must give up after `timeout` seconds by itself: the run waits no longer for it."""

    environment: Environment
    timeout: float
    secrets: Secrets = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what it is called in the table and in the label `check`; letters, digits, `-`, `_` and `:`.
        run: looks, and returns what it found. It may raise: that counts as FAIL.
        imports: modules that `run` imports; loaded before the clock of any latency starts.
        histogram: metric (without the namespace) that the latency goes to.
    """

    name: str
    run: Callable[[Context], Result]
    imports: tuple[str, ...] = ()
    histogram: Literal["realcheck_redis_latency_seconds", "realcheck_postgres_latency_seconds"] | None = None


class Stopwatch:
    """Seconds that one request took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the body, also when it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds = time.perf_counter() - start


def timed(what: str, seconds: float, slow: float, next_step: str) -> Result:
    """Judge an answer by its time: PASS, or WARN when it took longer than `slow` seconds."""
    shown = f"{what} answered in {milliseconds(seconds)}"
    if seconds > slow:
        return Result(Status.WARN, f"{shown}, slower than {milliseconds(slow)}", next_step, seconds)
    return Result(Status.PASS, shown, latency=seconds)


def milliseconds(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
