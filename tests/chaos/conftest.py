"""A deploy of a machine of its own, cut off at as many moments as are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rtinfra.lab import ConsoleReporter, Machine
from tests.chaos.cuts import LAB, Cuts, Reference, deploy_to, switch_off, write_summary
from tests.chaos.instants import COUNT, FEW, SEED, Instant, instants, slowness, spread

MACHINE = "chaos"
# Of the machines that start from the copies; the undisturbed one is off by the time they are in the majority.
_AT_A_TIME = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instants", type=int, help=f"how many of the {COUNT} moments the power goes at, evenly")
    parser.addoption("--seed", type=int, default=SEED, help="chooses the moments")
    parser.addoption("--only", type=int, action="append", help="the moments of these numbers, to repeat a failure")


def chosen(config: pytest.Config) -> list[Instant]:
    """The moments that this run is asked for."""
    every = instants(config.getoption("--seed"))
    if (count := config.getoption("--instants")) is not None:
        return spread(every, min(count, COUNT))
    numbers = config.getoption("--only") or FEW
    return [instant for instant in every if instant.number in numbers]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", chosen(metafunc.config), ids=str)


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The machine that is left alone; bare."""
    found = Machine(MACHINE, root=LAB / "reference", report=ConsoleReporter())
    yield found
    switch_off(found)


@pytest.fixture(scope="session")
def cuts(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Cuts]:
    """Every cut of its deploy."""
    told = Cuts(machine, chosen(request.config), ConsoleReporter(), at_a_time=_AT_A_TIME)
    yield told
    told.close()


@pytest.fixture(scope="session")
def reference(cuts: Cuts, machine: Machine) -> Reference:
    """What it is after its deploy."""
    machine.up()
    cuts.deploy(slowness(machine), lambda line: deploy_to(machine.root, line))
    return cuts.reference


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """What is written to reports/chaos.json at the end: one entry for each cut."""
    entries: list[dict[str, Any]] = []
    yield entries
    write_summary(request.config.getoption("--seed"), entries)
