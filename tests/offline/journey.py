"""Both sides of the air gap, as the scenarios of the offline journey share them.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtinfra.images import build
from rtinfra.lab import ConsoleReporter, Machine, MachineSpec
from rtinfra.lab.errors import LabError
from tests.offline.conftest import LAB

SERVER = MachineSpec(cpus=2, nodes=1, memory_mb=2048, restricted=True, lan_addresses=1)
HOST = MachineSpec(restricted=True, lan_addresses=1)
#: Folder of the mirror on its host, and what carried bundles are put into there.
ROOT, STICK = "/srv/rtinfra-mirror", "/media/stick"
_BUNDLES = "bundles.json"


@dataclass
class Journey:
    """Both sides of the air gap."""

    server: Machine
    host: Machine
    connected: Path

    @property
    def bundles(self) -> list[dict[str, Any]]:
        """What was said of each bundle when it was made, the oldest first."""
        told = self.connected / _BUNDLES
        found: list[dict[str, Any]] = json.loads(told.read_text()) if told.exists() else []
        return found

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
        made = self.mirror("bundle", *lock, *options)
        (self.connected / _BUNDLES).write_text(json.dumps([*self.bundles, made]))
        return made

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


def captured(machine: Machine, phase: str) -> Path:
    """Where everything is that the machine sent outside in one phase: `bare`, `mirror`, or `deployed`."""
    return LAB / f"{machine.name}-{phase}.pcap"


def _both() -> Journey:
    report = ConsoleReporter()
    # An image for the mirror's registry that needs no Go.
    build.build(("alertmanager",), report)
    server = Machine("mirror", spec=SERVER, root=LAB, report=report)
    host = Machine("offline", spec=HOST, root=LAB, report=report)
    server.join("mirror_server", "mirror_client", "alertmanager")
    host.join("rt_hosts", "lab", "mirror_client")
    return Journey(server, host, LAB / "connected")


@contextmanager
def begun(kept: bool) -> Iterator[Journey]:
    """Two bare machines without a way out, and an empty connected side. `kept`: all of them as they are."""
    journey = _both()
    for machine in (journey.server, journey.host):
        if kept:
            machine.up()
        else:
            machine.reset()
        machine.capture(captured(machine, "bare"))
    if not kept:
        shutil.rmtree(journey.connected, ignore_errors=True)
    journey.connected.mkdir(exist_ok=True)
    yield journey
    if not kept:
        journey.server.down()
        journey.host.down()


@contextmanager
def continued(kept: bool) -> Iterator[Journey]:
    """The same machines, started again: one is the mirror, the other is still bare."""
    journey = _both()
    assert journey.bundles, "the mirror is not there: run tests/offline/test_2_mirror.py before"
    for machine, phase in ((journey.server, "mirror"), (journey.host, "bare")):
        machine.up()
        machine.capture(captured(machine, phase))
    yield journey
    if not kept:
        journey.server.down()
        journey.host.down()
        shutil.rmtree(journey.connected)
