"""What a run is doing, for somebody who watches: one line for each host on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rtinfra.local.progress import seconds

_STYLES = {"changed": "yellow", "unchanged": "dim", "failed": "bold red"}


class View(Protocol):
    """A display of a run."""

    def tell(self, event: Mapping[str, Any] | None) -> None:
        """Show an event of the worker; None: nothing happened for a while."""
        ...


@dataclass
class _Doing:
    operation: str = ""
    since: float = 0.0
    done: int = 0
    changed: int = 0
    outcome: str = ""


class _Hosts:
    """What each host is doing."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        self.totals = totals
        self.doing = {name: _Doing(since=time.monotonic()) for name in totals}

    def take(self, event: Mapping[str, Any]) -> None:
        doing = self.doing.get(event.get("host", ""))
        if doing is None:
            return
        if event["event"] == "started":
            doing.operation, doing.since = event["operation"], time.monotonic()
        elif event["event"] == "finished":
            doing.operation = ""
            doing.done += 1
            doing.changed += event["status"] == "changed"
            if event["status"] == "failed":
                doing.outcome = f"failed: {event['operation']}"


def _ended(event: Mapping[str, Any]) -> Text | None:
    """Return the line that stays of an event; None when none does."""
    if event["event"] == "log":
        # What pyinfra says of each operation and host is said by the events.
        text = event["text"].strip()
        said = text.endswith(("Success", "No changes")) or text.startswith("--> Starting operation")
        return None if said else Text(text, style="red" if event["level"] == "error" else "")
    if event["event"] == "finished" and event["status"] != "unchanged":
        line = f"{event['host']}: {event['operation']}: {event['status']}, {seconds(event['seconds'])}"
        return Text(line, style=_STYLES[event["status"]])
    return None


class Lines:
    """Plain lines, with a sign of life during long silence."""

    def __init__(self, console: Console, totals: Mapping[str, int]) -> None:
        self._console, self._hosts = console, _Hosts(totals)

    def tell(self, event: Mapping[str, Any] | None) -> None:
        """One event of the worker."""
        if event is None:
            for name, doing in self._hosts.doing.items():
                if doing.done < self._hosts.totals[name] and not doing.outcome:
                    what = f"still working on {doing.operation}" if doing.operation else "waiting for other hosts"
                    self._console.print(f"... {name}: {what}: {seconds(time.monotonic() - doing.since)}")
            return
        self._hosts.take(event)
        if (line := _ended(event)) is not None:
            self._console.print(line)


class Rows:
    """One living row for each host; what is worth keeping scrolls away above."""

    def __init__(self, live: Live, totals: Mapping[str, int]) -> None:
        self._live, self._hosts = live, _Hosts(totals)
        live.get_renderable = self._table  # type: ignore[method-assign]

    def tell(self, event: Mapping[str, Any] | None) -> None:
        """One event of the worker."""
        if event is None:
            return
        self._hosts.take(event)
        if (line := _ended(event)) is not None:
            self._live.console.print(line)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, doing in self._hosts.doing.items():
            total = self._hosts.totals[name]
            counts = f"{doing.done}/{total}, {doing.changed} changed"
            if doing.outcome:
                table.add_row(Text("x", style="bold red"), name, counts, Text(doing.outcome, style="bold red"))
            elif doing.done == total:
                table.add_row(Text("ok", style="green"), name, counts, "")
            else:
                passed = seconds(time.monotonic() - doing.since)
                table.add_row(Spinner("dots"), name, counts, f"{doing.operation or 'waiting'}, {passed}")
        return table


@contextmanager
def watched(console: Console, totals: Mapping[str, int]) -> Iterator[View]:
    """Show a run on `console`; `totals` are the numbers of operations by host."""
    if not console.is_terminal:
        yield Lines(console, totals)
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield Rows(live, totals)


def summary(hosts: Iterable[tuple[str, Mapping[str, Any]]], taken: float) -> Table:
    """Return a table of what became of all hosts."""
    table = Table(title=f"Done in {seconds(taken)}", title_justify="left")
    table.add_column("Host")
    for name in ("Changed", "Unchanged", "Failed", "Time"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, host in hosts:
        mark = Text("OK", style="green") if host["ok"] else Text("FAILED", style="bold red")
        counts = (str(host[status]) for status in ("changed", "unchanged", "failed"))
        table.add_row(name, *counts, seconds(host["seconds"]), mark)
    return table
