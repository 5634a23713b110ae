"""What every compliance test can ask for. Hosts are observed once, before the first test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    # Not imported when running: pytest has to load the plugin first.
    from testinfra.host import Host

    from roles.host import HostConfig, RtHostConfig
    from roles.site import MirrorPlace, Site
    from rtinfra.config import FleetHost
    from rtinfra.cpu import CpuLayout
    from rtinfra.programs import Program
    from rtinfra.verify.asking import Asker
    from rtinfra.verify.plugin import Subject, Verification
    from rtinfra.verify.snapshot import Snapshot

# So that plain `pytest tests/compliance --inventory FILE` works too.
pytest_plugins = ("rtinfra.verify.plugin",)


@pytest.fixture(scope="session")
def subject(verification: Verification, subject_name: str) -> Subject:
    """The host under test."""
    return verification.subject(subject_name)


@pytest.fixture(scope="session")
def host(verification: Verification, subject_name: str) -> Host:
    """testinfra's connection to the host, for the few tests that do something on it."""
    return verification.connections.host(subject_name)


@pytest.fixture(scope="session")
def target(subject: Subject) -> FleetHost[HostConfig]:
    """The host's entry in the inventory."""
    return subject.host


@pytest.fixture(scope="session")
def config(target: FleetHost[HostConfig]) -> HostConfig:
    """The host's settings."""
    return target.config


@pytest.fixture(scope="session")
def rt(config: HostConfig) -> RtHostConfig:
    """The settings of a real-time host."""
    return config.rt


@pytest.fixture(scope="session")
def layout(subject: Subject) -> CpuLayout:
    """Isolated and housekeeping CPUs, expanded against the host's real topology."""
    if subject.layout is None:
        pytest.fail("; ".join(subject.layout_problems), pytrace=False)
    return subject.layout


@pytest.fixture(scope="session")
def snapshot(subject: Subject) -> Snapshot:
    """What was observed of the host, all at one moment."""
    return subject.snapshot


@pytest.fixture(scope="session")
def site(subject: Subject) -> Site:
    """The fleet as seen from the host: who runs what, where."""
    return subject.site


@pytest.fixture(scope="session")
def mirror(subject: Subject) -> MirrorPlace:
    """The offline mirror that the host uses or serves."""
    assert subject.mirror is not None
    return subject.mirror


@pytest.fixture(scope="session")
def programs(subject: Subject) -> tuple[Program, ...]:
    """The telemetry programs of the host."""
    return subject.programs


@pytest.fixture(scope="session")
def asker_on(verification: Verification) -> Callable[[str], Asker]:
    """Return something that asks over HTTP from a named host of the inventory."""
    from rtinfra.verify.asking import Asker

    return lambda name: Asker(verification.connections, name)


@pytest.fixture(scope="session")
def asker(asker_on: Callable[[str], Asker], subject_name: str) -> Asker:
    """Asks over HTTP from the host under test."""
    return asker_on(subject_name)


@pytest.fixture(scope="session")
def programs_on(verification: Verification) -> Callable[[str], tuple[Program, ...]]:
    """Return the telemetry programs of a named host of the inventory."""
    return verification.programs_on
