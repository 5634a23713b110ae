"""`rtinfra stack`: daily work with the telemetry programs of all hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from roles.fleet import secrets_for
from rtinfra.connection import Connections
from rtinfra.hosts import HostsError
from rtinfra.images import LocalStore
from rtinfra.passwords import PASSWORDS, NobodyToAsk
from rtinfra.quadlet import DATA_ROOT
from rtinfra.stack import run, scripts, surroundings
from rtinfra.stack_programs import Program, programs_of
from rtinfra.terminal import plain

EXIT_FAILED = 1
EXIT_UNUSABLE = 2

app = typer.Typer(
    no_args_is_help=True,
    help="Start, stop, watch and check collectors, gateways and backends on all hosts at once.\n\n"
    "Exit codes: 0 all is well, 1 something is not (it is named), 2 wrong usage or a host that does not answer.",
)

_Programs = Annotated[
    list[str] | None,
    typer.Argument(help="Program, unit or role, for example prometheus or gateways. Default: all.", metavar="PROGRAM"),
]
_Hosts = Annotated[list[str] | None, typer.Option("--host", help="Only this host; may be repeated.")]
_Inventory = Annotated[
    Path | None, typer.Option(help="Inventory file or directory. Default: inventory/, else the lab machines.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def up(programs: _Programs = None, host: _Hosts = None, inventory: _Inventory = None, as_json: _Json = False) -> None:
    """Start programs: what stores first, then what passes on, then what sends.

    Examples:

        rtinfra stack up

        rtinfra stack up prometheus alertmanager --host backend-1
    """
    _act("start", "started", programs, host, inventory, as_json)


@app.command()
def down(programs: _Programs = None, host: _Hosts = None, inventory: _Inventory = None, as_json: _Json = False) -> None:
    """Stop programs: what sends first. The next deploy, restart of the host or `up` starts them again.

    Examples:

        rtinfra stack down

        rtinfra stack down jaeger --json
    """
    _act("stop", "stopped", programs, host, inventory, as_json)


@app.command()
def restart(
    programs: _Programs = None, host: _Hosts = None, inventory: _Inventory = None, as_json: _Json = False
) -> None:
    """Restart programs, in the order of `up`.

    Examples:

        rtinfra stack restart gateways

        rtinfra stack restart --host robot-1
    """
    _act("restart", "restarted", programs, host, inventory, as_json)


@app.command()
def ps(programs: _Programs = None, host: _Hosts = None, inventory: _Inventory = None, as_json: _Json = False) -> None:
    """Show what runs where, since when, with how much memory, and whether it answers. Exit 1: something does not.

    Examples:

        rtinfra stack ps

        rtinfra stack ps grafana gateways --json
    """
    with _stack(inventory, host, programs) as (stack, connections):
        results = run.on_hosts(connections, stack.all, scripts.status_script, scripts.parse_status)
    if as_json:
        _print_json(programs=[{**asdict(status), "ok": status.ok} for status in results.found], results=results)
    else:
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("Host", "Program", "Image and version", "State", "Since", "Memory", "Ready"):
            table.add_column(column, justify="right" if column == "Memory" else "left", overflow="fold")
        for status in results.found:
            state = f"{status.state}, {status.restarts} restarts" if status.restarts else status.state
            table.add_row(
                status.host,
                status.program,
                status.image or "-",
                state,
                status.since or "-",
                f"{status.memory_mb:.0f} MB" if status.memory_mb is not None else "-",
                {True: "yes", False: "no", None: "-"}[status.ready],
                style=None if status.ok else "red",
            )
        _console().print(table)
    _end(all(status.ok for status in results.found), results)


@app.command()
def logs(
    programs: _Programs = None,
    host: _Hosts = None,
    inventory: _Inventory = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each host.")] = 50,
) -> None:
    """Show the last lines that programs wrote, each with the name of its host.

    Examples:

        rtinfra stack logs alertmanager -n 100

        rtinfra stack logs gateways agents -f
    """

    def show(name: str, line: str) -> None:
        sys.stdout.write(f"{name} | {plain(line)}\n")
        sys.stdout.flush()

    with _stack(inventory, host, programs) as (stack, connections):
        failed = run.logs(connections, stack, lines, follow, show)
    for name, reason in failed.items():
        _complain(f"{name}: {reason}")
    raise typer.Exit(EXIT_UNUSABLE if failed else 0)


@app.command("env-check")
def env_check(
    programs: _Programs = None, host: _Hosts = None, inventory: _Inventory = None, as_json: _Json = False
) -> None:
    """Check environment, tenants, secrets, ports, images and disk space of every host. Exit 1: something is wrong.

    Examples:

        rtinfra stack env-check

        rtinfra stack env-check --host backend-1 --json
    """
    with _stack(inventory, host, programs) as (stack, connections):

        def parse(text: str, own: Sequence[Program]) -> list[surroundings.Check]:
            entry = stack.hosts[own[0].host]
            every = programs_of(stack.fleet, entry)
            return surroundings.checks(entry, own, every, surroundings.parse(text), secrets_for(entry), LocalStore())

        results = run.on_hosts(connections, stack.all, surroundings.script, parse)
    if as_json:
        _print_json(checks=[asdict(found) for found in results.found], results=results)
    else:
        console = _console()
        for found in results.found:
            console.print(f"{'OK  ' if found.ok else 'FAIL'} {found.host}  {found.check}: {found.found}", markup=False)
            if not found.ok:
                console.print(f"     what to do: {found.remedy}", markup=False)
    _end(all(found.ok for found in results.found), results)


@app.command()
def reset(
    programs: Annotated[list[str], typer.Argument(help="Programs or roles whose data are deleted.", metavar="PROGRAM")],
    host: _Hosts = None,
    inventory: _Inventory = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; needs --yes.")] = False,
) -> None:
    """Delete all data of programs and start them empty. Says exactly what it deletes, and asks for each host first.

    Examples:

        rtinfra stack reset jaeger --host backend-1

        rtinfra stack reset prometheus --yes --json
    """
    if as_json and not yes:
        _refuse("--json asks nothing: add --yes when the data really are to be deleted")
    with _stack(inventory, host, programs) as (stack, connections):
        # With a container comes the unit that sets it up anew once it is empty.
        emptied = {(program.host, program.role) for program in stack.all if program.directories}
        chosen = tuple(program for program in stack.all if (program.host, program.role) in emptied)
        if not chosen:
            _refuse(f"{', '.join(programs)}: keeps no data of its own in {DATA_ROOT}")
        data = run.on_hosts(connections, chosen, scripts.sizes_script, scripts.parse_sizes)
        if not as_json:
            _announce(data.found)
        agreed = set(data_hosts := list(dict.fromkeys(entry.host for entry in data.found)))
        if not yes:
            agreed = {name for name in data_hosts if _agrees(name)}
        selected = tuple(program for program in chosen if program.host in agreed)
        results = run.on_hosts(connections, selected, scripts.reset_script, scripts.parse_action)
    results.unreachable |= data.unreachable
    if as_json:
        deleted = [asdict(entry) for entry in data.found]
        _print_json(deleted=deleted, programs=[asdict(outcome) for outcome in results.found], results=results)
    else:
        _tell("emptied and started", results.found)
    _end(all(outcome.ok for outcome in results.found) and agreed == set(data_hosts), results)


def _announce(data: Sequence[scripts.Data]) -> None:
    console = _console()
    for name in dict.fromkeys(entry.host for entry in data):
        console.print(f"On {name} everything in these directories is deleted for good:", markup=False)
        for entry in data:
            if entry.host == name:
                size = f"{entry.size_mb:.1f} MB" if entry.size_mb is not None else "not there"
                console.print(f"  {entry.directory}  {size}  ({entry.program})", markup=False)


def _agrees(name: str) -> bool:
    try:
        answer = str(typer.prompt(f"Type {name} to delete, anything else to keep", default="", show_default=False))
    except typer.Abort:
        answer = ""
    if answer.strip() == name:
        return True
    _console().print(f"{name}: nothing was deleted", markup=False)
    return False


def _act(
    verb: scripts.Verb,
    done: str,
    programs: list[str] | None,
    host: list[str] | None,
    inventory: Path | None,
    as_json: bool,
) -> None:
    whole: run.Results[scripts.Outcome] = run.Results()
    with _stack(inventory, host, programs) as (stack, connections):
        for results in run.act(connections, verb, stack.all):
            if not as_json:
                _tell(done, results.found)
            whole.found += results.found
            whole.unreachable |= results.unreachable
    if as_json:
        _print_json(programs=[asdict(outcome) for outcome in whole.found], results=whole)
    _end(all(outcome.ok for outcome in whole.found), whole)


def _tell(done: str, outcomes: Sequence[scripts.Outcome]) -> None:
    console = _console()
    for outcome in outcomes:
        if outcome.ok:
            console.print(f"{outcome.host}  {outcome.program}: {done}", markup=False)
            continue
        console.print(f"{outcome.host}  {outcome.program}: FAILED; the end of its journal:", style="red", markup=False)
        for line in outcome.journal:
            console.print(f"    {line}", markup=False)


@contextmanager
def _stack(
    inventory: Path | None, hosts: list[str] | None, programs: list[str] | None
) -> Iterator[tuple[run.Stack, Connections]]:
    try:
        stack = run.load(inventory, hosts or (), programs or ())
        PASSWORDS.ask_early(stack.hosts.values())
    except (HostsError, NobodyToAsk) as error:
        _refuse(str(error))
    connections = Connections(stack.hosts.values())
    try:
        yield stack, connections
    finally:
        connections.close()


def _print_json(results: run.Results[Any], **found: object) -> None:
    document: Mapping[str, object] = {**found, "unreachable": results.unreachable}
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _end(ok: bool, results: run.Results[Any]) -> NoReturn:
    for name, reason in results.unreachable.items():
        _complain(f"{name}: {reason}")
    if results.unreachable:
        raise typer.Exit(EXIT_UNUSABLE)
    raise typer.Exit(0 if ok else EXIT_FAILED)


def _refuse(message: str) -> NoReturn:
    _complain(message)
    raise typer.Exit(EXIT_UNUSABLE)


def _complain(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, style="bold red", markup=False)


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False)
