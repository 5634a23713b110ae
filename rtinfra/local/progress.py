"""Telling a person what is happening and how long it usually takes.

On a terminal a step is one line with a spinner and the running time; elsewhere (a log, a pipe) it is one
plain line at the start and one at the end. What moves bytes shows how many. Everything goes to standard error, so
that standard output stays free for results such as ``--json``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def seconds(value: float) -> str:
    """``value`` seconds for people: ``4 s``, ``1 min 46 s``."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def megabytes(value: int) -> str:
    """``value`` bytes for people: ``3 MB``."""
    return f"{value / 1e6:.0f} MB" if value >= 1e6 else f"{value / 1e6:.1f} MB"


class Reporter:
    """Silent progress, for programs that use these modules as a library; `ConsoleReporter` shows it."""

    def note(self, text: str) -> None:
        """One line of information."""

    @contextmanager
    def step(self, text: str, usual: float) -> Iterator[None]:
        """A piece of work that takes about ``usual`` seconds."""
        yield

    @contextmanager
    def transfer(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A piece of work on ``total`` bytes. It gets a function to tell, from any thread, how many more are done."""
        yield lambda count: None


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
    def transfer(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A piece of work on ``total`` bytes: a bar on a terminal, a line every ten seconds elsewhere."""
        start = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            with Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True) as progress:
                task = progress.add_task(escape(text), total=total)
                yield lambda count: progress.advance(task, count)
        else:
            self.note(f"... {text} ({megabytes(total)})")
            yield _Lines(self, text, total)
        taken = time.monotonic() - start
        self.note(f"ok  {text}: {megabytes(total)} in {seconds(taken)}")

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


class _Lines:
    """Progress of a transfer as a line every few seconds."""

    _EVERY_SECONDS = 10.0

    def __init__(self, report: Reporter, text: str, total: int) -> None:
        self._report, self._text, self._total = report, text, total
        self._done = 0
        self._said = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() - self._said < self._EVERY_SECONDS:
                return
            self._said = time.monotonic()
            self._report.note(f"... {self._text}: {megabytes(self._done)} of {megabytes(self._total)}")
