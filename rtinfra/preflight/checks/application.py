"""The application's own word: an address such as /health/ready, or a program."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result, Status, Stopwatch, timed
from rtinfra.preflight.http_get import ask
from rtinfra.preflight.settings import ApplicationSettings, CheckSettings

_LOOK = "look at the application's log"
# Exit codes of the program, those of rtinfra-preflight itself.
_STATUS = {0: Status.PASS, 1: Status.WARN}
_LONGEST_LINE = 300


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check, when a hook is named."""
    hook = settings.application
    if hook.url is not None or hook.command:
        yield Check("application", partial(_run, hook), ("httpx",) if hook.url else ())


def _run(hook: ApplicationSettings, context: Context) -> Result:
    if hook.url is not None:
        return ask(hook.url, context, status=200, slow=hook.slow.seconds, next_step=_LOOK)
    program = hook.command[0]
    watch = Stopwatch()
    try:
        with watch.running():
            answer = subprocess.run(
                hook.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=context.timeout,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return Result(Status.FAIL, f"{program} did not end within {context.timeout:g} s", _LOOK)
    except OSError as error:
        return Result(Status.FAIL, f"{program} cannot be started: {error.strerror}", "correct application.command")
    status = _STATUS.get(answer.returncode, Status.FAIL)
    if status is Status.PASS:
        return timed(program, watch.seconds, hook.slow.seconds, _LOOK)
    lines = answer.stdout.decode(errors="replace").split("\n")
    return Result(status, f"{program} ended with {answer.returncode}: {lines[0][:_LONGEST_LINE]}", _LOOK)
