"""`rtinfra verify`: proves the state of the hosts and prints one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rtinfra.verify.report import EXIT_UNUSABLE
from rtinfra.verify.session import REPORTS, VerifyError, run


def verify(
    inventory: Annotated[
        Path | None, typer.Option(help="Inventory file or directory. Default: inventory/, else the lab machine.")
    ] = None,
    host: Annotated[list[str] | None, typer.Option(help="Only this host; may be repeated.")] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="Only this control or requirement (RT-10.1, RT-12); may be repeated.")
    ] = None,
    disruptive: Annotated[
        bool, typer.Option("--disruptive", help="Also kill and restart things on the host, and measure latency.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the reports.")] = REPORTS,
    latency_seconds: Annotated[
        int, typer.Option(min=1, max=86_400, help="How long latency is measured.", envvar="RTINFRA_LATENCY_SECONDS")
    ] = 10,
) -> None:
    """Prove what state the hosts are really in. Ends with 0: all holds, 1: something failed, 2: could not look."""
    messages = Console(stderr=True)
    try:
        report = run(
            inventory,
            hosts=host or (),
            controls=control or (),
            disruptive=disruptive,
            output=output,
            latency_seconds=latency_seconds,
            console=None if as_json else Console(),
        )
    except VerifyError as error:
        messages.print(str(error), style="bold red", markup=False, highlight=False)
        raise typer.Exit(EXIT_UNUSABLE) from error
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    raise typer.Exit(report.exit_code)
