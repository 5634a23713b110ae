"""Everything observed on one host at one moment: the sum of all looks. Controls look at this and at nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from roles.rt_app.model import NON_RT_UNIT, RT_UNIT
from rtinfra.facts import output_sections
from rtinfra.verify.look import (
    answers,
    application,
    boot,
    clock,
    computer,
    containers,
    cpus,
    drift,
    filebeat,
    interrupts,
    kernel,
    logins,
    logs,
    loop,
    memory,
    mirror_client,
    mirror_server,
    others_files,
    packages,
    packet_filter,
    private_files,
    slices,
    sockets,
    threads,
    units,
    watchdog,
)
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.look.answers import Answers
from rtinfra.verify.look.application import Application
from rtinfra.verify.look.boot import Boot
from rtinfra.verify.look.clock import Clock
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.containers import Containers
from rtinfra.verify.look.cpus import Cpus
from rtinfra.verify.look.drift import Drift
from rtinfra.verify.look.filebeat import Filebeat
from rtinfra.verify.look.interrupts import Interrupts
from rtinfra.verify.look.kernel import Kernel
from rtinfra.verify.look.logins import Logins
from rtinfra.verify.look.logs import Logs
from rtinfra.verify.look.loop import Loop
from rtinfra.verify.look.memory import Memory
from rtinfra.verify.look.mirror_client import MirrorClient
from rtinfra.verify.look.mirror_server import MirrorServer
from rtinfra.verify.look.others_files import OthersFiles
from rtinfra.verify.look.packages import Packages
from rtinfra.verify.look.packet_filter import PacketFilter
from rtinfra.verify.look.private_files import PrivateFiles
from rtinfra.verify.look.slices import Slices
from rtinfra.verify.look.sockets import Sockets
from rtinfra.verify.look.threads import Threads
from rtinfra.verify.look.units import Units
from rtinfra.verify.look.watchdog import Watchdog
from rtinfra.verify.questions import Questions


class Look(Protocol):
    """What every module of `rtinfra.verify.look` about a subject has."""

    def ask(self, questions: Questions, /) -> Mapping[str, str]:
        """Return the commands by the name of the section that each prints; none where there is nothing to ask."""

    def read(self, answer: Answer, /) -> object:
        """Return what was seen."""


#: Every look, in the order in which the host is asked.
LOOKS: Final[tuple[Look, ...]] = (
    *(computer, kernel, cpus, slices, threads, interrupts, units, watchdog, boot, packages, logins, clock, logs, drift),
    *(
        others_files,
        private_files,
        packet_filter,
        sockets,
        application,
        memory,
        loop,
        containers,
        filebeat,
        mirror_client,
        mirror_server,
        answers,
    ),
)
#: Sections that every Linux host fills.
_ALWAYS: Final = ("online", "kernel", "cmdline", "cpu_values", "thread_stat", "thread_status", "units", "end")


class SnapshotError(ValueError):
    """The host's answer lacks something that every Linux host can tell."""


@dataclass(frozen=True)
class Snapshot:
    """One host at one moment; each part is what one look has seen."""

    computer: Computer
    kernel: Kernel
    cpus: Cpus
    slices: Slices
    threads: Threads
    interrupts: Interrupts
    units: Units
    watchdog: Watchdog
    boot: Boot
    packages: Packages
    logins: Logins
    clock: Clock
    logs: Logs
    drift: Drift
    others_files: OthersFiles
    private_files: PrivateFiles
    packet_filter: PacketFilter
    sockets: Sockets
    application: Application
    memory: Memory
    loop: Loop
    containers: Containers
    filebeat: Filebeat
    mirror_client: MirrorClient | None
    mirror_server: MirrorServer | None
    answers: Answers


def commands(questions: Questions) -> dict[str, str]:
    """Return the commands of all looks in the order in which they are asked."""
    found: Mapping[str, str] = {name: text for look in LOOKS for name, text in look.ask(questions).items()}
    rank = {"before": -1, "after": 1}
    return dict(sorted(found.items(), key=lambda command: rank.get(command[0].rpartition("_")[2], 0)))


def script(questions: Questions) -> str:
    """Return the shell script that asks everything; its output is for `parse`."""
    preamble = (
        "LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; export LC_ALL PATH\n"
        f"set -- $(systemctl show -P MainPID {RT_UNIT} {NON_RT_UNIT} 2>/dev/null)\n"
        "rt=${1:-0} non_rt=${2:-0}"
    )
    asked = {**commands(questions), "end": "echo reached"}
    # ssh's own failures have the exit status 255; whatever the last command says must not look like one.
    return "\n".join([preamble, output_sections.script(asked, questions.marker), "exit 0"])


def parse(text: str, marker: str = output_sections.MARKER) -> Snapshot:
    """Build a snapshot from the output of `script`.

    Raises:
        SnapshotError: a section that every Linux host fills is empty, so that controls about it would pass
            without having looked; or one holds what its command never prints.
    """
    # Not splitlines(): names of threads may hold characters that it takes for line ends.
    answer = Answer(output_sections.parse(text.split("\n"), marker))
    for needed in _ALWAYS:
        if not answer.line(needed):
            raise SnapshotError(f"the host's answer has no {needed}: {text[-300:]!r}")
    try:
        return _read(answer)
    except (ValueError, LookupError, TypeError) as error:
        raise SnapshotError(f"the host's answer cannot be read: {type(error).__name__}: {error}") from error


def _read(answer: Answer) -> Snapshot:
    return Snapshot(
        computer=computer.read(answer),
        kernel=kernel.read(answer),
        cpus=cpus.read(answer),
        slices=slices.read(answer),
        threads=threads.read(answer),
        interrupts=interrupts.read(answer),
        units=units.read(answer),
        watchdog=watchdog.read(answer),
        boot=boot.read(answer),
        packages=packages.read(answer),
        logins=logins.read(answer),
        clock=clock.read(answer),
        logs=logs.read(answer),
        drift=drift.read(answer),
        others_files=others_files.read(answer),
        private_files=private_files.read(answer),
        packet_filter=packet_filter.read(answer),
        sockets=sockets.read(answer),
        application=application.read(answer),
        memory=memory.read(answer),
        loop=loop.read(answer),
        containers=containers.read(answer),
        filebeat=filebeat.read(answer),
        mirror_client=mirror_client.read(answer),
        mirror_server=mirror_server.read(answer),
        answers=answers.read(answer),
    )
