"""The whole offline journey: lock, fetch, carry in, publish, deploy bare hosts from the mirror alone, update, go back.

Two machines reach each other and nothing else. One becomes the mirror, out of the bundle that is carried to it; the
other, bare, becomes a real-time host with what the mirror serves. What their cards send outside is recorded throughout.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rtinfra import verify
from rtinfra.images import build
from rtinfra.lab import ConsoleReporter, Machine, MachineSpec
from rtinfra.lab.errors import LabError
from rtinfra.mirror.installer import checking_lines
from tests.offline import wire
from tests.offline.conftest import INVENTORY, LAB
from tests.project import Project

SERVER = MachineSpec(cpus=2, nodes=1, memory_mb=2048, restricted=True, lan_addresses=1)
HOST = MachineSpec(restricted=True, lan_addresses=1)
#: Folder of the mirror on its host, and what carried bundles are put into there.
ROOT, STICK = "/srv/rtinfra-mirror", "/media/stick"
LIVE = f"cat {ROOT}/published/current/release.json"
#: The one that QEMU's user-mode network names in its DHCP answers.
NAME_SERVER = "10.0.2.3"
#: A small package that every real-time host has: the one that gets a fix.
FIXED = "numactl"


@dataclass
class Journey:
    """Both sides of the air gap."""

    server: Machine
    host: Machine
    connected: Path
    bundles: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lock(self) -> Path:
        """The lock, on the connected side."""
        return self.connected / "mirror.lock.yaml"

    def mirror(self, *words: str) -> dict[str, Any]:
        """Run `rtinfra mirror ...` on the connected side; return its result."""
        program = str(Path(sys.executable).with_name("rtinfra"))
        done = subprocess.run(
            [program, "mirror", *words, "--directory", str(self.connected / "mirror"), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"rtinfra mirror {' '.join(words)} ended with {done.returncode}: {done.stdout}"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def make_bundle(self, inventory: Path, *options: str) -> dict[str, Any]:
        """Lock, fetch, prove and pack what the hosts of an inventory install."""
        lock = ("--lock", str(self.lock))
        self.mirror("lock", *lock, "--inventory", str(inventory))
        self.mirror("fetch", *lock)
        self.mirror("check", *lock, "--inventory", str(inventory))
        self.bundles.append(self.mirror("bundle", *lock, *options))
        return self.bundles[-1]

    def carry(self, bundle: dict[str, Any]) -> str:
        """Copy a bundle to the mirror's host, as a stick would; return its folder there."""
        self.server.run(f"mkdir -p {STICK}")
        folder = Path(bundle["folder"])
        config = ("-q", "-F", str(self.server.ssh_config_path))
        subprocess.run(["scp", *config, "-r", str(folder), f"{self.server.name}:{STICK}/"], check=True, timeout=300)
        self.server.run("sync")  # a stick has been taken out properly
        return f"{STICK}/{folder.name}"

    def cut_when(self, condition: str, command: str, every: float = 0.02) -> None:
        """Start a command on the mirror's host; its power goes, without a sync, the moment the condition holds.

        `every`: seconds between two looks, each of which takes a part of an emulated core from the command.
        """
        before = self.server.boot_id()
        until = f"until {condition}; do kill -0 $! || exit; sleep {every}; done; echo b >/proc/sysrq-trigger"
        script = f"({command}) >/var/tmp/cut.log 2>&1 & {until}"
        self.server.run(f"systemd-run --quiet sh -c {shlex.quote(script)}")
        try:
            self.server.wait_for_new_boot(before, timeout=900)
        except LabError as error:
            log = self.server.run("tail -n 20 /var/tmp/cut.log", check=False).stdout
            raise AssertionError(f"the power was not cut: {error}\n{log}") from error

    def live(self) -> dict[str, Any]:
        """Return what the mirror serves, as a host sees it over the network."""
        address = self.server.lan_addresses[0]
        script = (
            "import ssl, sys, urllib.request as r; c = ssl.create_default_context(cafile='/etc/rtinfra/mirror-ca.crt');"
            f"print(r.urlopen('https://{address}/release.json', context=c, timeout=30).read().decode())"
        )
        found: dict[str, Any] = json.loads(self.host.run(f'python3 -c "{script}"').stdout)
        return found

    def version(self, package: str) -> str:
        """Return the version of a package on the real-time host."""
        return self.host.run(f"dpkg-query -W -f '${{Version}}' {package}").stdout.strip()


def _captured(machine: Machine, phase: str) -> Path:
    """Where everything is that the machine sent outside while it was `bare`, or once it was `deployed`."""
    return LAB / f"{machine.name}-{phase}.pcap"


@pytest.fixture(scope="module")
def journey(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """Two bare machines without a way out, and a connected side beside them."""
    report = ConsoleReporter()
    # An image for the mirror's registry that needs no Go.
    build.build(("alertmanager",), report)
    server = Machine("mirror", spec=SERVER, root=LAB, report=report)
    host = Machine("offline", spec=HOST, root=LAB, report=report)
    connected = LAB / "connected"
    kept = request.config.getoption("--keep-machine")
    for machine, groups in (
        (server, ("mirror_server", "mirror_client", "alertmanager")),
        (host, ("rt_hosts", "lab", "mirror_client")),
    ):
        machine.join(*groups)
        if kept:
            machine.up()
        else:
            machine.reset()
        machine.capture(_captured(machine, "bare"))
    if not kept:
        shutil.rmtree(connected, ignore_errors=True)
    connected.mkdir(exist_ok=True)
    yield Journey(server, host, connected)
    if not kept:
        server.down()
        host.down()
        shutil.rmtree(connected)


@pytest.fixture
def project(journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the project with the two machines as its inventory."""
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(LAB))
    copy = tmp_path / "project"
    copy.mkdir()
    return Project.copy_to(copy)


def test_a_bundle_of_everything_is_made(journey: Journey) -> None:
    made = journey.make_bundle(INVENTORY)
    again = journey.mirror("lock", "--lock", str(journey.lock), "--inventory", str(INVENTORY))
    assert again["result"] == "unchanged"
    print(f"full bundle: {made['carried']} contents, {made['bytes'] / 1e6:.0f} MB")


def test_a_bare_host_becomes_the_mirror_through_a_power_cut(journey: Journey) -> None:
    """Its only source is the bundle. The power goes while contents enter the pool; the same command completes it."""
    bundle = journey.bundles[-1]
    folder = journey.carry(bundle)
    for line in checking_lines(bundle["number"]):
        print(journey.server.run(f"cd {folder} && {line}", timeout=300).stdout)
    install = f"sh {folder}/install.sh --key {bundle['number']}"
    journey.cut_when(f"[ $(find {ROOT}/pool -type f 2>/dev/null | wc -l) -gt 40 ]", install, every=0.5)
    done = journey.server.run(install, timeout=900)
    print(done.stderr)
    published = journey.server.run("rtinfra mirror publish --json", timeout=300)
    assert json.loads(published.stdout)["changed"]
    assert journey.server.run("rtinfra mirror audit", timeout=300).stdout.strip() == "everything is as it should be"


def test_bare_hosts_are_deployed_from_the_mirror_alone(project: Project, journey: Journey) -> None:
    result = project.deploy()
    assert result.ok, result.log
    assert "PREEMPT_RT" in journey.host.run("uname -v").stdout
    for machine in (journey.server, journey.host):
        machine.capture(_captured(machine, "deployed"))
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
    for machine in (journey.server, journey.host):
        bare, deployed = (_captured(machine, phase) for phase in ("bare", "deployed"))
        assert deployed.stat().st_size > 10000, "next to nothing was recorded"
        assert wire.opened(bare, machine) <= {f"{NAME_SERVER}:53"}
        tried = wire.opened(deployed, machine)
        assert not tried, f"{machine.name} tried to reach {sorted(tried)}"
