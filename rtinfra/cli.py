"""The `rtinfra` command: what pyinfra's own command does not do.

A command is imported when it is called: the list of all of them costs no more than reading this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Place:
    """Where a command is: the typer `app` of a module, or the command of this name in it.

    `help` is the first paragraph of the command's own help (tests/unit/test_cli.py holds them against each other).
    """

    module: str
    help: str
    is_group: bool = False


#: Every command by its name, in the order in which --help lists them.
COMMANDS: Final = {
    "plan": Place(
        "rtinfra.plan.cli",
        "Say what a deploy would change, without changing anything. Ends with 0: nothing, 2: changes,"
        " 1: could not look.",
    ),
    "apply": Place(
        "rtinfra.plan.cli",
        "Do what `rtinfra plan` says. Ends with 0: done, 1: a host failed, 2: refused, 130: interrupted.",
    ),
    "verify": Place(
        "rtinfra.verify.cli",
        "Prove what state the hosts are really in. Ends with 0: all holds, 1: something failed, 2: could not look.",
    ),
    "preflight": Place(
        "rtinfra.preflight.cli",
        "Check whether this computer is ready for live operation; on hosts a timer does it."
        " `--help` lists the options.",
    ),
    "check": Place("rtinfra.project", "Check all settings without touching a host. Exit 0: fine, 2: errors."),
    "wheels": Place(
        "rtinfra.project",
        "Fetch the Python wheels that hosts of the group preflight need, for every supported distribution.",
    ),
    "demo": Place(
        "rtinfra.demo", "Do the main job on a lab machine: build it, deploy to it, prove it, say what to do next."
    ),
    "prove": Place(
        "rtinfra.prove",
        "Take a bare lab machine through deploy, trial boot, a second deploy and all controls; write the row for"
        " docs/proof.md.",
    ),
    "images": Place(
        "rtinfra.images.cli",
        "Container images and our own packages: made or fetched here, carried to hosts by the deploy.",
        is_group=True,
    ),
    "stack": Place(
        "rtinfra.stack.cli",
        "Start, stop, watch and check collectors, gateways and backends on all hosts at once.",
        is_group=True,
    ),
    "lab": Place(
        "rtinfra.lab.cli",
        "Virtual machines on this computer: bare Debian hosts to deploy to, break, and throw away.",
        is_group=True,
    ),
    "mirror": Place(
        "rtinfra.mirror.cli",
        "The offline mirror: packages, images and wheels of all hosts, locked and fetched here, carried in, published"
        " inside.",
        is_group=True,
    ),
    "notify": Place(
        "rtinfra.notify.cli",
        "Notifications to people: Telegram, Slack, Teams, on-call, webhook.",
        is_group=True,
    ),
}


def load(name: str) -> TyperCommand | TyperGroup:
    """Import a command of COMMANDS."""
    place = COMMANDS[name]
    group = typer.main.get_group(import_module(place.module).app)
    if not place.is_group:
        command = group.commands[name]
        assert isinstance(command, TyperCommand)
        return command
    group.name = name
    return group


class _Commands(TyperGroup):
    """All commands; each has a name and a help until it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, place in COMMANDS.items():
            self.add_command(TyperCommand(name, help=place.help))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the command line names."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    help="Bare hosts to verified real-time systems. `plan`, then `apply`; or `pyinfra inventory deploy.py`.",
)


@app.callback()
def _all() -> None:
    """Make typer take an app that has no command of its own."""
