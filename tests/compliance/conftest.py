"""What every compliance test can ask for. Hosts are observed once, before the first test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    # Not imported when running: pytest has to load the plugin first.
    from testinfra.host import Host

    from roles.host import HostConfig
    from roles.mirror_place import MirrorPlace
    from roles.shape import FleetView
    from rtinfra.config import FleetHost
    from rtinfra.cpu import CpuLayout
    from rtinfra.stack_programs import Program
    from rtinfra.verify.asking import Asker
    from rtinfra.verify.look.answers import Answers
    from rtinfra.verify.look.application import Application
    from rtinfra.verify.look.boot import Boot
    from rtinfra.verify.look.clock import Clock
    from rtinfra.verify.look.computer import Computer
    from rtinfra.verify.look.containers import Containers
    from rtinfra.verify.look.cpus import Cpus
    from rtinfra.verify.look.drift import Drift
    from rtinfra.verify.look.interrupts import Interrupts
    from rtinfra.verify.look.kernel import Kernel
    from rtinfra.verify.look.logins import Logins
    from rtinfra.verify.look.logs import Logs
    from rtinfra.verify.look.loop import Loop
    from rtinfra.verify.look.memory import Memory
    from rtinfra.verify.look.others_files import OthersFiles
    from rtinfra.verify.look.packages import Packages
    from rtinfra.verify.look.packet_filter import PacketFilter
    from rtinfra.verify.look.private_files import PrivateFiles
    from rtinfra.verify.look.slices import Slices
    from rtinfra.verify.look.sockets import Sockets
    from rtinfra.verify.look.threads import Threads
    from rtinfra.verify.look.units import Units
    from rtinfra.verify.look.watchdog import Watchdog
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
def layout(subject: Subject) -> CpuLayout:
    """Isolated and housekeeping CPUs, expanded against the host's real topology."""
    if subject.layout is None:
        pytest.fail("; ".join(subject.layout_problems), pytrace=False)
    return subject.layout


@pytest.fixture(scope="session")
def snapshot(subject: Subject) -> Snapshot:
    """What was observed of the host, all at one moment."""
    return subject.snapshot


# --- the parts of the snapshot: a control takes those it needs


@pytest.fixture(scope="session")
def computer(snapshot: Snapshot) -> Computer:
    """Which computer it is, and its circumstances."""
    return snapshot.computer


@pytest.fixture(scope="session")
def kernel(snapshot: Snapshot) -> Kernel:
    """The running kernel."""
    return snapshot.kernel


@pytest.fixture(scope="session")
def cpus(snapshot: Snapshot) -> Cpus:
    """CPUs as the kernel divides them."""
    return snapshot.cpus


@pytest.fixture(scope="session")
def slices(snapshot: Snapshot) -> Slices:
    """What the kernel holds control groups to."""
    return snapshot.slices


@pytest.fixture(scope="session")
def threads(snapshot: Snapshot) -> Threads:
    """Every thread of the host."""
    return snapshot.threads


@pytest.fixture(scope="session")
def interrupts(snapshot: Snapshot) -> Interrupts:
    """Interrupts and where they go."""
    return snapshot.interrupts


@pytest.fixture(scope="session")
def units(snapshot: Snapshot) -> Units:
    """Units as systemd holds them."""
    return snapshot.units


@pytest.fixture(scope="session")
def watchdog(snapshot: Snapshot) -> Watchdog:
    """Hardware watchdogs."""
    return snapshot.watchdog


@pytest.fixture(scope="session")
def boot(snapshot: Snapshot) -> Boot:
    """What boots next."""
    return snapshot.boot


@pytest.fixture(scope="session")
def packages(snapshot: Snapshot) -> Packages:
    """Every package."""
    return snapshot.packages


@pytest.fixture(scope="session")
def logins(snapshot: Snapshot) -> Logins:
    """Group of real-time users, and a new login."""
    return snapshot.logins


@pytest.fixture(scope="session")
def clock(snapshot: Snapshot) -> Clock:
    """The clock, as chrony keeps it."""
    return snapshot.clock


@pytest.fixture(scope="session")
def logs(snapshot: Snapshot) -> Logs:
    """System log and rotation."""
    return snapshot.logs


@pytest.fixture(scope="session")
def drift(snapshot: Snapshot) -> Drift:
    """Last result of the host's own drift checker."""
    return snapshot.drift


@pytest.fixture(scope="session")
def others_files(snapshot: Snapshot) -> OthersFiles:
    """Files of others that are read after ours."""
    return snapshot.others_files


@pytest.fixture(scope="session")
def private_files(snapshot: Snapshot) -> PrivateFiles:
    """Files that are for one account."""
    return snapshot.private_files


@pytest.fixture(scope="session")
def packet_filter(snapshot: Snapshot) -> PacketFilter:
    """Our table of the packet filter."""
    return snapshot.packet_filter


@pytest.fixture(scope="session")
def sockets(snapshot: Snapshot) -> Sockets:
    """What programs listen at."""
    return snapshot.sockets


@pytest.fixture(scope="session")
def application(snapshot: Snapshot) -> Application:
    """Files and processes of the application."""
    return snapshot.application


@pytest.fixture(scope="session")
def memory(snapshot: Snapshot) -> Memory:
    """Memory of the real-time process."""
    return snapshot.memory


@pytest.fixture(scope="session")
def loop(snapshot: Snapshot) -> Loop:
    """The control loop's counter at both ends of the watch."""
    return snapshot.loop


@pytest.fixture(scope="session")
def containers(snapshot: Snapshot) -> Containers:
    """Containers and their data."""
    return snapshot.containers


@pytest.fixture(scope="session")
def answers(snapshot: Snapshot) -> Answers:
    """What programs answer over HTTP."""
    return snapshot.answers


# --- around it


@pytest.fixture(scope="session")
def view(subject: Subject) -> FleetView:
    """The fleet as seen from the host: who runs what, where."""
    return subject.view


@pytest.fixture(scope="session")
def mirror(subject: Subject) -> MirrorPlace:
    """The offline mirror that the host uses or serves."""
    assert subject.view.mirror is not None
    return subject.view.mirror.place


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
