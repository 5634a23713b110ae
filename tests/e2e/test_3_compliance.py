"""Every control passes on the deployed host, those that kill and hang the application included."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from rtinfra import verify
from rtinfra.lab import Machine
from tests.e2e.conftest import INVENTORY


def test_every_control(machine: Machine, tmp_path: Path) -> None:
    report = verify.run(INVENTORY, disruptive=True, output=tmp_path, console=Console(width=160))
    print(report.summary)
    assert not report.problems, report.problems
    assert not report.failed, "\n".join(f"{result.control} {result.title}: {result}" for result in report.failed)
    assert report.count(verify.Status.PASS) >= 60


def test_a_wrong_state_is_found_by_name(machine: Machine, tmp_path: Path) -> None:
    """The controls look at the kernel: what was changed behind systemd's back is reported."""
    machine.run("echo f >/sys/devices/virtual/workqueue/cpumask; sysctl -q -w vm.swappiness=60")
    try:
        report = verify.run(INVENTORY, output=tmp_path)
        failed = {result.control: result.actual for result in report.failed}
        # The one for the masks of workqueues, and the one for sysctls, which says which.
        # A workqueue made late in the boot has no mask but that one, and is named too.
        assert set(failed) - {"RT-10.16"} == {"RT-10.15", "RT-10.30"}
        assert "vm.swappiness" in failed["RT-10.30"]
    finally:
        machine.run("echo 3 >/sys/devices/virtual/workqueue/cpumask; sysctl -q -w vm.swappiness=10")
