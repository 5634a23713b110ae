"""The `rtinfra` command: what pyinfra's own command does not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pyinfra.api.exceptions import InventoryError
from rich.console import Console

from roles.fleet import load_checked_hosts
from rtinfra.commands import plain_errors
from rtinfra.config import ConfigError
from rtinfra.demo import run as run_demo
from rtinfra.images.cli import app as images_app
from rtinfra.inventory import source
from rtinfra.lab.cli import app as lab_app
from rtinfra.local.progress import ConsoleReporter
from rtinfra.mirror.cli import app as mirror_app
from rtinfra.notify.cli import app as notify_app
from rtinfra.paths import PROJECT, lab_inventory
from rtinfra.plan.cli import PlanCommand, apply, plan
from rtinfra.preflight.cli import preflight
from rtinfra.stack.cli import app as stack_app
from rtinfra.verify.cli import verify
from rtinfra.wheelhouse import PYTHONS, Wheelhouse

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Bare hosts to verified real-time systems. `plan`, then `apply`; or `pyinfra inventory deploy.py`.",
)
app.add_typer(images_app, name="images")
app.add_typer(stack_app, name="stack")
app.add_typer(lab_app, name="lab")
app.add_typer(mirror_app, name="mirror")
app.add_typer(notify_app, name="notify")
app.command("plan", cls=PlanCommand)(plan)
app.command("apply")(apply)
app.command("verify")(verify)
# Its options are those of the program on the hosts, which has a parser of its own.
_FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command("preflight", context_settings=_FORWARDED)(preflight)


@app.command()
def check(
    inventory: Annotated[
        Path, typer.Option(help="Inventory file or directory, relative to the project folder.")
    ] = Path("inventory"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check all settings without touching a host. Exit 0: fine, 2: errors.

    Examples:

        rtinfra check

        rtinfra check --inventory inventory/hosts.yaml --json
    """
    place = PROJECT / inventory
    try:
        if place.is_dir():
            place = source(place, lab_inventory())
        fleet = load_checked_hosts(PROJECT, place)
    except InventoryError as error:
        _report(False, [], str(error), as_json)
        raise typer.Exit(2) from None
    except ConfigError as error:
        _report(False, [problem.to_json() for problem in error.problems], str(error), as_json)
        raise typer.Exit(2) from None
    warnings = [problem.to_json() for problem in fleet.warnings]
    lines = [str(problem) for problem in fleet.warnings]
    lines += [f"{name}: settings are fine ({', '.join(host.groups)})" for name, host in fleet.hosts.items()]
    elsewhere = "" if inventory == Path("inventory") else f" --inventory {inventory}"
    lines.append(f"Next: rtinfra plan{elsewhere} says what a deploy would change; rtinfra apply{elsewhere} does it")
    _report(True, warnings, "\n".join(lines), as_json)


@app.command()
def wheels() -> None:
    """Fetch the Python wheels that hosts of the group preflight need, for every supported distribution.

    They lie in wheels/ and are carried to hosts by the deploy.

    Example:

        rtinfra wheels
    """
    house = Wheelhouse()
    with plain_errors("The same command goes on."):
        for python in PYTHONS.values():
            house.fetch(python, ConsoleReporter())
    typer.echo(f"The wheels for Python {', '.join(PYTHONS.values())} are in {house.directory.relative_to(PROJECT)}/")


@app.command()
def demo() -> None:
    """Do the main job on a lab machine: build it, deploy to it, prove it, say what to do next.

    Example:

        rtinfra demo
    """
    raise typer.Exit(run_demo(Console(soft_wrap=True)))


def _report(ok: bool, problems: list[dict[str, object]], text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": ok, "problems": problems, "message": text}, ensure_ascii=False))
    else:
        Console(soft_wrap=True, highlight=False).print(text, markup=False)
