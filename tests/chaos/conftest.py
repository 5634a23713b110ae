"""One undisturbed deploy, the machines that it would have left behind had the power gone, and what became of them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from rtinfra import runner, verify
from rtinfra.lab import ConsoleReporter, Machine
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter, seconds
from rtinfra.paths import PROJECT
from tests.chaos.instants import COUNT, FEW, SEED, USUAL, USUAL_BOOT, Instant, follow, instants, spread
from tests.chaos.state import HostState, gather

MACHINE = "chaos"
LAB = PROJECT / ".lab-chaos"
SUMMARY = PROJECT / "reports" / "chaos.json"
# Each takes a core and 3 GB for itself.
_AT_A_TIME = 2
# What a cut left half done, as far as a host without Python can say it: packages, dpkg's journal, files half written.
_HALF_DONE = (
    "dpkg --audit 2>/dev/null | grep -c '^ [a-z]'; ls /var/lib/dpkg/updates | wc -l;"
    " find /boot /etc /usr/local /var/lib/rtinfra -name '*.dpkg-new' -o -name '*.new' -o -name .rtinfra-new"
    " -o -name 'stage.*' 2>/dev/null | wc -l"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instants", type=int, help=f"how many of the {COUNT} moments the power goes at, evenly")
    parser.addoption("--seed", type=int, default=SEED, help="chooses the moments")
    parser.addoption("--only", type=int, action="append", help="the moments of these numbers, to repeat a failure")


def chosen(config: pytest.Config) -> list[Instant]:
    """The moments that this run is asked for."""
    every = instants(config.getoption("--seed"))
    if (count := config.getoption("--instants")) is not None:
        return spread(every, min(count, COUNT))
    numbers = config.getoption("--only") or FEW
    return [instant for instant in every if instant.number in numbers]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", chosen(metafunc.config), ids=str)


def _off(machine: Machine) -> None:
    if machine.is_running():
        machine.power_cut()


def _clear() -> None:
    """Remove the machines of an earlier run, which may have been ended in the middle."""
    for directory in LAB.glob(f"*/{MACHINE}"):
        _off(Machine(MACHINE, root=directory.parent))
    shutil.rmtree(LAB, ignore_errors=True)


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
    report: verify.Report
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
            "passed": self.report.count(verify.Status.PASS),
            "failed": [result.control for result in self.report.failed],
        }


class Story:
    """The whole of it, told as it happens. Two machines at a time: the undisturbed one counts."""

    def __init__(self, moments: list[Instant], seed: int, say: Reporter) -> None:
        self._moments = moments
        self._seed = seed
        self._say = say
        self._pool = ThreadPoolExecutor(_AT_A_TIME)
        self._machine = Machine(MACHINE, root=LAB / "reference", report=say)
        self._told: dict[int, Future[Aftermath]] = {}
        self.reference = self._pool.submit(self._undisturbed)

    def aftermath(self, instant: Instant) -> Aftermath:
        """What became of the machine that lost its power then; waits for it."""
        self.reference.result()
        return self._told[instant.number].result()

    def close(self) -> None:
        """Switch off what still runs."""
        self._pool.shutdown(cancel_futures=True)

    def _undisturbed(self) -> Reference:
        machine = self._machine
        _clear()
        start = time.monotonic()
        try:
            machine.up()
            slowness = (time.monotonic() - start) / USUAL_BOOT
            # As on a real host: dpkg waits until a package's files are on the disk.
            machine.run("rm /etc/dpkg/dpkg.cfg.d/lab-unsafe-io && sync")
            self._say.note(
                f"An undisturbed deploy (usually {seconds(sum(USUAL.values()) * slowness)} here); the power goes at"
                f" {', '.join(f'[{moment}]' for moment in self._moments)}; seed {self._seed}"
            )
            run = follow(lambda line: self._deploy(machine, line), self._moments, slowness, self._cut)
            assert run.ok, f"the undisturbed deploy failed:\n{run.log}"
            self._say.note(f"The undisturbed deploy took {seconds(run.seconds)}; looking at its end state")
            return Reference(run, gather(machine))
        finally:
            _off(machine)

    def _cut(self, moment: Instant) -> None:
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
            run = self._deploy(machine)
            assert run.ok, f"the next run failed; the machine is kept in {machine.root}:\n{run.log}"
            self._say.note(f"[{moment}] the next run took {seconds(run.seconds)}")
            again = self._deploy(machine)
            report = verify.run(machine.root / "inventory.yaml", output=machine.root / "reports", latency_seconds=1)
            state = gather(machine)
        finally:
            _off(machine)
        self._say.note(f"[{moment}] {again.changed} changes by another run; {report.summary}")
        # Twenty of them are many gigabytes.
        machine.disk_path.unlink()
        return Aftermath(half_done, run, again, report, state, boot_seconds)

    def _deploy(self, machine: Machine, line: Callable[[str], None] | None = None) -> runner.DeployResult:
        log = machine.root / "deploy.log"

        def say(text: str) -> None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            if line is not None:
                line(text)

        return runner.deploy(str(machine.root), say=say)


@pytest.fixture(scope="session")
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    """One undisturbed deploy and every cut of it."""
    moments = chosen(request.config)
    told = Story(moments, request.config.getoption("--seed"), ConsoleReporter())
    yield told
    told.close()


@pytest.fixture(scope="session")
def reference(story: Story) -> Reference:
    """The machine that was left alone."""
    return story.reference.result()


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """What is written to reports/chaos.json at the end: one entry for each cut."""
    entries: list[dict[str, Any]] = []
    yield entries
    text = json.dumps({"seed": request.config.getoption("--seed"), "cuts": entries}, indent=2, ensure_ascii=False)
    replace_file(SUMMARY, f"{text}\n".encode())
