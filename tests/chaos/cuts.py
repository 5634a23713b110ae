"""One undisturbed deploy, the machines that it would have left behind had the power gone, and what became of them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtinfra import runner
from rtinfra.lab import Machine, machines
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter, seconds
from rtinfra.paths import PROJECT
from tests.chaos.instants import USUAL, Instant, follow
from tests.chaos.state import HostState, gather

LAB = PROJECT / ".lab-chaos"
SUMMARY = PROJECT / "reports" / "chaos.json"
# What a cut left half done, as far as a host without Python can say it: packages, dpkg's journal, files half written.
_HALF_DONE = (
    "dpkg --audit 2>/dev/null | grep -c '^ [a-z]'; ls /var/lib/dpkg/updates | wc -l;"
    " find /boot /etc /usr/local /var/lib/rtinfra -name '*.dpkg-new' -o -name '*.new' -o -name '.rtinfra-new*'"
    " -o -name 'stage.*' 2>/dev/null | wc -l"
)


@dataclass(frozen=True)
class Reference:
    """The machine that was left alone."""

    run: runner.DeployResult
    state: HostState


@dataclass(frozen=True)
class Aftermath:
    """A machine that lost its power: what it came up with, the runs afterwards, and what it is in the end."""

    half_done: tuple[int, ...]
    """Packages that dpkg reports, entries of its journal, files half written; before the next run."""
    run: runner.DeployResult
    again: runner.DeployResult
    state: HostState
    boot_seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """What is kept of it."""
        return {
            "half_done": self.half_done,
            "boot_seconds": round(self.boot_seconds),
            "run_seconds": round(self.run.seconds),
            "changed": self.run.changed_operations,
            "changed_again": self.again.changed,
        }


class Cuts:
    """The power cuts of one deploy to a bare machine, each told in the background from its moment on.

    `at_a_time` machines start from the copies at once; each takes a core and 3 GB for itself.
    """

    def __init__(self, machine: Machine, moments: Iterable[Instant], say: Reporter, *, at_a_time: int) -> None:
        self._machine = machine
        self._moments = list(moments)
        self._say = say
        self._pool = ThreadPoolExecutor(at_a_time)
        self._reference: Reference | None = None
        self._told: dict[int, Future[Aftermath]] = {}
        clear()

    def deploy(
        self, slowness: float, deploy: Callable[[Callable[[str], None]], runner.DeployResult]
    ) -> runner.DeployResult:
        """Run the undisturbed deploy, which tells its lines to what it is given, and look at what it ends in.

        `slowness`: how many times as long as usual everything takes on this machine.
        """
        # As on a real host: dpkg waits until a package's files are on the disk.
        self._machine.run("rm -f /etc/dpkg/dpkg.cfg.d/lab-unsafe-io && sync")
        self._say.note(
            f"An undisturbed deploy (usually {seconds(sum(USUAL.values()) * slowness)} here); the power goes at"
            f" {', '.join(f'[{moment}]' for moment in self._moments)}"
        )
        run = follow(deploy, self._moments, slowness, self._cut)
        assert run.ok, f"the undisturbed deploy failed:\n{run.log}"
        self._say.note(f"The undisturbed deploy took {seconds(run.seconds)}; looking at its end state")
        self._reference = Reference(run, gather(self._machine))
        return run

    @property
    def reference(self) -> Reference:
        """The machine that was left alone, right after its deploy."""
        assert self._reference is not None, "there was no deploy"
        return self._reference

    def aftermath(self, instant: Instant) -> Aftermath:
        """What became of the machine that lost its power then; waits for it."""
        assert instant.number in self._told, f"there was no deploy of which the power could go at [{instant}]"
        return self._told[instant.number].result()

    def close(self) -> None:
        """Wait for what still runs, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _cut(self, moment: Instant) -> None:
        # A deploy that is repeated, because the emulated kernel crashed in it, has been cut off already.
        if moment.number in self._told:
            return
        twin = self._machine.as_cut_off(LAB / str(moment.number))
        self._say.note(f"Power gone at [{moment}], {twin.disk_path.stat().st_blocks * 512 / 1e6:.0f} MB written")
        self._told[moment.number] = self._pool.submit(self._after, moment, twin)

    def _after(self, moment: Instant, machine: Machine) -> Aftermath:
        start = time.monotonic()
        try:
            machine.up()
            boot_seconds = time.monotonic() - start
            half_done = tuple(map(int, machine.run(_HALF_DONE, check=False).stdout.split()))
            self._say.note(f"[{moment}] is back; half done: {half_done}; the next run (usually 1 to 6 minutes)")
            run = deploy_to(machine.root)
            assert run.ok, f"the next run failed; the machine is kept in {machine.root}:\n{run.log}"
            self._say.note(f"[{moment}] the next run took {seconds(run.seconds)}")
            again = deploy_to(machine.root)
            state = gather(machine)
        finally:
            switch_off(machine)
        self._say.note(f"[{moment}] {again.changed} changes by another run")
        # Twenty of them are many gigabytes.
        machine.disk_path.unlink()
        return Aftermath(half_done, run, again, state, boot_seconds)


def deploy_to(root: Path, line: Callable[[str], None] | None = None) -> runner.DeployResult:
    """Deploy to the machines of a state directory; what is said goes to `deploy.log` there, and to `line`."""
    log = root / "deploy.log"

    def say(text: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        if line is not None:
            line(text)

    return runner.deploy(str(root), say=say)


def write_summary(seed: int, entries: list[dict[str, Any]]) -> None:
    """Write reports/chaos.json: one entry for each cut."""
    text = json.dumps({"seed": seed, "cuts": entries}, indent=2, ensure_ascii=False)
    replace_file(SUMMARY, f"{text}\n".encode())


def switch_off(machine: Machine) -> None:
    """Take the power of a machine that may have none any more."""
    if machine.is_running():
        machine.power_cut()


def clear() -> None:
    """Remove the machines of an earlier run, which may have been ended in the middle."""
    for directory in LAB.glob("*"):
        for machine in machines(directory):
            switch_off(machine)
    shutil.rmtree(LAB, ignore_errors=True)
