"""What each word of our kernel command line still does beside the isolated partition, by leaving it out.

    python -m benchmarks.parameters [--json] [--seconds N]

On the lab machine, which is started and deployed first when it is not. It is booted once as it is and once for each
word, without that word, from its own frozen entry. Each time two isolated cores are watched, one of them busy with a
single thread, the other idle: how many interrupts each of them takes and how often its scheduler is called. Counts, not
times: an emulated machine tells nothing about latency. Nothing is judged; ends with 1 when a boot could not be watched.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.outcome import BenchmarkError, finish
from rtinfra.lab import ConsoleReporter, Machine
from rtinfra.lab.errors import LabError
from rtinfra.local.errors import LocalError
from rtinfra.runner import deploy

MACHINE = "rt1"
INVENTORY = "inventory/lab.py"
#: The last two cores of the lab machine, which its settings isolate.
IDLE, BUSY = 2, 3
_SETTLE_SECONDS = 15
_ENTRY = "rtinfra-without"
_CUSTOM = "/boot/grub/custom.cfg"

# The good entry without one word, to be booted once. 41_custom of GRUB reads this file.
_PREPARE = f"""set -eu
sed -n '/^menuentry .*--id rtinfra-good /,/^}}/p' /boot/grub/rtinfra.cfg |
    sed -e 's/--id rtinfra-good /--id {_ENTRY} /' -e "/^[[:space:]]*linux/s/ $WITHOUT / /" >{_CUSTOM}.new
! grep -qF " $WITHOUT " {_CUSTOM}.new
mv {_CUSTOM}.new {_CUSTOM}
sync -f {_CUSTOM}
grub-reboot {_ENTRY}
sync -f /boot
"""
# One thread that asks the kernel for nothing, in the partition; the application would do work of its own.
_WATCH = f"""set -eu
systemctl stop mxrc-rt.service mxrc-non-rt.service 2>/dev/null || true
sysctl -q -w kernel.sched_schedstats=1
systemd-run --quiet --unit=busy --slice=rt.slice -p AllowedCPUs={BUSY} sh -c 'while :; do :; done'
sleep {_SETTLE_SECONDS}
look() {{ cat /proc/interrupts; echo @@; grep '^cpu' /proc/schedstat; }}
cat /proc/cmdline
echo @@@
look
echo @@@
sleep $SECONDS_LONG
look
systemctl stop busy.service
"""


@dataclass(frozen=True)
class Core:
    """What one core took in a second: interrupts by their name in /proc/interrupts, calls of its scheduler."""

    interrupts: Mapping[str, float]
    switches: float

    @property
    def total(self) -> float:
        """All interrupts in a second."""
        return sum(self.interrupts.values())


@dataclass(frozen=True)
class Boot:
    """One boot: without which word (empty: as deployed), and what the two cores took."""

    without: str
    busy: Core | None
    idle: Core | None
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """All boots, the one as deployed first."""

    boots: tuple[Boot, ...]

    @property
    def problems(self) -> list[str]:
        """Boots of which nothing is known."""
        return [f"without {boot.without}: {boot.problem}" for boot in self.boots if boot.problem]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"boots": [asdict(boot) for boot in self.boots], "problems": self.problems}


def counted(before: str, after: str, core: int, seconds: float) -> Core:
    """Return what a core took between two looks at /proc/interrupts and /proc/schedstat, in a second.

    The third number of a CPU's line is how often schedule() was called (Documentation/scheduler/sched-stats.rst).
    """
    first, last = _look(before, core), _look(after, core)
    interrupts = {
        name: round((count - first[0].get(name, 0)) / seconds, 2)
        for name, count in last[0].items()
        if count > first[0].get(name, 0)
    }
    return Core(interrupts, round((last[1] - first[1]) / seconds, 2))


def _look(text: str, core: int) -> tuple[dict[str, int], int]:
    interrupts, _, schedstat = text.partition("@@\n")
    head, *lines = interrupts.strip().splitlines()
    column = head.split().index(f"CPU{core}") + 1
    counts = {}
    for line in lines:
        name, *words = line.split()
        if len(words) >= column and words[column - 1].isdigit():
            counts[name.rstrip(":")] = int(words[column - 1])
    (switches,) = [line.split()[3] for line in schedstat.splitlines() if line.split()[0] == f"cpu{core}"]
    return counts, int(switches)


def watched(machine: Machine, without: str, seconds: int) -> Boot:
    """Boot the machine without a word, and watch its cores."""
    try:
        if without:
            before = machine.boot_id()
            machine.run(f"WITHOUT={shlex.quote(without)}\n{_PREPARE}")
            machine.run("systemctl reboot", check=False)
            machine.wait_for_new_boot(before)
        told = machine.run(f"SECONDS_LONG={seconds}\n{_WATCH}", timeout=seconds + 180).stdout
    except LabError as error:
        return Boot(without, None, None, str(error))
    booted, first, last = told.split("@@@\n")
    if without and f" {without} " in f" {booted.strip()} ":
        return Boot(without, None, None, "it was booted with it all the same")
    busy, idle = (counted(first, last, core, seconds) for core in (BUSY, IDLE))
    return Boot(without, busy, idle)


def prepared(console: Console) -> Machine:
    """Return the lab machine, deployed.

    Raises:
        BenchmarkError: the deploy failed.
    """
    machine = Machine(MACHINE, report=ConsoleReporter(console))
    machine.up()
    result = deploy(INVENTORY, ("--limit", MACHINE))
    if not result.ok:
        raise BenchmarkError(f"the deploy failed:\n{result.log}")
    return machine


def words(machine: Machine) -> Sequence[str]:
    """Return what the deploy put on the command line."""
    told = machine.run(". /etc/rtinfra/boot.conf; printf '%s\\n' $PARAMETERS").stdout
    return told.split()


def measure(machine: Machine, seconds: int, console: Console) -> Result:
    """Boot and watch, one word after the other; the machine is as it was in the end."""
    boots = [watched(machine, "", seconds)]
    try:
        for word in words(machine):
            boots.append(watched(machine, word, seconds))
            console.print(_line(boots[-1]))
    finally:
        before = machine.boot_id()
        machine.run(f"rm -f {_CUSTOM}; systemctl reboot", check=False)
        machine.wait_for_new_boot(before)
    return Result(tuple(boots))


def _line(boot: Boot) -> str:
    if boot.busy is None or boot.idle is None:
        return f"without {boot.without}: {boot.problem}"
    return f"without {boot.without}: busy {_told(boot.busy)}; idle {_told(boot.idle)}"


def _told(core: Core) -> str:
    most = sorted(core.interrupts.items(), key=lambda item: -item[1])[:4]
    kinds = ", ".join(f"{name} {count:g}" for name, count in most)
    return f"{core.total:.1f} interrupts/s ({kinds or 'none'}), {core.switches:g} switches/s"


def show(result: Result, console: Console) -> None:
    """Print a result."""
    table = Table("Without", "Busy core", "Idle core", title="In a second, of an isolated core")
    for boot in result.boots:
        cells = [boot.problem, ""] if boot.busy is None or boot.idle is None else [_told(boot.busy), _told(boot.idle)]
        table.add_row(boot.without or "as deployed", *cells)
    console.print(table)


def main(
    seconds: Annotated[int, typer.Option(min=5, help="How long each boot is watched.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Boot the lab machine without each word of its command line in turn, and count."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        found = measure(prepared(console), seconds, console)
    except (BenchmarkError, LocalError) as error:
        console.print(str(error), style="bold red")
        raise typer.Exit(1) from None
    finish("parameters", found, show, as_json)


if __name__ == "__main__":
    typer.run(main)
