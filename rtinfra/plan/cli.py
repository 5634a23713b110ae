"""`rtinfra plan` and `rtinfra apply`: what a deploy would do, and doing it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from typer.core import TyperCommand

from rtinfra.commands import EXIT_FAILED, EXIT_WRONG, messages, plain_errors, tell
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import ConsoleReporter
from rtinfra.paths import PROJECT
from rtinfra.plan import display, show
from rtinfra.plan.model import Plan, PlanError
from rtinfra.plan.run_record import RunRecord
from rtinfra.plan.worker_process import Prepared, WorkerProcess, WrongInput

EXIT_CHANGES: Final = 2

_AGAIN = "The next run does what was left undone: run the same command again."
# What asking hosts usually takes.
_USUAL_SECONDS = 8.0

_Inventory = Annotated[Path, typer.Option(help="Inventory file or directory, relative to the project folder.")]
_Hosts = Annotated[list[str] | None, typer.Option("--host", help="Only this host; may be repeated.")]


class PlanCommand(TyperCommand):
    """A command whose exit code 2 has a meaning of its own: a mistake on the command line ends with 1."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the command line."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except Exception as error:
            # However the library calls its exceptions: this is how they end a program.
            if getattr(error, "exit_code", None) == EXIT_WRONG:
                error.exit_code = EXIT_FAILED  # type: ignore[attr-defined]
            raise


app = typer.Typer()


@app.command(cls=PlanCommand)
def plan(
    inventory: _Inventory = Path("inventory"),
    host: _Hosts = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON (docs/plan.md).")] = False,
    output: Annotated[Path | None, typer.Option(help="Also save the plan here, for `rtinfra apply --plan`.")] = None,
) -> None:
    """Say what a deploy would change, without changing anything. Ends with 0: nothing, 2: changes, 1: could not look.

    Examples:

        rtinfra plan

        rtinfra plan --host robot-1 --output robot-1.plan && rtinfra apply --plan robot-1.plan
    """
    with plain_errors("Nothing was changed."):
        try:
            with WorkerProcess(inventory, host or ()) as worker:
                prepared = _prepared(worker)
        except WrongInput as error:
            tell(messages(), error)
            raise typer.Exit(EXIT_FAILED) from error
        if output is not None:
            prepared.plan.save(output)
    if as_json:
        typer.echo(json.dumps(prepared.plan.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(prepared.plan, diffs=True)
    if prepared.failed:
        _say_failed(prepared)
        raise typer.Exit(EXIT_FAILED)
    raise typer.Exit(EXIT_CHANGES if prepared.plan.has_changes else 0)


@app.command()
def apply(
    inventory: _Inventory = Path("inventory"),
    host: _Hosts = None,
    saved: Annotated[
        Path | None, typer.Option("--plan", help="Apply this saved plan, and only while it still holds.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run record as JSON at the end.")] = False,
) -> None:
    """Do what `rtinfra plan` says. Ends with 0: done, 1: a host failed, 2: refused, 130: interrupted.

    The same as `pyinfra inventory deploy.py`, with the plan first and a record in reports/runs/.

    Examples:

        rtinfra apply

        rtinfra apply --host robot-1 --yes

        rtinfra apply --plan robot-1.plan
    """
    if not yes and not _can_ask():
        _refuse("there is nobody to ask whether the plan is right", "add --yes, or run it on a terminal")
    with plain_errors(_AGAIN):
        try:
            agreed = Plan.load(saved) if saved is not None else None
            if agreed is not None:
                inventory, host = Path(agreed.inventory), list(agreed.hosts)
            with WorkerProcess(inventory, host or (), applies=True) as worker:
                prepared = _prepared(worker)
                if agreed is not None:
                    if prepared.failed:
                        names, said = ", ".join(prepared.failed), "\n".join(prepared.log)
                        raise PlanError(f"no answer from {names}", "see that it can be reached", said)
                    agreed.require_same(prepared.plan)
                _print(prepared.plan, diffs=False, on=messages())
                if prepared.plan.has_changes and not yes and not typer.confirm("Do this?", err=True):
                    _refuse("nothing was changed", "run the same command again when it is right")
                code = _carry_out(worker, prepared, as_json)
        except (WrongInput, PlanError) as error:
            tell(messages(), error)
            raise typer.Exit(EXIT_WRONG) from error
    raise typer.Exit(code)


def _prepared(worker: WorkerProcess) -> Prepared:
    worker.begin()
    with ConsoleReporter().step("Looking at the hosts", _USUAL_SECONDS):
        return worker.prepare()


def _carry_out(worker: WorkerProcess, prepared: Prepared, as_json: bool) -> int:
    """Let the worker work, show what happens, write the record; returns the exit code."""
    record, outcome = RunRecord(prepared.plan, prepared.failed), "interrupted"
    console = messages()
    try:
        if prepared.plan.has_changes:
            totals = {name: len(host.all_operations) for name, host in prepared.plan.hosts.items()}
            worker.go()
            with display.watched(console, totals) as view:
                for event in worker.events():
                    view.tell(event)
                    if event is not None and event["event"] == "finished":
                        record.finished(event)
                    elif event is not None and event["event"] == "done":
                        for name in event["failed"]:
                            record.hosts[name].failed = True
        else:
            record.unchanged()
        data = record.to_json("")
        outcome = "ok" if all(host["ok"] for host in data["hosts"].values()) else "failed"
    except LocalError:
        outcome = "failed"
        raise
    finally:
        data = record.write(outcome)
        path = record.path
        shown = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
        console.print(f"The record of this run is {shown}")
    console.print(display.summary(data["hosts"].items(), record.seconds))
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    if outcome == "ok":
        console.print("Next: `rtinfra verify` proves what state the hosts are in.")
        return 0
    if prepared.failed:
        _say_failed(prepared)
    failed = [name for name, host in data["hosts"].items() if not host["ok"]]
    place = prepared.plan.inventory
    words = [*([] if place == "inventory" else [f"--inventory {place}"]), *(f"--host {name}" for name in failed)]
    console.print(
        f"Next step: the reason stands above, in red. What was done stays, and nothing is half done that the next run "
        f"does not finish: correct the reason, then `rtinfra apply {' '.join(words)}`."
    )
    return EXIT_FAILED


def _print(plan: Plan, diffs: bool, on: Console | None = None) -> None:
    console = on or Console(soft_wrap=True, highlight=False)
    for line in show.lines(plan, diffs):
        console.print(line)


def _say_failed(prepared: Prepared) -> None:
    console = messages()
    for line in prepared.log:
        console.print(line, style="red")
    console.print(f"No answer from {', '.join(prepared.failed)}: the reason stands above.", style="bold red")


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _refuse(message: str, next_step: str) -> None:
    tell(messages(), LocalError(message, next_step))
    raise typer.Exit(EXIT_WRONG)
