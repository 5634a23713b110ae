"""One kind of host, from bare to proven on a lab machine: an operator's image, another release, kernel, firmware."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from rtinfra import verify
from rtinfra.commands import plain_errors
from rtinfra.facts.boot import TRIAL_SCRIPT
from rtinfra.lab import DEFAULT_GROUPS, ConsoleReporter, Firmware, Machine, MachineSpec
from rtinfra.local.files import replace_file
from rtinfra.paths import PROJECT, lab_directory
from rtinfra.runner import DeployResult, deploy
from rtinfra.steps import Step, show

#: The machine that is proven; another one with every run.
MACHINE: Final = "prove"
#: The row for docs/proof.md.
ROW: Final = PROJECT / "reports" / "proof-row.md"
#: Group of hosts with the kernel of their release's backports.
BACKPORTS_KERNEL: Final = "backports_kernel"
# cloud-init goes on after ssh answers: it grows the disk and may install something. One that is not there has ended.
_SETTLE = "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait >/dev/null; cloud-init status --long"
_WHAT = (
    '. /etc/os-release; echo "$PRETTY_NAME"; uname -r;'
    " [ -d /sys/firmware/efi ] && echo UEFI || echo BIOS;"
    " findmnt -n -o FSTYPE /; cloud-init --version 2>/dev/null | tail -n 1"
)

app = typer.Typer()


@dataclass(frozen=True)
class Proof:
    """What came out."""

    what: str
    """The system before its deploy: release, kernel, firmware, root file system."""
    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether every step is there and none failed."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def row(self, day: date) -> str:
        """The row for the table of results in docs/proof.md."""
        told = "; ".join(f"{step.what.lower()}: {step.result}" for step in self.steps)
        minutes = sum(step.seconds for step in self.steps) / 60
        result = told if self.ok else f"**not proven.** {told}"
        return f"| `rtinfra prove` of {day.isoformat()}: {self.what} | {result} | {minutes:.0f} min |\n"


@app.command()
def prove(
    image: Annotated[Path | None, typer.Option(help="File with a system of your own that has cloud-init.")] = None,
    release: Annotated[str, typer.Option(help="Without an image: Debian release by code name.")] = "trixie",
    backports: Annotated[bool, typer.Option(help="The real-time kernel of the release's backports.")] = False,
    firmware: Annotated[Firmware, typer.Option(help="What starts the machine.")] = Firmware.UEFI,
    keep: Annotated[bool, typer.Option(help="Leave the machine running, to look around.")] = False,
) -> None:
    """Take a bare lab machine through deploy, trial boot, a second deploy and all controls; write the row for
    docs/proof.md.

    Ends with 0: proven, 1: not. 20 to 30 minutes without hardware virtualisation.

    Examples:

        rtinfra prove --image ubuntu-24.04-server-cloudimg-amd64.img

        rtinfra prove --backports

        rtinfra prove --release bookworm --firmware bios
    """
    console = Console(soft_wrap=True)
    spec = MachineSpec(
        suite=release,
        # Debian 12's own real-time kernel is older than what is asked for.
        backports=not image and (backports or release == "bookworm"),
        firmware=firmware,
        image=str(image.absolute()) if image else "",
    )
    with plain_errors():
        machine = Machine(MACHINE, spec=spec, root=lab_directory() / "prove", report=ConsoleReporter(console))
        machine.join(*DEFAULT_GROUPS, *([BACKPORTS_KERNEL] if backports else []))
        try:
            proof = of(machine, console)
        finally:
            if not keep:
                machine.down()
        row = proof.row(date.today())
        replace_file(ROW, row.encode())
        show(console, proof.steps)
        console.print(f"The row for docs/proof.md, also in {ROW.relative_to(PROJECT)}:\n{row}", markup=False)
        raise typer.Exit(0 if proof.ok else 1)


def of(machine: Machine, console: Console) -> Proof:
    """Prove a machine from bare on; stops at the first step that fails.

    Raises LabError when there is no machine to prove.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    machine.reset()
    machine.run(_SETTLE, timeout=900, check=False)
    what = ", ".join(machine.run(_WHAT).stdout.split("\n")).strip(", ")
    say(f"{machine.name} is {what}")
    steps: list[Step] = []
    checks: tuple[Callable[[], Step], ...] = (
        lambda: _deployed("Deploy", _deploy(machine, say)),
        lambda: _trial(machine),
        lambda: _unchanged(_deploy(machine, say)),
        lambda: _controls(machine, console),
    )
    for check in checks:
        steps.append(check())
        say(f"{steps[-1].what}: {steps[-1].result}")
        if not steps[-1].ok:
            break
    return Proof(what, tuple(steps))


def _deploy(machine: Machine, say: Callable[[str], None]) -> DeployResult:
    return deploy(str(machine.root), say=say)


def _deployed(what: str, result: DeployResult) -> Step:
    told = f"{result.changed} changed" if result.ok else "failed; the reason stands above"
    return Step(what, told, result.ok, result.seconds)


def _trial(machine: Machine) -> Step:
    start = time.monotonic()
    said = machine.run(f"{TRIAL_SCRIPT} 2>/dev/null; echo running=$(uname -r)", check=False).stdout
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    status, release = found.get("status", "there was none"), found.get("release")
    ok = status == "promoted" and release == found["running"]
    told = f"{status}, {release}" if ok else f"{status} ({found.get('reason', 'no reason')}), {found['running']} runs"
    return Step("Trial boot", told, ok, time.monotonic() - start)


def _unchanged(result: DeployResult) -> Step:
    told = f"{result.changed} changed" if result.ok else "failed; the reason stands above"
    return Step("Deploy again", told, result.ok and result.changed == 0, result.seconds)


def _controls(machine: Machine, console: Console) -> Step:
    start = time.monotonic()
    try:
        report = verify.run(machine.root / "inventory.yaml", disruptive=True, console=console)
    except verify.VerifyError as error:
        return Step("All controls", str(error), False, time.monotonic() - start)
    return Step("All controls", report.summary, report.ok, time.monotonic() - start)
