"""`rtinfra check` and `rtinfra wheels`: what concerns the project's own files, no host."""

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
from rtinfra.inventory import source
from rtinfra.local.progress import ConsoleReporter
from rtinfra.paths import PROJECT, lab_inventory
from rtinfra.wheelhouse import PYTHONS, Wheelhouse

app = typer.Typer()


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


def _report(ok: bool, problems: list[dict[str, object]], text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": ok, "problems": problems, "message": text}, ensure_ascii=False))
    else:
        Console(soft_wrap=True, highlight=False).print(text, markup=False)
