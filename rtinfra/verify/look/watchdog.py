"""Hardware watchdogs, and what systemd does with the chosen one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from roles.rt_tuning.model import WATCHDOG_DEVICE
from rtinfra.facts import output_sections
from rtinfra.verify.look.answer import Answer, read_files
from rtinfra.verify.questions import Questions

_FILES: Final = ("/sys/class/watchdog/watchdog*/identity", "/sys/class/watchdog/watchdog*/state")
_PROPERTIES: Final = "RuntimeWatchdogUSec,RebootWatchdogUSec,WatchdogDevice,WatchdogLastPingTimestampMonotonic"


@dataclass(frozen=True)
class Device:
    """A hardware watchdog; `state` is `active` while somebody feeds it."""

    path: str
    identity: str
    state: str


@dataclass(frozen=True)
class Watchdog:
    """All devices; what the stable name leads to; and the service manager's properties, by systemd's names."""

    devices: tuple[Device, ...]
    link: str
    manager: Mapping[str, str]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask the kernel and systemd."""
    return {
        "watchdog_values": read_files(_FILES),
        "watchdog_link": f"readlink -f {WATCHDOG_DEVICE}",
        "manager": f"systemctl show --no-pager -p {_PROPERTIES}",
    }


def read(answer: Answer) -> Watchdog:
    """Read what `ask` asked."""
    return Watchdog(
        devices=tuple(_devices(answer.files("watchdog_values"))),
        link=answer.line("watchdog_link"),
        manager=next(output_sections.blocks(answer.lines("manager")), {}),
    )


def _devices(values: Mapping[str, str]) -> Iterator[Device]:
    for path, identity in values.items():
        if match := re.fullmatch(r"/sys/class/watchdog/(watchdog\d+)/identity", path):
            state = values.get(f"/sys/class/watchdog/{match[1]}/state", "")
            yield Device(path=f"/dev/{match[1]}", identity=identity, state=state)
