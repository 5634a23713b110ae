"""Every control passes on the deployed host, those that kill and hang the application included."""

from __future__ import annotations

from pathlib import Path

from rtinfra import verify
from rtinfra.lab import Machine
from rtinfra.paths import lab_inventory


def test_every_control(machine: Machine, tmp_path: Path) -> None:
    report = verify.run(lab_inventory(), hosts=[machine.name], disruptive=True, output=tmp_path, progress=print)
    print(report.summary())
    failed = [result for result in report.results if result.status == "FAIL"]
    assert not report.problems, report.problems
    assert not failed, "\n".join(f"{result.control}: {result.title}: {result}" for result in failed)
    assert len(report.results) >= 60


def test_a_wrong_state_is_found_by_name(machine: Machine, tmp_path: Path) -> None:
    """The controls look at the kernel: what was changed behind systemd's back is reported."""
    machine.run("echo madvise >/sys/kernel/mm/transparent_hugepage/enabled; sysctl -q -w vm.swappiness=60")
    try:
        report = verify.run(lab_inventory(), hosts=[machine.name], output=tmp_path)
        titles = " ".join(str(result) for result in report.results if result.status == "FAIL")
        assert "vm.swappiness" in titles
        assert "hugepage" in titles.lower().replace(" ", "")
    finally:
        machine.run("echo never >/sys/kernel/mm/transparent_hugepage/enabled; sysctl -q -w vm.swappiness=10")
