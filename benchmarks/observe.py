"""Run pyinfra's own command line, unchanged, and write down what it asked of the host.

    python -m benchmarks.observe RECORD [pyinfra's arguments]

RECORD gets a pickled Observation. Counting happens in paramiko, the lowest level that still knows what it does:
a command counts whichever way pyinfra, a connector or an operation of ours came to run it.
"""

from __future__ import annotations

# First of all, as pyinfra's own command does it: importing it makes the standard library cooperative.
import pyinfra_cli  # noqa: F401

# isort: split

import functools
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paramiko
from pyinfra.api.host import Host
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.main import main as pyinfra_main

from benchmarks.record import Desired, Observation
from rtinfra.operations import files, packages, units


def _before(owner: Any, name: str, look: Callable[..., None]) -> None:
    """Let `look` see the arguments of every call of `owner.name`."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def seen(*args: Any, **kwargs: Any) -> Any:
        look(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, seen)


def _timed(owner: Any, name: str, tell: Callable[[float, tuple[Any, ...]], None]) -> None:
    """Tell `tell` the duration in seconds and the positional arguments of every call of `owner.name`."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def seen(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            tell(time.perf_counter() - start, args)

    setattr(owner, name, seen)


def _count(found: Observation) -> None:
    def command(*_: Any, **__: Any) -> None:
        found.commands += 1

    def transfer(*_: Any, **__: Any) -> None:
        found.transfers += 1

    _before(paramiko.Channel, "exec_command", command)
    _before(paramiko.Channel, "invoke_subsystem", transfer)
    _before(paramiko.SFTPClient, "putfo", transfer)
    _before(paramiko.SFTPClient, "getfo", transfer)


def _measure(found: Observation) -> None:
    def connected(seconds: float, _: tuple[Any, ...]) -> None:
        found.connect += seconds

    def looked(seconds: float, arguments: tuple[Any, ...]) -> None:
        found.facts.append((arguments[1].__name__, seconds))

    _timed(SSHConnector, "connect", connected)
    _timed(Host, "get_fact", looked)


def _collect(desired: Desired) -> None:
    """Listen at the three operations through which deploy.py manages everything that stays."""

    def sync(*, paths: Sequence[Any], **_: Any) -> None:
        desired.paths += paths

    def installed(*, names: Sequence[str], local: Sequence[object] = (), **_: Any) -> None:
        if local:
            raise SystemExit("packages that come as files of this computer cannot be compared")
        desired.packages += names

    def ensure(*, units: Sequence[Any], **_: Any) -> None:
        desired.units += units

    _before(files, "sync", sync)
    _before(packages, "installed", installed)
    _before(units, "ensure", ensure)


def main(record: Path, arguments: Sequence[str]) -> None:
    """Run pyinfra with `arguments`, write the observation to `record`, end as pyinfra ended."""
    found = Observation()
    _count(found)
    _measure(found)
    _collect(found.desired)
    sys.argv = ["pyinfra", *arguments]
    try:
        pyinfra_main()
    finally:
        record.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
