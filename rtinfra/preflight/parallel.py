"""All checks at once, each with its own end: one that hangs costs its timeout and nobody else's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from rtinfra.local.errors import LocalError
from rtinfra.preflight.check import Check, Context, Result, Status

# What a check may take beyond its own timeout before it is given up: it then says itself what did not answer.
_GRACE_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """A check and what it found; `seconds` is how long it took."""

    check: Check
    result: Result
    seconds: float


def run_checks(checks: Sequence[Check], context: Context) -> tuple[Outcome, ...]:
    """Run all checks concurrently and return their outcomes in the order given.

    Threads, because a check then is a plain function that may use any library. One that overstays is left behind: its
    thread dies with the process, and its outcome is FAIL.
    """
    # All at once and first: imports hold the interpreter and would count as latency of whoever is measuring.
    refused = {check.name: reason for check in checks if (reason := _loaded(check))}
    results: dict[str, tuple[Result, float]] = {}
    start = time.monotonic()

    def work(check: Check) -> None:
        found = _result_of(check.run, context)
        results[check.name] = (found, time.monotonic() - start)

    threads = [
        (check, threading.Thread(target=work, args=(check,), name=check.name, daemon=True))
        for check in checks
        if check.name not in refused
    ]
    for _, thread in threads:
        thread.start()
    deadline = start + context.timeout + _GRACE_SECONDS
    for _, thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    # A copy: whoever finishes from now on is too late.
    done = dict(results)
    return tuple(_outcome(check, refused, done, context.timeout) for check in checks)


def _loaded(check: Check) -> str:
    """Import what a check needs; return why that is not possible, empty when it is."""
    try:
        for module in check.imports:
            import_module(module)
    except ImportError as error:
        return str(error)
    return ""


def _result_of(run: Callable[[Context], Result], context: Context) -> Result:
    try:
        return run(context)
    except LocalError as error:
        return Result(Status.FAIL, error.message, error.next_step)
    except Exception as error:
        # Only its kind: the text of an unknown error may hold anything, secrets too.
        return Result(
            Status.FAIL,
            f"the check itself ended with {type(error).__name__}",
            "this is a mistake in the check: report it, with the settings of the check",
        )


def _outcome(check: Check, refused: dict[str, str], done: dict[str, tuple[Result, float]], timeout: float) -> Outcome:
    if check.name in refused:
        message = f"the check cannot run: {refused[check.name]}"
        return Outcome(check, Result(Status.FAIL, message, "install the preflight again: run the deploy"), 0.0)
    if check.name in done:
        result, seconds = done[check.name]
        return Outcome(check, result, seconds)
    message = f"no answer within {timeout:g} s"
    next_step = "see whether what it asks is running and reachable; `timeout` of the settings is how long it waits"
    return Outcome(check, Result(Status.FAIL, message, next_step), timeout)
