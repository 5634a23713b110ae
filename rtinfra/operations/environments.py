"""Python environments on hosts, from wheels of the control machine: only those that are missing are sent."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Generator
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.command import FileUploadCommand, PyinfraCommand, StringCommand
from pyinfra.api.exceptions import OperationError
from pyinfra.api.operation import operation

from rtinfra.facts.environments import CACHE, Environment, EnvironmentState
from rtinfra.operations.change import Step
from rtinfra.operations.changes import record
from rtinfra.operations.resources import PythonEnvironment
from rtinfra.wheelhouse import Wheel, Wheelhouse, WheelsMissing

_SCRIPT = (Path(__file__).parent / "environment.sh").read_text(encoding="utf-8")


@operation()
def installed(environment: PythonEnvironment, wheelhouse: Wheelhouse) -> Generator[PyinfraCommand, None, None]:
    """Make the environment what the requirements and our own modules are now.

    It is built beside the one in use, which goes on working until the new one has answered. A run that was cut off is
    begun again by the next one; wheels that had arrived are not sent again.

    Raises:
        OperationError: this computer has no wheels for the host's Python.
    """
    found: EnvironmentState = host.get_fact(Environment, directory=environment.directory)
    if not found.python:
        # While pyinfra only plans, a bare host has none yet: the packages of this very run bring it.
        record(Step(name=environment.directory, text="made once the packages of this run have brought Python"))
        yield StringCommand("command -v python3 >&2 || { echo 'no python3: install python3-venv' >&2; exit 1; }")
        return
    own = wheelhouse.own()
    requirements = f"{wheelhouse.requirements.read_text(encoding='utf-8')}\n{own.requirement}\n"
    name = name_of(found.python, requirements)
    if found.current == name:
        host.noop(f"{environment.directory} is as it should be")
        return
    try:
        wheels = (own,) if environment.from_index else (*wheelhouse.wheels(found.python), own)
    except WheelsMissing as error:
        raise OperationError(str(error)) from error
    missing = [wheel for wheel in wheels if found.wheels.get(wheel.name) != wheel.sha256]
    size = sum(wheel.path.stat().st_size for wheel in missing) / 1e6
    record(Step(name=environment.directory, text=f"made anew, {len(missing)} wheels are sent, {size:.1f} MB"))
    yield StringCommand(f"install -d -m 0755 {CACHE}")
    logger.info("%ssending %d of %d wheels, %.1f MB", host.print_prefix, len(missing), len(wheels), size)
    for wheel in missing:
        # Without the ending of a wheel until it is whole.
        yield FileUploadCommand(str(wheel.path), f"{CACHE}/{wheel.name}.part")
        yield StringCommand(_arrived(wheel))
    source = "index" if environment.from_index else "wheels"
    words = shlex.join([environment.directory, name, CACHE, environment.check, source, *(w.name for w in wheels)])
    yield StringCommand(f"sh -c {shlex.quote(_SCRIPT)} environment.sh {words}", _stdin=requirements)


def name_of(python: str, requirements: str) -> str:
    """Return the name of an environment: the same contents, the same name."""
    return hashlib.sha256(f"{python}\n{requirements}".encode()).hexdigest()[:16]


def _arrived(wheel: Wheel) -> str:
    place = shlex.quote(f"{CACHE}/{wheel.name}")
    return f"echo {wheel.sha256}  {place}.part | sha256sum --check --quiet && mv -f {place}.part {place}"
