"""Units as systemd holds them, the state of the whole system, and how exposed our services are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.facts import output_sections
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

_PROPERTIES: Final = (
    "Id LoadState ActiveState SubState UnitFileState MainPID Type NotifyAccess ExecStart Restart RestartUSec "
    "WatchdogUSec StartLimitBurst StartLimitIntervalUSec CPUSchedulingPolicy CPUSchedulingPriority CPUAffinity "
    "NUMAPolicy NUMAMask NRestarts Slice AllowedCPUs EffectiveCPUs StandardOutput StandardError "
    "ActiveEnterTimestampMonotonic NeedDaemonReload MemoryMax CPUQuotaPerSecUSec ControlGroup"
)
_EXPOSURE: Final = re.compile(r"for (\S+): ([0-9.]+)")


@dataclass(frozen=True)
class Units:
    """Units by name, each with systemd's properties.

    `system_state` is systemd's word for the whole system. `exposure` is the score of systemd-analyze(1) by unit, 0 to
    10, lower is better.
    """

    all: Mapping[str, Mapping[str, str]]
    system_state: str
    failed: tuple[str, ...]
    exposure: Mapping[str, float]

    def of(self, name: str) -> Mapping[str, str]:
        """Return the properties of a unit; empty when it was not asked for."""
        return self.all.get(name, {})

    def seconds_active(self, name: str, uptime: float) -> float:
        """Return for how long a unit has been active, in seconds; `uptime` is the host's."""
        return uptime - int(self.of(name).get("ActiveEnterTimestampMonotonic") or 0) / 1e6


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for all units at once."""
    units = " ".join(shlex.quote(unit) for unit in questions.units)
    services = " ".join(shlex.quote(unit) for unit in questions.own_services)
    commands = {
        "units": f"systemctl show --no-pager -p {','.join(_PROPERTIES.split())} -- {units}",
        "system_state": "systemctl is-system-running",
        "failed_units": "systemctl list-units --state=failed --plain --no-legend --no-pager",
    }
    if services:
        commands["exposure"] = f"systemd-analyze security --no-pager {services} | grep -i 'overall exposure'"
    return commands


def read(answer: Answer) -> Units:
    """Read what `ask` asked."""
    scores = (_EXPOSURE.search(line) for line in answer.lines("exposure"))
    return Units(
        all={block["Id"]: block for block in output_sections.blocks(answer.lines("units")) if "Id" in block},
        system_state=answer.line("system_state"),
        failed=tuple(line.split()[0] for line in answer.filled("failed_units")),
        exposure={score[1]: float(score[2]) for score in scores if score},
    )
