"""One lab machine for all scenarios, taken through them in the order of the files.

Every scenario is a file that reads from top to bottom. Machines take minutes to make under emulation, so the
scenarios share one: bare for the first files, deployed from `test_2_deploy.py` on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rtinfra import runner
from rtinfra.images import build
from rtinfra.lab import DEFAULT_GROUPS, ConsoleReporter, Machine, MachineSpec
from rtinfra.paths import PROJECT
from rtinfra.runner import DeployResult
from tests.e2e.stack import AGENT_GROUPS, BACKENDS, GROUPS, IMAGES, Backends

MACHINE = "e2e"
# Apart from the operator's own lab machines: scenarios deploy to every host of their inventory.
LAB = PROJECT / ".lab-e2e"
INVENTORY = LAB / "inventory.yaml"
# What makes up a project, as an operator would copy it to try a change.
_PARTS = (
    "config.py",
    "deploy.py",
    "docs",
    "group_data",
    "images",
    "inventory",
    "metrics",
    "pyproject.toml",
    "requirements",
    "roles",
    "rtinfra",
    "templates",
)
# Too much to copy; no scenario changes them.
_STORES = (Path("images", "store"), Path("wheels"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-machine", action="store_true", help="take the machine as it is, and leave it up; for single files"
    )
    parser.addoption("--heavy", action="store_true", help="also the scenarios that take many minutes")


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


@dataclass(frozen=True)
class Project:
    """A copy of the project whose settings a scenario may change."""

    path: Path

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace `old`, which must be there exactly once, in a file of the copy."""
        target = self.path / file
        text = target.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        target.write_text(text.replace(old, new), encoding="utf-8")

    def write_host(self, text: str) -> None:
        """Write the operator's own inventory file."""
        (self.path / "inventory" / "hosts.yaml").write_text(text, encoding="utf-8")

    def host(self, settings: str = "{}", **ssh: object) -> None:
        """Write an inventory with the lab machine as an operator's host, with these settings (YAML flow)."""
        data = {"key": LAB / MACHINE / "id_ed25519", "user": "root", "address": "127.0.0.1"} | ssh
        shown = "\n".join(f"      {key}: {value}" for key, value in data.items())
        self.write_host(
            f"hosts:\n  {MACHINE}:\n    groups: [rt_hosts, lab]\n    ssh:\n{shown}\n    settings: {settings}\n"
        )

    def deploy(self, *options: str) -> DeployResult:
        """Run `pyinfra inventory deploy.py` in the copy."""
        return runner.deploy("inventory", options, say=print, project=self.path)

    def pyinfra(self) -> subprocess.Popen[str]:
        """Start the same and return at once."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("pyinfra")), "-y", "inventory", "deploy.py"],
            cwd=self.path,
            env=runner.environment(self.path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of the project."""
    for part in _PARTS:
        source = PROJECT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "hosts.yaml", *(store.name for store in _STORES))
            shutil.copytree(source, tmp_path / part, ignore=ignored)
        else:
            shutil.copy(source, tmp_path / part)
    for store in _STORES:
        (tmp_path / store).symlink_to(PROJECT / store)
    return Project(tmp_path)


@pytest.fixture
def lab_project(project: Project, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh copy whose inventory is the lab machine, as `rtinfra lab up` leaves it."""
    assert INVENTORY.is_file()
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(LAB))
    return project


def wait_for_own_check(machine: Machine) -> None:
    """Wait until the host has looked at itself after the last deploy; it does so again only the next day."""
    script = (
        'since=$(date -d "$(systemctl show -P ActiveEnterTimestamp rtinfra-drift.timer)" +%s); for i in $(seq 60); do '
        "[ $(stat -c %Y /var/lib/rtinfra/drift/result.json || echo 0) -ge $since ] && exit 0; sleep 5; done; exit 1"
    )
    machine.run(script, timeout=400)


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
    """The second machine, bare at the start of its scenarios, and the real-time machine with agents.

    Skips when the collector or Jaeger cannot be built here; everything that can be built is built first.
    """
    outcome = build.build(IMAGES, ConsoleReporter())
    if outcome.unavailable:
        pytest.skip("; ".join(f"{name}: {reason}" for name, reason in outcome.unavailable.items()))
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
