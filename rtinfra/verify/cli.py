"""`rtinfra verify`: proves the state of the hosts and prints one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rtinfra.local.errors import LocalError
from rtinfra.verify import compare as comparison
from rtinfra.verify import sealing
from rtinfra.verify.report import EXIT_UNUSABLE
from rtinfra.verify.verification import REPORTS, VerifyError, run

app = typer.Typer()


@app.command()
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
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Compare two earlier reports instead: folders, or their names."),
    ] = None,
    waivers: Annotated[Path | None, typer.Option(help="File with waivers. Default: waivers.yaml.")] = None,
    textfiles: Annotated[
        Path | None, typer.Option(help="Also write the metrics here: folder of a node_exporter on this computer.")
    ] = None,
    latency_seconds: Annotated[
        int, typer.Option(min=1, max=86_400, help="How long latency is measured.", envvar="RTINFRA_LATENCY_SECONDS")
    ] = 10,
) -> None:
    """Prove what state the hosts are really in. Ends with 0: all holds, 1: something failed, 2: could not look.

    Examples:

        rtinfra verify --host robot-1

        rtinfra verify --compare 20261126-093000 latest
    """
    messages = Console(stderr=True)
    if compare is not None:
        raise typer.Exit(_compare(compare, output, as_json, messages))
    try:
        report = run(
            inventory,
            hosts=host or (),
            controls=control or (),
            disruptive=disruptive,
            output=output,
            latency_seconds=latency_seconds,
            waivers=waivers,
            textfiles=textfiles,
            console=None if as_json else Console(),
        )
    except VerifyError as error:
        messages.print(str(error), style="bold red", markup=False, highlight=False)
        raise typer.Exit(EXIT_UNUSABLE) from error
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    raise typer.Exit(report.exit_code)


def _compare(places: tuple[Path, Path], reports: Path, as_json: bool, messages: Console) -> int:
    try:
        key = sealing.signing_key()
        old, new = (sealing.read_sealed(place if place.is_dir() else reports / place.name, key) for place in places)
    except LocalError as error:
        messages.print(str(error), style="bold red", markup=False, highlight=False)
        return EXIT_UNUSABLE
    found = comparison.compare(old, new)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        Console(soft_wrap=True).print(comparison.rendered(found))
    return found.exit_code
