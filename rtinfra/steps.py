"""What a command did step by step, as a table at its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Step:
    """One line of the table."""

    what: str
    result: str
    ok: bool
    seconds: float


def show(console: Console, steps: Iterable[Step]) -> None:
    """Print the table."""
    table = Table(title="What was done and proven", title_justify="left")
    table.add_column("Step")
    table.add_column("Result")
    table.add_column("")
    table.add_column("Seconds", justify="right")
    for step in steps:
        mark = "[green]OK[/green]" if step.ok else "[bold red]FAILED[/bold red]"
        table.add_row(step.what, step.result, mark, f"{step.seconds:.0f}")
    console.print(table)
