"""What all our commands do the same: tell errors in plain words, end cleanly when they are ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console

from rtinfra.config import ConfigError
from rtinfra.local.errors import LocalError

EXIT_FAILED = 1
EXIT_WRONG = 2
EXIT_INTERRUPTED = 130


def messages() -> Console:
    """Return where everything goes that is not the result."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def tell(console: Console, error: LocalError) -> None:
    """Say what went wrong and what to do next."""
    if error.detail:
        console.print(error.detail, style="dim")
    console.print(f"Error: {error.message}", style="bold red")
    console.print(f"Next step: {error.next_step}")


@contextmanager
def plain_errors(interrupted: str = "") -> Iterator[None]:
    """Errors as sentences instead of tracebacks, and being ended treated like Ctrl-C: clean up, then go.

    Args:
        interrupted: what an interrupted command says of what it leaves behind.

    Raises:
        typer.Exit: with the code for what went wrong.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    console = messages()
    try:
        yield
    except LocalError as error:
        tell(console, error)
        raise typer.Exit(EXIT_FAILED) from error
    except ConfigError as error:
        console.print(str(error), style="bold red")
        raise typer.Exit(EXIT_WRONG) from error
    except KeyboardInterrupt as error:
        console.print(f"Interrupted. {interrupted}".rstrip())
        raise typer.Exit(EXIT_INTERRUPTED) from error
    finally:
        signal.signal(signal.SIGTERM, before)
