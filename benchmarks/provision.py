"""What a first deploy to a bare host costs, against a plain shell script that brings the host to the same state.

    python -m benchmarks.provision [--json]

On a lab machine of its own that is thrown away and made bare again in between, from the same base image. Both install
the same packages and files, run update-grub, enable the same units, reboot once, and have ended when the host runs its
new kernel with the same units active. What the deploy does besides (freezing the last known good kernel, trial boot,
checks, markers, the flush of every file) is what the difference pays for. The measurement of latency before isolation
is left out on both sides. Ends with 1 when the deploy takes longer than promised, or when the two end states differ.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.outcome import RUNS_ON, BenchmarkError, finish
from benchmarks.record import Desired, Observation
from benchmarks.script import STAGE, shell_script
from rtinfra.lab import ConsoleReporter, Machine
from rtinfra.local.errors import LocalError
from rtinfra.operations.resources import File
from rtinfra.paths import PROJECT
from rtinfra.runner import deploy

MACHINE = "bench1"
INVENTORY = "inventory/lab.py"
#: The deploy takes at most this many times as long as the script.
MOST_RATIO = 1.15
#: The deploy measures latency once, and not when it finds something in this file (templates/rt_tuning/latency.sh.j2).
LATENCY_BEFORE = "/var/lib/rtinfra/latency-before.json"

#: What comes before the first operation: Python, connecting, looking at the host, preparing all operations.
PREPARING = "start, connect, look, prepare"
#: Stages of the script by the operation that does the same; for its stage `files` see `_FILES_SUFFIX`.
_STAGES = {
    "packages": "packages",
    "rt_kernel | boot loader": "boot loader",
    "rt_kernel | reboot when needed": "reboot",
    "units": "units",
}
_FILES, _FILES_SUFFIX = "files", "| files"
_STARTING = "--> Starting operation: "
#: Seconds after which a command on the machine, or a unit that does not become active, is given up.
_COMMAND_SECONDS, _ACTIVE_SECONDS = 3600.0, 600.0
_LAST_LINES = 30
#: Words of the kernel command line that say which entry was booted, not how the kernel behaves.
_ENTRY_WORDS = ("BOOT_IMAGE=", "rtinfra.")

Parts = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Side:
    """One of the two: wall clock seconds in all, and of its parts in order."""

    seconds: float
    parts: Parts


@dataclass(frozen=True)
class EndState:
    """What a machine is in the end: kernel release, words of its command line, packages as `name version`."""

    release: str
    command_line: frozenset[str]
    packages: frozenset[str]


@dataclass(frozen=True)
class Row:
    """A part of the deploy in seconds beside the script's stage that does the same; 0 where a side has none."""

    part: str
    deploy: float
    script: float

    @property
    def more(self) -> float:
        """Seconds that the deploy takes longer for it."""
        return self.deploy - self.script


@dataclass(frozen=True)
class Result:
    """One benchmark. `differences` names what the two end states do not have in common."""

    runs_on: str
    cpus: int
    managed: dict[str, int]
    deploy: Side
    script: Side
    differences: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times as long as the script the deploy takes."""
        return self.deploy.seconds / self.script.seconds

    @property
    def rows(self) -> list[Row]:
        """Where the time of both goes."""
        return compared(self.deploy.parts, self.script.parts)

    @property
    def problems(self) -> list[str]:
        """What is not as promised; empty when the benchmark is passed."""
        found = [f"the end states differ: {difference}" for difference in self.differences]
        if self.ratio > MOST_RATIO:
            found.append(
                f"the deploy takes {self.ratio:.2f} times as long as the script, at most {MOST_RATIO} is promised"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            **asdict(self),
            "ratio": round(self.ratio, 3),
            "rows": [asdict(row) for row in self.rows],
            "limits": {"ratio": MOST_RATIO},
            "problems": self.problems,
        }


# ---- pure -------------------------------------------------------------------------------------------------


def timeline(events: Sequence[tuple[float, str]], total: float, first: str) -> Parts:
    """Return how long each part took, from the seconds at which parts began; `first` is what came before them all.

    A part that begins more than once, as an operation does for several hosts, is summed up.
    """
    moments = [(0.0, first), *events]
    ends = [*(second[0] for second in moments[1:]), total]
    seconds: dict[str, float] = {}
    for (began, name), ended in zip(moments, ends, strict=True):
        seconds[name] = seconds.get(name, 0.0) + ended - began
    return tuple(seconds.items())


def compared(deployed: Iterable[tuple[str, float]], scripted: Iterable[tuple[str, float]]) -> list[Row]:
    """Put operations of a deploy beside the script's stages; what has no counterpart stands by itself."""
    stages = dict(scripted)
    sums: dict[str, float] = {}
    for name, seconds in deployed:
        part = _STAGES.get(name) or (_FILES if name.endswith(_FILES_SUFFIX) else name)
        sums[part] = sums.get(part, 0.0) + seconds
    alone = [name for name in stages if name not in sums]
    return [Row(part, sums.get(part, 0.0), stages.get(part, 0.0)) for part in (*sums, *alone)]


def differences(deployed: EndState, scripted: EndState) -> tuple[str, ...]:
    """Say what two end states do not have in common."""
    found = []
    if deployed.release != scripted.release:
        found.append(f"the deploy's kernel is {deployed.release}, the script's {scripted.release}")
    for what, ours, theirs in (
        ("word of the command line", deployed.command_line, scripted.command_line),
        ("package", deployed.packages, scripted.packages),
    ):
        found += [f"{what} only after the deploy: {name}" for name in sorted(ours - theirs)]
        found += [f"{what} only after the script: {name}" for name in sorted(theirs - ours)]
    return tuple(found)


def end_state(answer: str) -> EndState:
    """Read what `LOOK` prints: release, command line, then a package a line."""
    release, command_line, *packages = answer.splitlines()
    words = (word for word in command_line.split() if not word.startswith(_ENTRY_WORDS))
    return EndState(release, frozenset(words), frozenset(packages))


LOOK = "uname -r; cat /proc/cmdline; dpkg-query -W -f '${Package} ${Version}\\n'"


def checksums(desired: Desired) -> str:
    """Return the list that `sha256sum -c` takes, of every file in its last form."""
    last = {path.path: path for path in desired.paths}
    return "".join(f"{path.sha256}  {path.path}\n" for path in last.values() if isinstance(path, File))


def running_units(desired: Desired) -> list[str]:
    """Return the units that are active in the end."""
    return [unit.name for unit in desired.units if unit.running]


# ---- on the machine ---------------------------------------------------------------------------------------


def bare(machine: Machine) -> None:
    """Make the machine a bare host, whatever it was."""
    if machine.disk_path.exists():
        machine.reset()
    else:
        machine.up()


def observe(directory: Path) -> Desired:
    """Return what a deploy would hand to its operations on the bare machine, which stays as it is."""
    record = directory / "record.pickle"
    arguments = ("--limit", MACHINE, "--dry", "-y", INVENTORY, "deploy.py")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.observe", str(record), *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the dry run failed:\n{_last(done.stdout.splitlines())}")
    found: Observation = pickle.loads(record.read_bytes())
    return found.desired


def deployed(machine: Machine, console: Console) -> Side:
    """Deploy to the bare machine."""
    machine.run(f"mkdir -p $(dirname {LATENCY_BEFORE}) && echo left out >{LATENCY_BEFORE}")
    events: list[tuple[float, str]] = []
    start = time.monotonic()

    def say(line: str) -> None:
        if line.startswith(_STARTING):
            events.append((time.monotonic() - start, line.removeprefix(_STARTING).strip()))
        if line.startswith((_STARTING, "    ...")):
            console.print(line, markup=False)

    result = deploy(INVENTORY, ("--limit", MACHINE), say=say)
    if not result.ok:
        raise BenchmarkError(f"the deploy failed:\n{_last(result.log.splitlines())}")
    if machine.run(f"cat {LATENCY_BEFORE}").stdout != "left out\n":
        raise BenchmarkError(f"the deploy measured latency although {LATENCY_BEFORE} was there")
    return Side(result.seconds, timeline(events, result.seconds, PREPARING))


def scripted(machine: Machine, desired: Desired, console: Console) -> Side:
    """Run the script on the bare machine."""
    before = machine.boot_id()
    events: list[tuple[float, str]] = []
    start = time.monotonic()

    def say(line: str) -> None:
        if line.startswith(STAGE):
            events.append((time.monotonic() - start, line.removeprefix(STAGE).strip()))
            console.print(f"--> script: {events[-1][1]}", markup=False)

    _run_script(machine, shell_script(desired), say)
    machine.wait_for_new_boot(before)
    _wait_until_active(machine, running_units(desired))
    total = time.monotonic() - start
    return Side(total, timeline(events, total, PREPARING))


def _run_script(machine: Machine, script: bytes, say: Callable[[str], None]) -> None:
    """Carry the script over and run it, line by line, until it asks for the reboot."""
    # From a file, not from standard input: scripts of packages may read that.
    words = machine.ssh_command("cat >/root/provision.sh && exec sh /root/provision.sh </dev/null 2>&1")
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdin is not None
    assert process.stdout is not None
    lines: list[str] = []
    try:
        # When ssh has ended by itself, what it said and its exit code tell why.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(script)
            process.stdin.close()
        for raw in process.stdout:
            lines.append(raw.decode(errors="replace").rstrip())
            say(lines[-1])
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    # ssh itself ends with 255 when the host goes down before it has said goodbye.
    is_rebooting = f"{STAGE}reboot" in lines
    if code != 0 and not (is_rebooting and code == 255):
        raise BenchmarkError(f"the script failed:\n{_last(lines)}")


def _wait_until_active(machine: Machine, units: Sequence[str]) -> None:
    deadline = time.monotonic() + _ACTIVE_SECONDS
    while machine.run(f"systemctl is-active --quiet {' '.join(units)}", check=False).returncode != 0:
        if time.monotonic() > deadline:
            states = machine.run(f"systemctl is-active {' '.join(units)}", check=False).stdout.split()
            listed = ", ".join(f"{unit} is {state}" for unit, state in zip(units, states, strict=False))
            raise BenchmarkError(f"not every unit became active after the script: {listed}")
        time.sleep(1)


def ended(machine: Machine, desired: Desired) -> EndState:
    """Look at what the machine became.

    Raises:
        BenchmarkError: it has no real-time kernel, or a file is another one.
    """
    if "PREEMPT_RT" not in machine.run("uname -v").stdout:
        raise BenchmarkError("the machine did not boot its real-time kernel")
    listed = checksums(desired).encode()
    wrong = machine.run("sha256sum --quiet -c - 2>&1", input=listed, timeout=_COMMAND_SECONDS, check=False)
    if wrong.returncode != 0:
        raise BenchmarkError(f"files differ from what was asked for:\n{wrong.stdout}")
    return end_state(machine.run(LOOK).stdout)


def _last(lines: Sequence[str]) -> str:
    return "\n".join(line[:300] for line in lines[-_LAST_LINES:])


def run(console: Console) -> Result:
    """Do the whole benchmark.

    Raises:
        BenchmarkError: when there is nothing to compare.
        LocalError: when there is no machine.
    """
    machine = Machine(MACHINE, report=ConsoleReporter(console))
    try:
        console.print("A bare machine: what a deploy would do, and everything it downloads asked for once")
        bare(machine)
        with TemporaryDirectory(prefix="rtinfra-bench-") as directory:
            desired = observe(Path(directory))
        # Whoever comes first would pay for what the archive, or a cache before it, has not at hand.
        fetch = "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -y -q --no-install-recommends"
        machine.run(f"{fetch} --download-only install {' '.join(desired.packages)}", timeout=_COMMAND_SECONDS)
        console.print("Bare again: the deploy")
        bare(machine)
        ours = deployed(machine, console)
        our_state = ended(machine, desired)
        console.print("Bare again: the script")
        bare(machine)
        theirs = scripted(machine, desired, console)
        their_state = ended(machine, desired)
        status = machine.status()
    finally:
        machine.down()
    managed = {"paths": len(desired.paths), "packages": len(desired.packages), "units": len(desired.units)}
    runs_on = RUNS_ON.get(status.accelerator, status.accelerator)
    return Result(runs_on, status.cpus, managed, ours, theirs, differences(our_state, their_state))


def show(result: Result, console: Console) -> None:
    """Print the table and what follows from it."""
    managed = ", ".join(f"{count} {what}" for what, count in result.managed.items())
    table = Table(title=f"From bare to real-time host: {managed}", title_justify="left")
    table.add_column("Part")
    for heading in ("Deploy s", "Script s", "More s"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        table.add_row(row.part, *(f"{value:.1f}" for value in (row.deploy, row.script, row.more)))
    table.add_section()
    both = Row("in all", result.deploy.seconds, result.script.seconds)
    table.add_row(both.part, *(f"{value:.1f}" for value in (both.deploy, both.script, both.more)))
    console.print(table)
    console.print(
        "By operation: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.deploy.parts) + "."
    )
    console.print(
        f"Machine: {result.cpus} CPUs, {result.runs_on}. The measurement of latency is left out on both sides.\n"
        f"The deploy takes {result.ratio:.2f} times as long as the script, at most {MOST_RATIO}."
    )
    for problem in result.problems:
        console.print(f"Not passed: {problem}.", style="bold red", markup=False)


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")] = False,
) -> None:
    """Measure a first deploy against a plain shell script. About 20 minutes without KVM."""
    messages = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        result = run(messages)
    except (BenchmarkError, LocalError) as error:
        messages.print(str(error), style="bold red", markup=False)
        raise typer.Exit(1) from error
    finish("provision", result, show, as_json)


if __name__ == "__main__":
    typer.run(main)
