"""What the stages have in common."""

from __future__ import annotations

import signal

import pytest

from rtinfra.lab import Machine
from rtinfra.paths import PROJECT
from tests.crashes import Consoles, start_again

# Their machines are started again and again by the tests themselves; tests/chaos has its own way of telling a story.
_ON_MACHINES = [PROJECT / "tests" / stage for stage in ("e2e", "offline")]
_CONSOLES = Consoles(*(PROJECT / f".lab-{stage.name}" for stage in _ON_MACHINES))
_CRASHED: list[Machine] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-machine", action="store_true", help="take lab machines as they are, and leave them up; for single files"
    )


def pytest_configure() -> None:
    # A shell that starts us in the background has us ignore Ctrl-C, and the programs that tests interrupt would too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _an_emulated_kernel_crashed() -> bool:
    _CRASHED[:] = _CONSOLES.crashed()
    return bool(_CRASHED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(stage) for stage in _ON_MACHINES):
            item.add_marker(pytest.mark.flaky(reruns=1, condition=_an_emulated_kernel_crashed))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    while _CRASHED:
        start_again(_CRASHED.pop())
    _CONSOLES.mark()
