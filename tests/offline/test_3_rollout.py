"""The offline journey goes on: bare hosts are deployed from the mirror alone, get a fix, and go back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rtinfra import verify
from tests.offline import wire
from tests.offline.conftest import INVENTORY, LAB
from tests.offline.journey import ROOT, Journey, captured, continued
from tests.project import Project

#: The one that QEMU's user-mode network names in its DHCP answers.
NAME_SERVER = "10.0.2.3"
#: A small package that every real-time host has: the one that gets a fix.
FIXED = "numactl"


@pytest.fixture(scope="module")
def journey(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """The mirror of the file before, and a bare host; switched off in the end."""
    with continued(request.config.getoption("--keep-machine")) as found:
        yield found


@pytest.fixture
def project(journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the project with the two machines as its inventory."""
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(LAB))
    copy = tmp_path / "project"
    copy.mkdir()
    return Project.copy_to(copy)


def test_bare_hosts_are_deployed_from_the_mirror_alone(project: Project, journey: Journey) -> None:
    result = project.deploy()
    assert result.ok, result.log
    assert "PREEMPT_RT" in journey.host.run("uname -v").stdout
    for machine in (journey.server, journey.host):
        machine.capture(captured(machine, "deployed"))
    second = project.deploy()
    assert second.ok, second.log
    assert second.changed == 0, second.changed_operations


def test_every_control_holds(journey: Journey, tmp_path: Path) -> None:
    report = verify.run(INVENTORY, output=tmp_path)
    print(report.summary)
    assert not report.problems, report.problems
    assert not report.failed, "\n".join(f"{result.control} {result.title}: {result}" for result in report.failed)
    assert {"OF-1.1", "OF-1.20"} <= {result.control for result in report.results}


def fixed_inventory(journey: Journey, work: Path) -> Path:
    """Return the inventory with a fix for one package: the archive's own with a higher version."""
    (found,) = {line.split()[-1] for line in journey.lock.read_text().splitlines() if f"/{FIXED}_" in line}
    version = Path(found).name.split("_")[1]
    entries = YAML(typ="safe").load(journey.lock)["packages"]
    (locked,) = [entry for entry in entries if entry["name"] == FIXED]
    pool = journey.connected / "mirror" / "pool" / locked["sha256"][:2] / locked["sha256"]
    tree = work / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", pool, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {version}", f"Version: {version}+fix1"))
    target = work / f"{FIXED}_{version}+fix1_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, target], check=True)
    inventory = YAML(typ="safe").load(INVENTORY)
    for host in inventory["hosts"].values():
        host["settings"]["mirror"] = {"replacements": [str(target)]}
    path = work / "inventory.yaml"
    with path.open("w") as file:
        YAML().dump(inventory, file)
    return path


def test_a_fix_is_carried_in_and_rolled_out(project: Project, journey: Journey, tmp_path: Path) -> None:
    """Only the difference is carried. Power cuts while it is imported and published leave the old mirror serving."""
    before, old = journey.live(), journey.version(FIXED)
    full = journey.bundles[-1]
    delta = journey.make_bundle(fixed_inventory(journey, tmp_path), "--base", full["id"])
    print(f"delta: {delta['carried']} contents, {delta['bytes'] / 1e6:.1f} MB of {full['bytes'] / 1e6:.0f} MB")
    assert delta["bytes"] < full["bytes"] / 10
    folder = journey.carry(delta)

    contents = int(journey.server.run(f"find {ROOT}/pool -type f | wc -l").stdout)
    journey.cut_when(
        f"[ $(find {ROOT}/pool -type f 2>/dev/null | wc -l) -gt {contents} ]", f"rtinfra mirror import {folder}"
    )
    assert journey.live() == before
    journey.server.run(f"rtinfra mirror import {folder}", timeout=300)
    journey.cut_when(f"ls -d {ROOT}/published/*.new-* >/dev/null 2>&1", "rtinfra mirror publish")
    assert journey.live() == before
    published = json.loads(journey.server.run("rtinfra mirror publish --json", timeout=300).stdout)
    assert journey.live()["name"] == published["name"] != before["name"]

    result = project.deploy()
    assert result.ok, result.log
    assert journey.version(FIXED) == f"{old}+fix1"
    assert project.deploy().changed == 0


def test_going_back_takes_the_hosts_back(project: Project, journey: Journey) -> None:
    fixed = journey.version(FIXED)
    back = json.loads(journey.server.run("rtinfra mirror rollback --json", timeout=300).stdout)
    assert back["date"] > journey.live()["date"] or journey.live()["name"] == back["name"]
    result = project.deploy()
    assert result.ok, result.log
    assert journey.version(FIXED) == fixed.removesuffix("+fix1")
    assert project.deploy().changed == 0


def test_nothing_was_tried_to_be_reached_outside(journey: Journey) -> None:
    """Installing asked for nothing but the mirror. A bare Debian asks the network's name server for the distribution's
    time servers, all by itself; deployed, it does not even do that.
    """
    for machine, phases in ((journey.server, ("bare", "mirror")), (journey.host, ("bare",))):
        deployed = captured(machine, "deployed")
        assert deployed.stat().st_size > 10000, "next to nothing was recorded"
        for phase in phases:
            assert wire.opened(captured(machine, phase), machine) <= {f"{NAME_SERVER}:53"}
        tried = wire.opened(deployed, machine)
        assert not tried, f"{machine.name} tried to reach {sorted(tried)}"
