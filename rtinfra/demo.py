"""The main job on a lab machine, from nothing to a proven host, told in plain words."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from rtinfra import verify
from rtinfra.lab import ConsoleReporter, LabError, Machine
from rtinfra.paths import PROJECT, lab_inventory
from rtinfra.runner import DeployResult, deploy

#: The name of the demonstration's machine; `rtinfra lab ssh` takes the same one by default.
MACHINE = "rt1"


@dataclass(frozen=True)
class Step:
    """One line of the summary."""

    what: str
    result: str
    ok: bool
    seconds: float


def run(console: Console) -> int:
    """Build, deploy, deploy again, verify, summarise. Returns the exit code."""
    steps: list[Step] = []
    machine = Machine(MACHINE, report=ConsoleReporter(console))
    console.rule("1 of 4: a lab machine")
    console.print(
        "A bare Debian 13 computer, emulated. The first time takes 4 to 6 minutes, later it is there at once."
    )
    start = time.monotonic()
    try:
        machine.up()
    except LabError as error:
        console.print(str(error), style="bold red", markup=False)
        return 1
    steps.append(Step("Lab machine", f"{MACHINE} answers", True, time.monotonic() - start))

    console.rule("2 of 4: deploy")
    console.print(
        f"pyinfra {inventory()} deploy.py: kernel, isolation, tuning, application, one reboot.\n"
        "5 to 10 minutes on a bare machine without hardware virtualisation, seconds when nothing is to do."
    )
    first = _deploy(console)
    steps.append(Step("Deploy", _counts(first), first.ok, first.seconds))
    if first.ok:
        console.rule("3 of 4: deploy again")
        console.print("An unchanged host must stay unchanged: 0 operations, no restart, no reboot.")
        second = _deploy(console) if first.changed else first
        steps.append(Step("Deploy again", _counts(second), second.ok and second.changed == 0, second.seconds))

        console.rule("4 of 4: verify")
        console.print("What the kernel and systemd say, control by control. 1 to 3 minutes.")
        start = time.monotonic()
        report = verify.run(lab_inventory(), hosts=[MACHINE], disruptive=True, console=console)
        steps.append(Step("Verify", report.summary, report.ok, time.monotonic() - start))
    return _summarise(console, steps)


def inventory() -> str:
    """Return what the demonstration passes to pyinfra: never an operator's real hosts."""
    has_real_hosts = (PROJECT / "inventory" / "hosts.yaml").exists()
    return "inventory/lab.py" if has_real_hosts else "inventory"


def _deploy(console: Console) -> DeployResult:
    # Other lab machines may be up; they are not this one's business.
    limit = ("--limit", MACHINE)
    return deploy(inventory(), limit, say=lambda line: console.print(line, markup=False, highlight=False))


def _counts(result: DeployResult) -> str:
    if not result.ok:
        return "failed; the reason stands above"
    return f"{result.changed} changed, {result.unchanged} unchanged"


def _summarise(console: Console, steps: list[Step]) -> int:
    table = Table(title="What was done and proven", title_justify="left")
    table.add_column("Step")
    table.add_column("Result")
    table.add_column("")
    table.add_column("Seconds", justify="right")
    for step in steps:
        mark = "[green]OK[/green]" if step.ok else "[bold red]FAILED[/bold red]"
        table.add_row(step.what, step.result, mark, f"{step.seconds:.0f}")
    console.print(table)
    if not all(step.ok for step in steps):
        console.print("Not everything is proven. The messages above say what to do; then run `make demo` again.")
        return 1
    console.print(
        "Your lab host runs a real-time kernel with isolated cores and a supervised application.\n"
        "Next:\n"
        "  look around        .venv/bin/rtinfra lab ssh\n"
        "  stop the machine   .venv/bin/rtinfra lab down\n"
        "  your own host      copy inventory/hosts.example.yaml to inventory/hosts.yaml, change it, then\n"
        "                     .venv/bin/rtinfra check && .venv/bin/pyinfra inventory deploy.py\n"
        "  what every setting does   docs/rt-host.md",
        markup=False,
        highlight=False,
    )
    return 0
