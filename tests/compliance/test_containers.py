"""Containers: the right images, running within their bounds, with data of their own."""

from __future__ import annotations

import pytest

from roles.catalogue import ROLES
from roles.host import HostConfig
from roles.shape import Tier
from roles.shared import BACKENDS
from rtinfra.config.types import ByteSize
from rtinfra.images import ImageMissing, LocalStore
from rtinfra.quadlet import SLICE, Container
from rtinfra.stack_programs import Program
from rtinfra.verify import expect, telemetry
from rtinfra.verify.look.answers import Answers
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.containers import Containers
from rtinfra.verify.look.slices import Slices
from rtinfra.verify.look.units import Units

_CONTAINER_ROLES = tuple(role.group for role in ROLES if role.tier not in (Tier.HOST, Tier.SENDS))
on_containers = pytest.mark.on_any(*_CONTAINER_ROLES)


@pytest.fixture
def backends(programs: tuple[Program, ...]) -> tuple[Program, ...]:
    """The programs of the host that are containers."""
    return tuple(program for program in programs if program.container is not None)


def _container(program: Program) -> Container:
    return expect.found(program.container, program.name, "no container")


@on_containers
@pytest.mark.control(id="OF-3.1", severity="critical", title="Every backend of the host runs")
def test_running(units: Units, containers: Containers, backends: tuple[Program, ...]) -> None:
    states = {program.unit: units.of(program.unit).get("ActiveState", "unknown") for program in backends}
    expect.entries(states, dict.fromkeys(states, "active"), "states")
    engine = {
        program.name: containers.all[program.name].state if program.name in containers.all else "absent"
        for program in backends
    }
    expect.entries(engine, dict.fromkeys(engine, "running"), "containers")


@on_containers
@pytest.mark.control(id="OF-3.2", severity="critical", title="Every backend of the host answers")
def test_ready(answers: Answers, backends: tuple[Program, ...]) -> None:
    statuses = {program.name: answers.last(str(program.ready)).status for program in backends}
    silent = [f"{program.name}: {statuses[program.name]}" for program in backends
              if statuses[program.name] not in program.ready_status]  # fmt: skip
    expect.nothing(silent, "backends that are not ready, with their HTTP status")


@on_containers
@pytest.mark.control(id="OF-3.3", severity="high", title="All backends run within their common bounds")
def test_slice(units: Units, backends: tuple[Program, ...]) -> None:
    groups = {program.unit: units.of(program.unit).get("ControlGroup", "") for program in backends}
    expect.entries(groups, {unit: f"/{SLICE}/{unit}" for unit in groups}, "control groups")


@on_containers
@pytest.mark.control(id="OF-3.4", severity="high", title="The kernel bounds the memory of every backend as it is set")
def test_memory(slices: Slices, backends: tuple[Program, ...]) -> None:
    found = {program.unit: slices.memory_max(f"{SLICE}/{program.unit}") or "none" for program in backends}
    required = {program.unit: str(ByteSize.parse(_container(program).memory_max).bytes) for program in backends}
    expect.entries(found, required, "memory limits, in bytes")


@on_containers
@pytest.mark.control(id="OF-3.5", severity="medium", title="The kernel bounds the processor time of every backend")
def test_processor_time(slices: Slices, backends: tuple[Program, ...]) -> None:
    shares = {}
    for program in backends:
        shares[program.unit] = slices.processor_share(f"{SLICE}/{program.unit}") or "none"
    required = {program.unit: _container(program).cpu_quota for program in backends}
    expect.entries(shares, required, "processor time")


@on_containers
@pytest.mark.control(id="OF-3.6", severity="high", title="The kernel bounds the memory of all backends together")
def test_slice_memory(computer: Computer, slices: Slices, config: HostConfig) -> None:
    limit = slices.memory_max(SLICE) or "none"
    required = float(config[BACKENDS].memory_max.rstrip("%"))
    share = 100 * int(limit) / (computer.state.memory_mb * 2**20) if limit.isdecimal() else None
    found = f"{share:.1f} %" if share is not None else limit
    expect.that(share is not None and abs(share - required) < 1, found, f"{required:.0f} %", f"memory limit of {SLICE}")


@on_containers
@pytest.mark.control(id="OF-3.7", severity="critical", title="Every backend runs exactly the image that was chosen")
def test_digests(containers: Containers, backends: tuple[Program, ...]) -> None:
    store = LocalStore()
    wrong = []
    for program in backends:
        try:
            pinned = store.image(_container(program).image)
        except ImageMissing as error:
            expect.not_applicable(f"this computer cannot tell which: {error.message}")
        state = containers.all.get(program.name)
        digests = {reference.rpartition("@")[2] for reference in state.images} if state else set()
        if pinned.rpartition("@")[2] not in digests:
            wrong.append(f"{program.name}: {', '.join(sorted(digests)) or 'no container'}, not {pinned}")
    expect.nothing(wrong, "containers of another image")


@on_containers
@pytest.mark.control(id="OF-3.8", severity="high", title="Only a backend itself may read its data")
def test_data_directories(containers: Containers, backends: tuple[Program, ...]) -> None:
    required = {
        path: f"750 {_container(program).account.name} {_container(program).account.name}"
        for program in backends
        for path in program.directories
    }
    if not required:
        expect.not_applicable("no backend of this host keeps data")
    expect.entries(containers.directories, required, "mode and owner")


@on_containers
@pytest.mark.control(id="OF-3.9", severity="medium", title="No backend is restarting again and again")
def test_no_restart_loop(computer: Computer, units: Units, backends: tuple[Program, ...]) -> None:
    expect.nothing(telemetry.restarting(units, computer.uptime, backends), "backends that were restarted lately")
