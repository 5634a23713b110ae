"""Telemetry with the real programs and what the roles render, in a network of this computer and without any machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtinfra.images import build
from rtinfra.local.progress import ConsoleReporter
from tests.native.fleet import ADDRESSES, IMAGES
from tests.native.room import Network

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(needs_root)


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """The programs are built."""
    unavailable = build.build(IMAGES, ConsoleReporter()).unavailable
    assert not unavailable, "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())


@pytest.fixture
def network() -> Iterator[Network]:
    """The fleet's addresses, and nothing else."""
    made = Network(ADDRESSES)
    yield made
    made.close()
