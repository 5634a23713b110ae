"""One lab machine for all scenarios, taken through them in the order of the files.

Every scenario is a file that reads from top to bottom. Machines take minutes to make under emulation, so the
scenarios share one: bare for the first files, deployed from `test_2_deploy.py` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rtinfra.images import build
from rtinfra.lab import DEFAULT_GROUPS, ConsoleReporter, Machine, MachineSpec
from rtinfra.paths import PROJECT
from tests.chaos.cuts import Cuts
from tests.chaos.instants import FEW, instants
from tests.e2e.stack import AGENT_GROUPS, BACKENDS, GROUPS, IMAGES, Backends
from tests.project import Project

MACHINE = "e2e"
# Apart from the operator's own lab machines: scenarios deploy to every host of their inventory.
LAB = PROJECT / ".lab-e2e"
INVENTORY = LAB / "inventory.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--heavy", action="store_true", help="also the scenarios that take many minutes")
    parser.addoption("--update-controls", action="store_true", help="store each control's verdict as it is now")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--heavy"):
        for item in items:
            if item.get_closest_marker("heavy"):
                item.add_marker(pytest.mark.skip(reason="takes many minutes; `make test-all` runs it"))


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A bare Debian 13 machine at the start of the session; switched off at its end."""
    # With a card on the lab's network, for the scenarios in which its telemetry leaves it.
    found = Machine(MACHINE, spec=MachineSpec(lan_addresses=1), root=LAB, report=ConsoleReporter())
    if request.config.getoption("--keep-machine"):
        found.up()
        yield found
        return
    found.join(*DEFAULT_GROUPS)
    found.reset()
    yield found
    found.down()


@pytest.fixture(scope="session")
def cuts(machine: Machine) -> Iterator[Cuts]:
    """The power cuts of the first deploy. What becomes of them is told beside the scenarios that follow."""
    few = [moment for moment in instants() if moment.number in FEW]
    told = Cuts(machine, few, ConsoleReporter(), at_a_time=1)
    yield told
    told.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of the project."""
    return Project.copy_to(tmp_path)


@pytest.fixture
def lab_project(project: Project, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh copy whose inventory is the lab machine, as `rtinfra lab up` leaves it."""
    assert INVENTORY.is_file()
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(LAB))
    return project


@pytest.fixture
def settled(request: pytest.FixtureRequest, lab_project: Project) -> Project:
    """The same, and the host is as its settings say. Every scenario leaves it so, but one that failed or was ended."""
    if request.session.testsfailed or request.config.getoption("--keep-machine"):
        result = lab_project.deploy()
        assert result.ok, result.log
    return lab_project


def own_check_by_timer(machine: Machine) -> None:
    """Have the host look at itself by its own timer, a second from now instead of two minutes after its deploy."""
    drop_in = "/run/systemd/system/rtinfra-drift.timer.d/soon.conf"
    machine.run(
        f"mkdir -p {drop_in.rpartition('/')[0]}; printf '[Timer]\\nOnActiveSec=1s\\nAccuracySec=100ms\\n' >{drop_in};"
        " systemctl daemon-reload; touch /run/before; systemctl restart rtinfra-drift.timer;"
        " for i in $(seq 120); do [ /var/lib/rtinfra/drift/result.json -nt /run/before ] && break; sleep 1; done;"
        f" rm {drop_in}; systemctl daemon-reload; [ /var/lib/rtinfra/drift/result.json -nt /run/before ]",
        timeout=200,
    )


def fingerprint(machine: Machine) -> str:
    """What a deploy may change on a host, as one hash: files, packages, units, boot; nothing the application writes."""
    return machine.run(
        "{ find /etc /boot /usr/local /var/lib/dpkg/info /var/lib/rtinfra /var/mxrc -xdev -type f"
        " ! -path /var/lib/rtinfra/drift/result.json ! -path '/var/mxrc/checkpoints/*'"
        " -printf '%p %s %T@ %m %u\\n' 2>/dev/null;"
        " cat /proc/sys/kernel/random/boot_id; cat /var/lib/dpkg/status; } | sort | sha256sum"
    ).stdout


@pytest.fixture(scope="session")
def backends(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Backends]:
    """The second machine, bare at the start of its scenarios, and the real-time machine with agents."""
    unavailable = build.build(IMAGES, ConsoleReporter()).unavailable
    assert not unavailable, "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
    spec = MachineSpec(cpus=2, nodes=1, memory_mb=4096, lan_addresses=2)
    found = Machine(BACKENDS, spec=spec, root=LAB, report=ConsoleReporter())
    found.join(*GROUPS)
    if request.config.getoption("--keep-machine"):
        found.up()
    else:
        found.reset()
    machine.join(*AGENT_GROUPS)
    yield Backends(found)
    if not request.config.getoption("--keep-machine"):
        found.down()
    machine.join(*DEFAULT_GROUPS)
