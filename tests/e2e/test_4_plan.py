"""A plan touches nothing, says what the apply then does, agrees with the drift check, and holds while it is true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtinfra import runner
from rtinfra.lab import Machine
from tests.e2e.conftest import MACHINE, fingerprint
from tests.e2e.test_2_deploy import STATE
from tests.e2e.test_4_drift import MODE, UNIT, check
from tests.project import Project

# What a plan must not touch beside files and packages: what runs since when, what apt keeps, what is pending.
RUNNING = (
    f"{STATE}; find /run/rtinfra /var/cache/apt /var/lib/apt /var/cache/rtinfra"
    " -printf '%p %s %T@ %m\\n' 2>/dev/null | sort"
)


def rtinfra(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a copy of the project, with nobody at the terminal."""
    return subprocess.run(
        [sys.executable, "-c", "from rtinfra.cli import app; app(prog_name='rtinfra')", *words],
        cwd=project.path,
        env=runner.environment(project.path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def planned(project: Project, *words: str) -> tuple[int, Mapping[str, Any]]:
    """Return the exit code of a plan and what it says of the machine."""
    ended = rtinfra(project, "plan", "--json", *words)
    assert ended.returncode != 1, ended.stderr
    plan: Mapping[str, Any] = json.loads(ended.stdout)["hosts"][MACHINE]
    return ended.returncode, plan


def told(operations: Sequence[Mapping[str, Any]]) -> dict[str, set[tuple[str, str]]]:
    """Return kind and name of everything that operations change, by operation; what is unknown is no change."""
    return {
        operation["name"]: {(c["kind"], c["name"]) for c in operation["changes"] if c["kind"] != "unknown"}
        for operation in operations
        if operation["changes"]
    }


def test_an_unchanged_host_is_left_alone(settled: Project, machine: Machine) -> None:
    before = fingerprint(machine), machine.run(RUNNING).stdout
    code, plan = planned(settled)
    assert (fingerprint(machine), machine.run(RUNNING).stdout) == before
    assert (code, plan["operations"], plan["reboot"]["needed"]) == (0, [], False)


def test_the_apply_does_what_the_plan_says(lab_project: Project, machine: Machine) -> None:
    """One sysctl, the time servers, one package, and back: each operation with its files, packages and units."""
    lab_project.edit("group_data/rt_hosts.yaml", "vm.swappiness: 10", "vm.swappiness: 1")
    lab_project.edit("group_data/all.yaml", "servers: []", "servers: [192.0.2.123]")
    lab_project.edit("group_data/all.yaml", "[chrony, logrotate, iproute2]", "[chrony, logrotate, iproute2, tree]")
    before = fingerprint(machine), machine.run(RUNNING).stdout
    code, plan = planned(lab_project)
    assert (fingerprint(machine), machine.run(RUNNING).stdout) == before, "a plan changes nothing"
    assert code == 2
    by_name = {operation["name"]: operation for operation in plan["operations"]}
    (sysctl, *_) = by_name["rt_tuning | files"]["changes"]
    assert "\n--vm.swappiness = 10\n+-vm.swappiness = 1\n" in sysctl["diff"]
    (tree,) = (change for change in by_name["packages"]["changes"] if change["kind"] == "package")
    assert tree["name"] == "tree" and tree["old"] is None and tree["new"]
    assert by_name["units"]["consequence"]
    assert [(c["name"], c["consequence"]) for c in by_name["units"]["changes"]] == [("chrony.service", True)]
    assert not plan["reboot"]["needed"]

    assert rtinfra(lab_project, "apply").returncode == 2, "nobody said yes"
    ended = rtinfra(lab_project, "apply", "--yes", "--json")
    assert ended.returncode == 0, ended.stderr
    record = json.loads(ended.stdout)
    (kept,) = (lab_project.path / "reports" / "runs").glob("*.json")
    assert json.loads(kept.read_text()) == record
    run = record["hosts"][MACHINE]
    assert [o["name"] for o in run["operations"] if o["status"] == "changed"] == list(by_name)
    assert told(run["operations"]) == told(plan["operations"])

    # And back, by pyinfra's own command: the same operations again, but that of the packages, which stay.
    lab_project.edit("group_data/rt_hosts.yaml", "vm.swappiness: 1\n", "vm.swappiness: 10\n")
    lab_project.edit("group_data/all.yaml", "servers: [192.0.2.123]", "servers: []")
    lab_project.edit("group_data/all.yaml", "iproute2, tree]", "iproute2]")
    assert list(lab_project.deploy().changed_operations) == [name for name in by_name if name != "packages"]
    machine.run("dpkg --purge tree")


def test_a_reboot_is_predicted(lab_project: Project) -> None:
    lab_project.edit("group_data/rt_hosts.yaml", 'isolated: "2-3"', 'isolated: "3"')
    _, plan = planned(lab_project)
    assert plan["reboot"]["needed"]
    assert "nohz_full=3" in plan["reboot"]["added"]
    assert "nohz_full=2-3" in plan["reboot"]["removed"]
    # It starts the units with their new files; after it the host's own check runs on other housekeeping cores.
    assert told(plan["operations"])["units"] == {("step", "systemd")}


def test_plan_and_drift_check_agree(lab_project: Project, machine: Machine, tmp_path: Path) -> None:
    """What the host finds changed by hand is what the plan puts back, and a saved plan is refused meanwhile."""
    old, new = tmp_path / "old.plan", tmp_path / "new.plan"
    lab_project.edit("group_data/rt_hosts.yaml", "vm.swappiness: 10", "vm.swappiness: 1")
    planned(lab_project, "--output", str(old))
    assert old.stat().st_mode & 0o777 == 0o600
    lab_project.edit("group_data/rt_hosts.yaml", "vm.swappiness: 1\n", "vm.swappiness: 10\n")

    machine.run(f"sysctl -q -w vm.swappiness=60; printf '\\n[Service]\\nNice=5\\n' >>{UNIT}; chmod 0666 {MODE}")
    found = {tuple(name.split(" ", 1)) for name in check(machine)}
    assert {("sysctl", "vm.swappiness"), ("file", UNIT), ("file", MODE)} <= found
    _, plan = planned(lab_project, "--output", str(new))
    everything = {item for items in told(plan["operations"]).values() for item in items}
    live = {tuple(name.split(" ", 1)) for kind, name in everything if kind == "live"}
    assert {item for item in everything if item[0] == "file"} | live == {item for item in found if item[0] != "unit"}
    # A unit whose file systemd has not read again is restarted with the file that is put back.
    assert {item for item in found if item[0] == "unit"} <= everything

    before = fingerprint(machine)
    refused = rtinfra(lab_project, "apply", "--yes", "--plan", str(old))
    assert refused.returncode == 2, refused.stderr
    for reason in ("its settings are not those", "rt_tuning | files: what is on the host has changed"):
        assert reason in refused.stderr
    assert fingerprint(machine) == before

    ended = rtinfra(lab_project, "apply", "--yes", "--plan", str(new))
    assert ended.returncode == 0, ended.stderr
    assert check(machine) == {}
