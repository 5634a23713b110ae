"""`rtinfra notify`: are people reached?"""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from rtinfra.local.errors import LocalError
from rtinfra.notify.message import Notification, Priority, Problem
from rtinfra.notify.notifier import Notifier
from rtinfra.preflight.cli import SETTINGS, load
from rtinfra.secrets import operator_secrets

EXIT_FAILED = 1
EXIT_UNUSABLE = 2

app = typer.Typer(no_args_is_help=True, help="Notifications to people: Telegram, Slack, Teams, on-call, webhook.")


@app.callback()
def _group() -> None:
    """Keep `test` a command of its own while it is the only one."""


@app.command()
def test(
    settings: Annotated[Path, typer.Option(help="File with a section `preflight:` and its `notify:`.")] = SETTINGS,
    priority: Annotated[Priority, typer.Option(help="P0 also goes to the on-call service.")] = Priority.P1,
) -> None:
    """Send a trial message through every configured channel. Exit 0: all took it, 1: one did not, 2: wrong settings.

    Examples:

        rtinfra notify test

        rtinfra notify test --priority P0
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    host = socket.gethostname()
    message = Notification(
        priority=priority,
        source="rtinfra notify test",
        host=host,
        environment="trial",
        title=f"A trial from {host}: nothing is wrong",
        problems=(Problem("Trial", "this message shows that the channel works", "nothing"),),
    )
    try:
        # A trial neither is held back nor holds anything back.
        with TemporaryDirectory() as state:
            notifier = Notifier(load(settings).notify, operator_secrets(), Path(state))
            if not notifier.channels:
                typer.echo(f"no channel is configured in {settings}", err=True)
                raise typer.Exit(EXIT_UNUSABLE)
            sent = notifier.notify(message, always=True)
    except LocalError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_UNUSABLE) from None
    for delivery in sent.deliveries:
        typer.echo(f"{delivery.channel}: {'taken' if delivery.ok else delivery.error}")
    raise typer.Exit(0 if sent.ok else EXIT_FAILED)
