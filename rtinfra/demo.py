"""The main job on a lab machine, from nothing to a proven host, told in plain words."""

from __future__ import annotations

import time
from collections.abc import Collection

import typer
from rich.console import Console
from rich.table import Table

from rtinfra import verify
from rtinfra.images import build
from rtinfra.lab import DEFAULT_GROUPS, ConsoleReporter, Machine, MachineSpec
from rtinfra.local.errors import LocalError
from rtinfra.paths import PROJECT, lab_inventory
from rtinfra.runner import DeployResult, deploy
from rtinfra.steps import Step, show

#: The name of the demonstration's machine; `rtinfra lab ssh` takes the same one by default.
MACHINE = "rt1"
#: The machine with gateways and backends.
BACKENDS = "obs1"
BACKEND_IMAGES = ("prometheus", "alertmanager", "otelcol", "jaeger")
#: What can be looked at in a browser, by its port on that machine. Of the programs built here only the alert log has
#: pages of its own; what the others know comes as JSON.
URLS = {
    9095: ("Alert log: current alerts, what to do", "/"),
    16686: ("Jaeger: services with traces", "/api/services"),
    9090: ("Prometheus: what is scraped", "/api/v1/targets?state=active"),
    9093: ("Alertmanager: alerts", "/api/v2/alerts"),
}
BACKENDS_SPEC = MachineSpec(cpus=2, nodes=1, memory_mb=4096, lan_addresses=2)


app = typer.Typer()


@app.command()
def demo() -> None:
    """Do the main job on a lab machine: build it, deploy to it, prove it, say what to do next.

    Example:

        rtinfra demo
    """
    raise typer.Exit(run(Console(soft_wrap=True)))


def run(console: Console) -> int:
    """Build, deploy, deploy again, verify, then the same for the telemetry stack; summarise. Returns the exit code."""
    steps: list[Step] = []
    machine = Machine(MACHINE, spec=MachineSpec(lan_addresses=1), report=ConsoleReporter(console))
    try:
        _real_time(console, steps, machine)
        if all(step.ok for step in steps):
            _telemetry(console, steps, machine)
    except LocalError as error:
        console.print(str(error), style="bold red", markup=False)
        return 1
    return _summarise(console, steps)


def _real_time(console: Console, steps: list[Step], machine: Machine) -> None:
    """One machine, from bare to a verified real-time host."""
    console.rule("1 of 7: a lab machine")
    console.print(
        "A bare Debian 13 computer with UEFI, emulated. The first time takes 4 to 6 minutes, later it is there at once."
    )
    start = time.monotonic()
    machine.up()
    steps.append(Step("Lab machine", f"{MACHINE} answers", True, time.monotonic() - start))

    console.rule("2 of 7: deploy")
    console.print(
        f"pyinfra {inventory()} deploy.py: kernel, isolation, tuning, application, one reboot.\n"
        "5 to 10 minutes on a bare machine without hardware virtualisation, seconds when nothing is to do."
    )
    first = _deploy(console, MACHINE)
    steps.append(Step("Deploy", _counts(first), first.ok, first.seconds))
    if first.ok:
        console.rule("3 of 7: deploy again")
        console.print("An unchanged host must stay unchanged: 0 operations, no restart, no reboot.")
        second = _deploy(console, MACHINE) if first.changed else first
        steps.append(Step("Deploy again", _counts(second), second.ok and second.changed == 0, second.seconds))

        console.rule("4 of 7: verify")
        console.print("What the kernel and systemd say, control by control. 1 to 3 minutes.")
        start = time.monotonic()
        report = verify.run(lab_inventory(), hosts=[MACHINE], disruptive=True, console=console)
        steps.append(Step("Verify", report.summary, report.ok, time.monotonic() - start))


def _telemetry(console: Console, steps: list[Step], machine: Machine) -> None:
    """A second machine with gateways and backends, agents on the first: as much as is real on this computer."""
    console.rule("5 of 7: images of the telemetry programs")
    console.print(
        "Built here, from Debian packages and from Go sources: 10 to 20 minutes the first time, later at once."
    )
    start = time.monotonic()
    outcome = build.build(BACKEND_IMAGES, ConsoleReporter(console))
    for name, reason in outcome.unavailable.items():
        console.print(f"{name} cannot be built here: {reason}", markup=False, highlight=False)
    steps.append(Step("Images", ", ".join(outcome.built) or "none", bool(outcome.built), time.monotonic() - start))
    if not outcome.built:
        return

    console.rule("6 of 7: a second machine, deploy to both")
    console.print("Gateways and backends as containers there, agents on the first: 5 to 10 minutes, later seconds.")
    start = time.monotonic()
    backends = Machine(BACKENDS, spec=BACKENDS_SPEC, report=ConsoleReporter(console))
    groups = backend_groups(outcome.built)
    backends.join(*groups)
    if "gateways" in groups:
        machine.join(*DEFAULT_GROUPS, "agents")
    backends.up()
    deployed = _deploy(console, MACHINE, BACKENDS)
    steps.append(Step("Deploy both", _counts(deployed), deployed.ok, time.monotonic() - start))
    if not deployed.ok:
        return

    console.rule("7 of 7: verify both")
    start = time.monotonic()
    report = verify.run(lab_inventory(), hosts=[MACHINE, BACKENDS], console=console)
    steps.append(Step("Verify both", report.summary, report.ok, time.monotonic() - start))
    _show_urls(console, backends)


def backend_groups(images: Collection[str]) -> tuple[str, ...]:
    """Return the groups of the machine with the backends: all, or what works without the images that are missing."""
    if set(images) >= set(BACKEND_IMAGES):
        return ("gateways", "jaeger", "prometheus", "alertmanager", "lab_backends")
    # Gateways, and so agents, need everything they send to.
    return tuple(name for name in ("prometheus", "alertmanager") if name in images)


def _show_urls(console: Console, backends: Machine) -> None:
    address = backends.lan_addresses[0]
    table = Table(title="Open in a browser on this computer", title_justify="left")
    table.add_column("What")
    table.add_column("Address", overflow="fold")
    for port, (what, path) in URLS.items():
        table.add_row(what, f"http://127.0.0.1:{port}{path}")
    console.print(table)
    tunnels = " ".join(f"-L {port}:{address}:{port}" for port in URLS)
    console.print(
        "The programs listen on the lab's own network; this leads there from here, until Ctrl-C,\n"
        "once `. .venv/bin/activate` has let the terminal find `rtinfra`:\n"
        f"  rtinfra lab ssh {BACKENDS} -N {tunnels}",
        markup=False,
        highlight=False,
    )


def inventory() -> str:
    """Return what the demonstration passes to pyinfra: never an operator's real hosts."""
    has_real_hosts = (PROJECT / "inventory" / "hosts.yaml").exists()
    return "inventory/lab.py" if has_real_hosts else "inventory"


def _deploy(console: Console, *hosts: str) -> DeployResult:
    # Other lab machines may be up; they are not this one's business.
    limit = [word for host in hosts for word in ("--limit", host)]
    return deploy(inventory(), limit, say=lambda line: console.print(line, markup=False, highlight=False))


def _counts(result: DeployResult) -> str:
    if not result.ok:
        return "failed; the reason stands above"
    return f"{result.changed} changed, {result.unchanged} unchanged"


def _summarise(console: Console, steps: list[Step]) -> int:
    show(console, steps)
    if not all(step.ok for step in steps):
        console.print("Not everything is proven. The messages above say what to do; then run `make demo` again.")
        return 1
    console.print(
        "Your lab host runs a real-time kernel with isolated cores and a supervised application.\n"
        "Next, after `. .venv/bin/activate`, once in each terminal:\n"
        "  look around        rtinfra lab ssh\n"
        "  what runs          rtinfra stack ps\n"
        "  stop the machines  rtinfra lab down --all\n"
        "  your own host      copy inventory/hosts.example.yaml to inventory/hosts.yaml, change it, then\n"
        "                     rtinfra check, rtinfra plan, rtinfra apply\n"
        "  what every setting does   docs/rt-host.md",
        markup=False,
        highlight=False,
    )
    return 0
