"""``rtinfra lab``: virtual machines on this computer to try everything on."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from rtinfra.commands import plain_errors
from rtinfra.lab.errors import LabError
from rtinfra.lab.firmware import Firmware
from rtinfra.lab.machine import DEFAULT_NAME, Machine, machines
from rtinfra.lab.spec import MachineSpec
from rtinfra.lab.status import MachineStatus
from rtinfra.local.progress import ConsoleReporter
from rtinfra.paths import lab_directory

# As `systemctl status` for a unit that is not active.
EXIT_NOT_UP = 3

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Virtual machines on this computer: bare Debian hosts to deploy to, break, and throw away.\n\n"
    "Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, 3 the machine is not up,"
    " 130 interrupted.",
)

_Name = Annotated[str, typer.Argument(help="Name of the machine.", show_default=True)]
_Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON to standard output.")]
_Cpus = Annotated[int | None, typer.Option(help="Number of cores (new machines: 4).")]
_Nodes = Annotated[int | None, typer.Option(help="Number of NUMA nodes (new machines: 2).")]
_Memory = Annotated[int | None, typer.Option(help="Memory in MiB (new machines: 3072).")]
_Disk = Annotated[int | None, typer.Option(help="Disk in GiB as the machine sees it (new machines: 12).")]
_Forward = Annotated[
    list[int] | None,
    typer.Option(help="TCP port of the machine to offer on a free port of 127.0.0.1; may be repeated."),
]
_Lan = Annotated[
    int | None, typer.Option(help="Addresses on the network that the lab's machines share (new machines: none).")
]
_Group = Annotated[
    list[str] | None,
    typer.Option(help="Group of the machine in the lab's inventory; may be repeated (new: rt_hosts and lab)."),
]
_Release = Annotated[str | None, typer.Option(help="Debian release by code name (new machines: trixie).")]
_Backports = Annotated[
    bool | None,
    typer.Option(
        "--backports/--no-backports", help="The release's backports among its apt sources (new machines: no)."
    ),
]
_Firmware = Annotated[
    Firmware | None,
    typer.Option(help="What starts it; with bios or secure-boot, see docs/lab.md (new machines: uefi)."),
]
_Image = Annotated[
    str | None,
    typer.Option(help="File with an operating system of your own that has cloud-init, instead of a bare Debian."),
]
_AirGap = Annotated[
    bool | None,
    typer.Option("--air-gap/--no-air-gap", help="Cut the machine off from every network except our ssh."),
]


def _machine(name: str, **changes: object) -> Machine:
    """The machine, in its own shape but for what was asked for on the command line."""
    machine = Machine(name, report=ConsoleReporter())
    asked = {key: value for key, value in changes.items() if value is not None}
    if not asked:
        return machine
    spec = MachineSpec.from_json({**asdict(machine.spec), **asked})
    return Machine(name, spec=spec, report=ConsoleReporter())


def _absolute(image: str | None) -> str | None:
    """The path as it can be written down; empty stays empty, which asks for a bare Debian."""
    return str(Path(image).absolute()) if image else image


@app.command()
def up(
    name: _Name = DEFAULT_NAME,
    cpus: _Cpus = None,
    nodes: _Nodes = None,
    memory: _Memory = None,
    disk: _Disk = None,
    forward: _Forward = None,
    air_gap: _AirGap = None,
    lan: _Lan = None,
    group: _Group = None,
    release: _Release = None,
    backports: _Backports = None,
    firmware: _Firmware = None,
    image: _Image = None,
    as_json: _Json = False,
) -> None:
    """Make and start a machine, and wait until it can be reached.

    The first time this installs what is missing on this computer and builds a base image (about 3 minutes
    without hardware virtualisation); later it takes as long as a boot. A machine that is up already is left as
    it is.

    Examples:

        rtinfra lab up

        rtinfra lab up small --cpus 2 --nodes 1 --memory 1024

        rtinfra lab up gateway --forward 8080 --air-gap

        rtinfra lab up old --firmware bios

        rtinfra lab up ubuntu --image ubuntu-24.04-server-cloudimg-amd64.img

        rtinfra lab up obs1 --lan 2 --group gateways --group jaeger --group prometheus
    """
    with plain_errors():
        machine = _machine(
            name,
            cpus=cpus,
            nodes=nodes,
            memory_mb=memory,
            disk_gb=disk,
            forwards=forward or None,
            restricted=air_gap,
            lan_addresses=lan,
            suite=release,
            backports=backports,
            firmware=firmware,
            image=_absolute(image),
        )
        machine.up()
        if group:
            machine.join(*group)
        if as_json:
            _print_json(machine.status())
        else:
            print(f"{name} is up. Log in: rtinfra lab ssh {name}. Deploy to it: pyinfra inventory deploy.py")


@app.command()
def down(
    name: _Name = DEFAULT_NAME,
    everything: Annotated[bool, typer.Option("--all", help="All machines that are running.")] = False,
) -> None:
    """Shut a machine down; its disk is kept and `up` starts it again.

    Examples:

        rtinfra lab down

        rtinfra lab down --all
    """
    with plain_errors():
        report = ConsoleReporter()
        names = [machine.name for machine in machines() if machine.is_running()] if everything else [name]
        for each in names:
            machine = Machine(each, report=report)
            if not machine.is_running():
                report.note(f"{each} is not running: nothing to do")
            machine.down()


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Name of the machine; all when left away.")] = None,
    as_json: _Json = False,
) -> None:
    """Show which machines there are and how they are.

    With a NAME, the exit code is 0 when it is up and 3 when it is not.

    Examples:

        rtinfra lab status

        rtinfra lab status rt1 --json
    """
    with plain_errors():
        if name is not None:
            found = Machine(name).status()
            if as_json:
                _print_json(found)
            else:
                _print_table([found])
            if found.state != "up":
                raise typer.Exit(EXIT_NOT_UP)
            return
        every = [machine.status() for machine in machines()]
        if as_json:
            _print_json(every)
        elif every:
            _print_table(every)
        else:
            print(f"There is no lab machine in {lab_directory()}. Make one: rtinfra lab up")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ssh(context: typer.Context, name: _Name = DEFAULT_NAME) -> None:
    """Log in to a machine, or run a command there; as root, but for an operator's own image.

    Examples:

        rtinfra lab ssh

        rtinfra lab ssh rt1 uname -a
    """
    with plain_errors():
        command = Machine(name).ssh_command(*context.args)
        os.execvp(command[0], command)  # ssh takes over the terminal


@app.command()
def reset(
    name: _Name = DEFAULT_NAME,
    disk: _Disk = None,
    release: _Release = None,
    backports: _Backports = None,
    firmware: _Firmware = None,
    image: _Image = None,
    as_json: _Json = False,
) -> None:
    """Throw away what is on a machine and start it as a bare, fresh host.

    Examples:

        rtinfra lab reset

        rtinfra lab reset rt1 --disk 20

        rtinfra lab reset rt1 --firmware bios
    """
    with plain_errors():
        machine = _machine(
            name,
            disk_gb=disk,
            suite=release,
            backports=backports,
            firmware=firmware,
            image=_absolute(image),
        )
        machine.reset()
        if as_json:
            _print_json(machine.status())
        else:
            print(f"{name} is up again, bare and fresh. Log in: rtinfra lab ssh {name}")


@app.command()
def log(
    name: _Name = DEFAULT_NAME,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 60,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show the serial console of a machine: boot loader, kernel and service messages of all its boots.

    Examples:

        rtinfra lab log

        rtinfra lab log rt1 -n 200 --follow
    """
    with plain_errors():
        machine = Machine(name)
        if not machine.console_path.exists():
            raise LabError(f"{name} has no console log yet", f"start it: rtinfra lab up {name}")
        print(machine.console_tail(lines))
        if follow:
            _follow(machine)


def _follow(machine: Machine) -> None:
    with machine.console_path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            text = file.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            if not text:
                time.sleep(0.3)


def _print_json(value: MachineStatus | list[MachineStatus]) -> None:
    data = [asdict(each) for each in value] if isinstance(value, list) else asdict(value)
    print(json.dumps(data, indent=2))


def _print_table(found: list[MachineStatus]) -> None:
    columns = ("Machine", "State", "Port", "Starts by", "CPUs", "Nodes", "MiB", "Disk", "Runs on")
    table = Table(*columns, box=box.SIMPLE, pad_edge=False)
    names = {"kvm": "KVM", "tcg": "emulation", "": "-"}
    for each in found:
        table.add_row(
            each.name,
            each.state,
            str(each.port or "-"),
            each.firmware,
            str(each.cpus),
            str(each.nodes),
            str(each.memory_mb),
            f"{each.disk_used_bytes / 1e9:.1f} GB",
            names[each.accelerator],
        )
    Console(highlight=False).print(table)
