"""Doing something on several hosts at once, in the order in which programs need each other."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from roles.host import HostConfig
from rtinfra.config import Fleet, FleetHost
from rtinfra.connection import Connections, Unreachable
from rtinfra.facts import output_sections
from rtinfra.hosts import HostsError, fleet_in, inventory_file, selected
from rtinfra.stack import scripts
from rtinfra.stack_programs import Program, programs_of

R = TypeVar("R")


@dataclass(frozen=True)
class Stack:
    """The chosen programs of the chosen hosts."""

    fleet: Fleet[HostConfig]
    hosts: Mapping[str, FleetHost[HostConfig]]
    programs: Mapping[str, tuple[Program, ...]]

    @property
    def all(self) -> tuple[Program, ...]:
        """Every program, host by host."""
        return tuple(program for programs in self.programs.values() for program in programs)


def load(inventory: Path | None, hosts: Sequence[str], names: Sequence[str]) -> Stack:
    """Find the programs that were named on the command line; without names all of them.

    A name is that of a program (`gateway`), of its unit or of its role.

    Raises:
        HostsError: the configuration is wrong, or a host or program is not in it.
    """
    fleet = fleet_in(inventory_file(inventory))
    chosen = selected(fleet, hosts)
    try:
        every = {name: programs_of(fleet, host) for name, host in chosen.items()}
    except ValueError as error:
        raise HostsError(f"{error}; `rtinfra check` says more") from error
    known = {word for programs in every.values() for program in programs for word in _words(program)}
    if unknown := [name for name in names if name not in known]:
        there = sorted({program.name for programs in every.values() for program in programs})
        raise HostsError(f"no program {', '.join(unknown)}; there are {', '.join(there) or 'none on these hosts'}")
    found = {
        name: tuple(program for program in programs if not names or _words(program) & set(names))
        for name, programs in every.items()
    }
    found = {name: programs for name, programs in found.items() if programs}
    if not found:
        raise HostsError("no host runs telemetry programs: put one into a group such as agents, gateways or prometheus")
    return Stack(fleet, {name: chosen[name] for name in found}, found)


def _words(program: Program) -> set[str]:
    return {program.name, program.unit, program.role}


def waves(programs: Sequence[Program], down: bool = False) -> list[tuple[Program, ...]]:
    """Return what may be done at the same time on different hosts, one after the other.

    What stores comes before what passes on, and that before what sends; down it is the other way round. On a single
    host the order within one script is enough.
    """
    ordered = sorted(programs, key=lambda program: program.tier)
    if down:
        ordered.reverse()
    if len({program.host for program in programs}) <= 1:
        return [tuple(ordered)]
    tiers = dict.fromkeys(program.tier for program in ordered)
    return [tuple(program for program in ordered if program.tier == tier) for tier in tiers]


@dataclass
class Results(Generic[R]):
    """What came back from the hosts, and why others could not be asked."""

    found: list[R] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)


def on_hosts(
    connections: Connections,
    programs: Sequence[Program],
    script: Callable[[Sequence[Program]], str],
    parse: Callable[[str, Sequence[Program]], Sequence[R]],
) -> Results[R]:
    """Run one script on each host for its programs, on all hosts at once."""
    by_host: dict[str, list[Program]] = {}
    for program in programs:
        by_host.setdefault(program.host, []).append(program)

    def work(name: str) -> Sequence[R]:
        own = by_host[name]
        # Journals and answers are others' words: a line of theirs must not stand for what became of a program.
        marker = output_sections.unguessable_marker()
        said = connections.feed(name, output_sections.guarded(script(own), marker)).text
        return parse(output_sections.unguarded(said, marker), own)

    results: Results[R] = Results()
    with ThreadPoolExecutor(max_workers=min(32, len(by_host) or 1)) as pool:
        futures = {name: pool.submit(work, name) for name in by_host}
        for name, future in futures.items():
            try:
                results.found += future.result()
            except Unreachable as error:
                results.unreachable[name] = str(error)
    return results


def act(
    connections: Connections, verb: scripts.Verb, programs: Sequence[Program]
) -> Iterator[Results[scripts.Outcome]]:
    """Start, stop or restart programs, wave by wave; yields what became of each wave."""
    lost: set[str] = set()
    for wave in waves(programs, down=verb == "stop"):
        reachable = [program for program in wave if program.host not in lost]
        results = on_hosts(connections, reachable, lambda own: scripts.action_script(verb, own), scripts.parse_action)
        lost |= results.unreachable.keys()
        yield results


def logs(
    connections: Connections,
    stack: Stack,
    lines: int,
    follow: bool,
    show: Callable[[str, str], None],
) -> dict[str, str]:
    """Show the journals of programs, line by line, host after host, or all at once when following.

    Returns why hosts could not be asked, by name.
    """
    failed: dict[str, str] = {}

    def read(name: str) -> None:
        units = [word for program in stack.programs[name] for word in ("-u", program.unit)]
        command = " ".join(["journalctl", "--no-pager", "-q", "-o", "short-iso", "-n", str(lines), *units])
        try:
            started = connections.start(name, command + (" -f" if follow else ""))
        except Unreachable as error:
            failed[name] = str(error)
            return
        with started as process:
            running.append(process)
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                show(name, line.rstrip("\n"))
            errors = process.stderr.read()
        if process.returncode > 0:
            try:
                connections.ended(name, process.returncode, errors)
                failed[name] = errors.strip() or f"journalctl ended with {process.returncode}"
            except Unreachable as error:
                failed[name] = str(error)

    running: list[subprocess.Popen[str]] = []
    threads = [threading.Thread(target=read, args=(name,)) for name in stack.programs]
    try:
        for thread in threads:
            thread.start()
            if not follow:
                thread.join()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        for process in running:
            process.terminate()
        for thread in threads:
            thread.join()
    return failed
