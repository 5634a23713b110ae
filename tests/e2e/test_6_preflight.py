"""A real-time host tells by itself whether it is ready: environment from carried wheels, service and timer, metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtinfra import verify
from rtinfra.lab import ConsoleReporter, Machine
from rtinfra.wheelhouse import PYTHONS, Wheelhouse
from tests.e2e.conftest import INVENTORY
from tests.e2e.stack import AGENT_GROUPS, Backends, eventually
from tests.e2e.test_2_deploy import STATE, out
from tests.project import Project

READY = 'rtinfra_preflight_ready_for_live{env="prod", host="e2e"}'


@pytest.fixture(scope="module", autouse=True)
def preflight(backends: Backends, machine: Machine) -> None:
    """The wheels are fetched, and the machine is in the group."""
    Wheelhouse().fetch(PYTHONS["debian-13"], ConsoleReporter())
    machine.join(*AGENT_GROUPS, "preflight")


def run(machine: Machine) -> tuple[int, dict[str, Any]]:
    """Run the preflight on demand; return its exit code and report."""
    done = machine.run("rtinfra-preflight --json", timeout=300, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def test_the_preflight_is_put_on_the_host(lab_project: Project, machine: Machine) -> None:
    before = out(machine, STATE)
    result = lab_project.deploy()
    assert result.ok, result.log
    assert out(machine, "systemctl is-active rtinfra-preflight.timer") == "active"
    assert out(machine, STATE) == before, "something of the application was restarted"
    second = lab_project.deploy()
    assert second.changed == 0, second.changed_operations


def test_a_host_that_is_ready_says_so(machine: Machine, backends: Backends) -> None:
    code, report = run(machine)
    # An emulated machine may be slow enough for a warning, which is ready all the same.
    assert code in (0, 1) and report["ready_for_live"], report
    eventually(READY, 120, lambda: [one for one in backends.query(READY) if one["value"][1] == "1"])


def test_a_stopped_application_makes_it_not_ready(machine: Machine, backends: Backends) -> None:
    machine.run("systemctl stop mxrc-non-rt mxrc-rt")
    try:
        code, report = run(machine)
        assert code == 2, report
        assert "mxrc-rt.service" in json.dumps(report)
        eventually(READY, 120, lambda: [one for one in backends.query(READY) if one["value"][1] == "0"])
    finally:
        machine.run("systemctl start mxrc-rt mxrc-non-rt")


def test_its_controls_hold(machine: Machine, tmp_path: Any) -> None:
    machine.run("systemctl start rtinfra-preflight.service", timeout=300)
    report = verify.run(INVENTORY, hosts=["e2e"], output=tmp_path)
    found = {result.control: result for result in report.results if result.control.startswith("PF-")}
    assert len(found) >= 8
    failed = [str(result) for result in found.values() if result.status is verify.Status.FAIL]
    assert not failed, failed
