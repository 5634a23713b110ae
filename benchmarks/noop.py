"""What a deploy costs that finds nothing to do, against Ansible with the same files, packages and units.

    python -m benchmarks.noop [--json] [--runs N]

On the lab machine, which is started and deployed first when it is not. Ends with 1 when there are more round
trips than allowed, or when the run is not as many times faster as promised. Every run of either program begins
with nobody logged in on the host. Times are only ever compared within one call, on one machine.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import playbook
from benchmarks.outcome import REPORTS, RUNS_ON, BenchmarkError, finish
from benchmarks.record import Observation
from roles.fleet import load_hosts
from rtinfra.lab import ConsoleReporter, Machine, MachineStatus
from rtinfra.local.errors import LocalError
from rtinfra.paths import PROJECT, lab_inventory
from rtinfra.runner import deploy

MACHINE = "rt1"
INVENTORY = "inventory/lab.py"

#: Remote commands and file transfers of one run, connecting left out.
MOST_ROUND_TRIPS = 12
#: The fastest of the playbooks takes at least this many times as long.
LEAST_RATIO = 10.0

PYINFRA = "pyinfra"
_RUNS, _RUNS_WHEN_SLOW = 5, 1
#: A playbook that takes longer than this many seconds is slow: minutes under emulation, tens of times the limit,
#: where one round settles it.
_SLOW_SECONDS = 60.0
#: systemd ends a user's manager ten seconds after the last logout (UserStopDelaySec= of logind.conf(5)). While
#: it still runs a login is a good deal cheaper, and whoever comes second would gain from the one before.
_LOGOUT_SECONDS = 15.0
_RECAP = re.compile(r"^\S+\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """One benchmark. Times are wall clock seconds: of every run by program, and of the parts of one pyinfra run."""

    machine: str
    runs_on: str
    cpus: int
    managed: dict[str, int]
    round_trips: int
    transfers: int
    ansible_round_trips: int
    seconds: dict[str, list[float]]
    parts: list[tuple[str, float]]

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by program."""
        return {name: median(values) for name, values in self.seconds.items()}

    @property
    def ratio(self) -> float:
        """How many times as long the fastest playbook takes."""
        return min(value for name, value in self.medians.items() if name != PYINFRA) / self.medians[PYINFRA]

    @property
    def problems(self) -> list[str]:
        """What is not as promised; empty when the benchmark is passed."""
        found = []
        if self.round_trips > MOST_ROUND_TRIPS:
            found.append(f"{self.round_trips} round trips, at most {MOST_ROUND_TRIPS} are allowed")
        if self.ratio < LEAST_RATIO:
            found.append(f"{self.ratio:.1f} times faster than Ansible, at least {LEAST_RATIO:.0f} are promised")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            **asdict(self),
            "ratio": round(self.ratio, 1),
            "limits": {"round_trips": MOST_ROUND_TRIPS, "ratio": LEAST_RATIO},
            "problems": self.problems,
        }


class Ansible:
    """ansible-playbook with the playbooks of one directory."""

    def __init__(self, directory: Path, sockets: Path) -> None:
        self._directory = directory
        self._sockets = sockets
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        self._environment = {
            **inherited,
            "ANSIBLE_CONFIG": str(directory / playbook.CONFIG),
            "ANSIBLE_HOME": str(directory / "home"),
            "LC_ALL": "C.UTF-8",  # Ansible refuses to start without UTF-8
        }

    def run(self, name: str, *options: str) -> tuple[float, str]:
        """Run a playbook that finds nothing to do; returns its seconds and its output.

        Raises:
            BenchmarkError: when it fails or changes something, which would mean that it manages another state.
        """
        program = Path(sys.executable).with_name("ansible-playbook")
        start = time.monotonic()
        done = subprocess.run(
            [str(program), *options, name],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - start
        recap = _RECAP.search(done.stdout)
        if done.returncode != 0 or recap is None or any(int(count) for count in recap.groups()[1:]):
            told = "\n".join(line[:300] for line in done.stdout.splitlines()[-30:])
            raise BenchmarkError(f"{name} failed, or changed what should have been left alone:\n{told}")
        return seconds, done.stdout

    def disconnect(self) -> None:
        """Close the connections that Ansible keeps for a next run."""
        for socket in self._sockets.iterdir():
            command = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", MACHINE]
            subprocess.run(command, capture_output=True, timeout=30, check=False)


def prepare(console: Console) -> MachineStatus:
    """Bring the machine to where a deploy has nothing to do."""
    machine = Machine(MACHINE, report=ConsoleReporter(console))
    if machine.status().state != "up":
        console.print(f"{MACHINE} is not up: starting it")
        machine.up()
    console.print(f"Deploying to {MACHINE}: seconds when nothing is to do, 5 to 10 minutes on a bare machine")
    result = deploy(INVENTORY, _only(), say=lambda line: _progress(console, line))
    if not result.ok:
        raise BenchmarkError(f"the deploy failed:\n{result.log}")
    return machine.status()


def observe(directory: Path) -> Observation:
    """Run pyinfra once under observation, on a host where it has nothing to do."""
    record = directory / "record.pickle"
    arguments = (*_only(), "--json", "-y", INVENTORY, "deploy.py")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.observe", str(record), *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or json.loads(done.stdout)["results"]["totals"]["success"]:
        raise BenchmarkError(f"the observed run failed, or changed something:\n{done.stderr}")
    found: Observation = pickle.loads(record.read_bytes())
    record.unlink()
    return found


def measure(ansible: Ansible, runs: int | None, console: Console) -> tuple[dict[str, list[float]], int]:
    """Time the programs in turn, so that a change in the load of this computer meets all of them.

    Returns the seconds of every run, and the number of remote commands of a playbook.
    """
    console.print("Ansible, not measured: installs what its apt module needs, fills its caches on the host")
    first, output = ansible.run(playbook.PLAYBOOKS["ansible, loops"], "-vvv")
    rounds = runs or (_RUNS_WHEN_SLOW if first > _SLOW_SECONDS else _RUNS)
    console.print(f"That took {first:.0f} s. Measuring {rounds} times pyinfra and both playbooks")
    seconds: dict[str, list[float]] = {name: [] for name in (PYINFRA, *playbook.PLAYBOOKS)}
    for number in range(1, rounds + 1):
        for name, values in seconds.items():
            ansible.disconnect()
            time.sleep(_LOGOUT_SECONDS)
            values.append(_pyinfra() if name == PYINFRA else ansible.run(playbook.PLAYBOOKS[name])[0])
            console.print(f"  {number} of {rounds}  {name}: {values[-1]:.1f} s")
    ansible.disconnect()
    return seconds, output.count("SSH: EXEC")


def _pyinfra() -> float:
    result = deploy(INVENTORY, _only())
    if not result.ok or result.changed:
        raise BenchmarkError(f"pyinfra failed, or changed something ({result.changed} operations):\n{result.log}")
    return result.seconds


def _only() -> tuple[str, ...]:
    """Options that leave other lab machines alone."""
    return ("--limit", MACHINE)


def _progress(console: Console, line: str) -> None:
    """Show which operation runs and that work goes on, nothing of what it says."""
    if line.startswith(("--> Starting operation", "    ...")):
        console.print(line, markup=False, highlight=False)


def parts(found: Observation, total: float) -> list[tuple[str, float]]:
    """Return where the `total` seconds of an observed run went."""
    facts = sum(seconds for _, seconds in found.facts)
    slowest = max(found.facts, key=lambda fact: fact[1])
    return [
        ("connecting", found.connect),
        (f"looking at the host, {len(found.facts)} facts", facts),
        (f"of which the slowest, {slowest[0]}", slowest[1]),
        ("everything on this computer", total - found.connect - facts),
    ]


def run(runs: int | None, console: Console) -> Result:
    """Do the whole benchmark.

    Raises:
        BenchmarkError: when there is nothing to compare.
        LocalError: when there is no machine.
    """
    status = prepare(console)
    directory = REPORTS / "bench-noop"
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    found = observe(directory)
    total = time.monotonic() - start
    ssh = load_hosts(PROJECT, lab_inventory()).hosts[MACHINE].ssh
    # In /tmp for the sockets: their path may not exceed 107 characters.
    with TemporaryDirectory(prefix="rtb-", dir="/tmp") as sockets:
        playbook.write(directory, found.desired, MACHINE, ssh, Path(sockets))
        seconds, ansible_round_trips = measure(Ansible(directory, Path(sockets)), runs, console)
    return Result(
        machine=MACHINE,
        runs_on=RUNS_ON.get(status.accelerator, status.accelerator),
        cpus=status.cpus,
        managed={
            "paths": len(found.desired.paths),
            "packages": len(found.desired.packages),
            "units": len(found.desired.units),
        },
        round_trips=found.round_trips,
        transfers=found.transfers,
        ansible_round_trips=ansible_round_trips,
        seconds=seconds,
        parts=parts(found, total),
    )


def show(result: Result, console: Console) -> None:
    """Print the table and what follows from it."""
    managed = ", ".join(f"{count} {what}" for what, count in result.managed.items())
    table = Table(title=f"Nothing to do on {result.machine}: {managed}", title_justify="left")
    table.add_column("Program")
    for heading in ("Runs", "Min s", "Median s", "Max s", "Round trips", "Times as long"):
        table.add_column(heading, justify="right")
    for name, values in result.seconds.items():
        middle = result.medians[name]
        trips = result.round_trips if name == PYINFRA else result.ansible_round_trips
        table.add_row(
            name,
            str(len(values)),
            *(f"{value:.1f}" for value in (min(values), middle, max(values))),
            str(trips),
            f"{middle / result.medians[PYINFRA]:.1f}",
        )
    console.print(table)
    console.print(f"Machine: {result.cpus} CPUs, {result.runs_on}. Every run begins with nobody logged in.")
    shown = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in result.parts)
    console.print(f"One run of pyinfra, observed: {shown}.")
    console.print(
        f"Round trips: {result.round_trips - result.transfers} commands and {result.transfers} transfers, "
        f"at most {MOST_ROUND_TRIPS}. Faster than the fastest playbook: {result.ratio:.1f} times, "
        f"at least {LEAST_RATIO:.0f}."
    )
    for problem in result.problems:
        console.print(f"Not passed: {problem}.", style="bold red")


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")] = False,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Runs of each program. Default: 5, or 3 on a slow machine.")
    ] = None,
) -> None:
    """Measure a deploy that finds nothing to do against Ansible. About 20 minutes without KVM."""
    messages = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        result = run(runs, messages)
    except (BenchmarkError, LocalError) as error:
        messages.print(str(error), style="bold red", markup=False)
        raise typer.Exit(1) from error
    finish("noop", result, show, as_json)


if __name__ == "__main__":
    typer.run(main)
