"""What the stages have in common."""

from __future__ import annotations

import signal

import pytest

from rtinfra.paths import PROJECT
from tests.skips import Skips

# Stages whose scenarios start machines themselves; tests/chaos tells one long story instead.
_ON_MACHINES = ("e2e", "offline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-machine", action="store_true", help="take lab machines as they are, and leave them up; for single files"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Of several processes that of the person who reads the result counts.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips())
    # A shell that starts us in the background has us ignore Ctrl-C, and the programs that tests interrupt would too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Only those of this run: another stage may be at work beside it, with machines that are its own business.
    stages = {
        name: [item for item in items if item.path.is_relative_to(PROJECT / "tests" / name)] for name in _ON_MACHINES
    }
    here = {name: scenarios for name, scenarios in stages.items() if scenarios}
    if not here or not config.pluginmanager.hasplugin("pytest_rerunfailures"):
        return
    # Here, because tests of pyinfra's command line may not have loaded this much before it.
    from tests.crashes import Consoles, SecondChance

    chance = SecondChance(Consoles(*(PROJECT / f".lab-{name}" for name in here)))
    config.pluginmanager.register(chance)
    for scenarios in here.values():
        for scenario in scenarios:
            chance.give(scenario)
