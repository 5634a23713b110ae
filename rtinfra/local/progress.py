"""Telling a person what is happening and how long it usually takes.

On a terminal a step is one line with a spinner and the running time; elsewhere (a log, a pipe) it is one
plain line at the start and one at the end. Everything goes to standard error, so that standard output stays
free for results such as ``--json``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


def seconds(value: float) -> str:
    """``value`` seconds for people: ``4 s``, ``1 min 46 s``."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


class Reporter:
    """Says nothing: for programs that use the lab as a library."""

    def note(self, text: str) -> None:
        """One line of information."""

    @contextmanager
    def step(self, text: str, usual: float) -> Iterator[None]:
        """A piece of work that takes about ``usual`` seconds."""
        yield


class ConsoleReporter(Reporter):
    """Writes to standard error: alive on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """One line of information."""
        self._console.print(escape(text), soft_wrap=True)

    @contextmanager
    def step(self, text: str, usual: float) -> Iterator[None]:
        """A piece of work that takes about ``usual`` seconds; nested steps are not shown as alive."""
        label = f"{text} (usually {seconds(usual)})"
        start = time.monotonic()
        if self._console.is_terminal:
            with self._alive(label, start):
                yield
        else:
            self.note(f"... {label}")
            yield
        self.note(f"ok  {text}: {seconds(time.monotonic() - start)}")

    @contextmanager
    def _alive(self, label: str, start: float) -> Iterator[None]:
        done = threading.Event()
        with self._console.status(escape(label)) as status:

            def tick() -> None:
                while not done.wait(1):
                    status.update(escape(f"{label} - {seconds(time.monotonic() - start)}"))

            ticker = threading.Thread(target=tick, daemon=True)
            ticker.start()
            try:
                yield
            finally:
                done.set()
                ticker.join()
