"""How a benchmark ends: its result is kept, printed, and judged by the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import typer
from rich.console import Console

from rtinfra.local.files import replace_file
from rtinfra.paths import PROJECT

REPORTS = PROJECT / "reports"
#: What a lab machine runs on, in words, by the name of QEMU's accelerator.
RUNS_ON = {"kvm": "KVM", "tcg": "software emulation"}


class BenchmarkError(Exception):
    """Nothing can be measured or compared; the text says why."""


class Judged(Protocol):
    """A result that knows what is wrong with it."""

    @property
    def problems(self) -> Sequence[str]: ...
    def to_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Judged)


def finish(name: str, result: R, show: Callable[[R, Console], None], as_json: bool) -> NoReturn:
    """Write the result to `reports/bench-<name>.json`, print it, and end: with 1 when it has problems."""
    text = json.dumps(result.to_json(), indent=2)
    REPORTS.mkdir(exist_ok=True)
    replace_file(REPORTS / f"bench-{name}.json", f"{text}\n".encode())
    if as_json:
        typer.echo(text)
    else:
        show(result, Console(highlight=False, soft_wrap=True))
    raise typer.Exit(1 if result.problems else 0)
