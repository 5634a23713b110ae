"""A run that ended between files and what follows from them."""

from __future__ import annotations

from rtinfra.lab import Machine
from tests.e2e.test_2_deploy import out
from tests.project import Project


def test_an_interrupted_file_change_is_completed(lab_project: Project, machine: Machine) -> None:
    """Cut off between the files and what follows from them: the markers of the first run finish it."""
    machine.run(
        "mkdir -p /run/rtinfra/pending && touch /run/rtinfra/pending/sysctl /run/rtinfra/pending/restart@chrony.service"
    )
    machine.run("sysctl -q -w vm.swappiness=77")
    started = out(machine, "systemctl show --property=ExecMainStartTimestampMonotonic chrony")
    result = lab_project.deploy()
    assert result.ok, result.log
    # Should the host have looked at itself just then, the deploy has it look again.
    assert set(result.changed_operations) - {"drift | files"} == {"rt_tuning | files", "units"}
    assert out(machine, "cat /proc/sys/vm/swappiness") == "10"
    assert out(machine, "systemctl show --property=ExecMainStartTimestampMonotonic chrony") != started
    assert out(machine, "ls /run/rtinfra/pending") == ""
    assert lab_project.deploy().changed == 0
