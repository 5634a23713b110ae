"""What somebody changes by hand is found by the host itself, by name, and put back by the next deploy, exactly that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtinfra import verify
from rtinfra.lab import Machine
from tests.e2e.conftest import INVENTORY, own_check_by_timer
from tests.project import Project

CHECKER = "/usr/local/lib/rtinfra/drift.py"
RESULT = "/var/lib/rtinfra/drift/result.json"
UNIT = "/etc/systemd/system/mxrc-non-rt.service"
MODE = "/etc/mxrc/tracing_config.json"
# What the deploy must not touch while it puts things back.
STATE = (
    "cat /proc/sys/kernel/random/boot_id; "
    "systemctl show --property=Id,ExecMainStartTimestampMonotonic chrony systemd-journald"
)


def check(machine: Machine) -> dict[str, Mapping[str, Any]]:
    """Let the host look at itself through its own service; return what it found by name."""
    machine.run("systemctl start rtinfra-drift.service")
    result = json.loads(machine.run(f"cat {RESULT}").stdout)
    return {f"{found['kind']} {found['name']}": found for found in result["drift"]}


def movable_interrupt(machine: Machine) -> str:
    """Move the first interrupt that lets itself be moved to an isolated core; return its file."""
    script = (
        "for f in /proc/irq/[0-9]*/smp_affinity_list; do "
        'if [ -n "$(ls -d ${f%/*}/*/ 2>/dev/null)" ] && echo 3 >$f 2>/dev/null && [ "$(cat $f)" = 3 ]; '
        "then echo $f; break; fi; done"
    )
    return machine.run(script).stdout.strip()


def test_a_deployed_host_has_not_drifted(settled: Project, machine: Machine) -> None:
    assert check(machine) == {}
    assert settled.deploy().changed == 0


def test_every_change_by_hand_is_found_by_name_and_put_back(lab_project: Project, machine: Machine) -> None:
    machine.run("sysctl -q -w vm.swappiness=60")
    interrupt = movable_interrupt(machine)
    machine.run(f"printf '\n[Service]\nNice=5\n' >>{UNIT}")
    machine.run(f"chmod 0666 {MODE}")

    found = check(machine)
    assert found["sysctl vm.swappiness"]["actual"] == "60"
    assert found[f"interrupt {interrupt}"]["actual"] == "3"
    assert found[f"file {UNIT}"]["actual"] == "another content"
    assert found[f"file {MODE}"]["actual"] == "mode 0666"
    # The unit's file is newer than what systemd has read: the same change, seen by systemd.
    assert set(found) - {"unit mxrc-non-rt.service"} == {
        "sysctl vm.swappiness",
        f"interrupt {interrupt}",
        f"file {UNIT}",
        f"file {MODE}",
    }

    before = machine.run(STATE).stdout
    result = lab_project.deploy()
    assert result.ok, result.log
    assert sorted(result.changed_operations) == ["drift | files", "rt_app | files", "rt_tuning | files", "units"]
    assert machine.run("cat /proc/sys/vm/swappiness").stdout.strip() == "10"
    assert machine.run(f"cat {interrupt}").stdout.strip() == "0-1"
    assert machine.run(f"stat -c %a {MODE}").stdout.strip() == "644"
    assert machine.run(STATE).stdout == before, "nothing else was restarted"
    assert check(machine) == {}
    assert lab_project.deploy().changed == 0


def test_the_timer_runs_and_the_controls_see_it(machine: Machine, tmp_path: Path) -> None:
    own_check_by_timer(machine)
    report = verify.run(INVENTORY, controls=["L-5"], output=tmp_path)
    assert [result.status for result in report.results] == [verify.Status.PASS] * 4, report.results
