"""Every control ends on the deployed host as it is written down, those that kill and hang the application included."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from rtinfra import verify
from rtinfra.lab import Machine
from tests.e2e import verdicts
from tests.e2e.conftest import INVENTORY, own_check_by_timer


def test_every_control(machine: Machine, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    own_check_by_timer(machine)
    report = verify.run(INVENTORY, disruptive=True, output=tmp_path, console=Console(width=160))
    print(report.summary)
    assert not report.problems, report.problems
    assert not report.failed, "\n".join(f"{result.control} {result.title}: {result}" for result in report.failed)
    if request.config.getoption("--update-controls"):
        verdicts.update(report.results)
    found = verdicts.differences(verdicts.load(), report.results)
    assert not found, "not what tests/e2e/controls.yaml says:\n" + "\n".join(found)


def test_a_wrong_state_is_found_by_name(machine: Machine, tmp_path: Path) -> None:
    """The controls look at the kernel: what was changed behind systemd's back is reported."""
    machine.run("echo f >/sys/devices/virtual/workqueue/cpumask; sysctl -q -w vm.swappiness=60")
    try:
        report = verify.run(INVENTORY, output=tmp_path)
        failed = {result.control: result.actual for result in report.failed}
        # The one for the masks of workqueues, and the one for sysctls, which says which.
        # A workqueue made late in the boot has no mask but that one, and is named too; so are threads that do its work.
        assert set(failed) - {"RT-10.16", "RT-10.60"} == {"RT-10.15", "RT-10.30"}
        assert "vm.swappiness" in failed["RT-10.30"]
    finally:
        machine.run("echo 3 >/sys/devices/virtual/workqueue/cpumask; sysctl -q -w vm.swappiness=10")
