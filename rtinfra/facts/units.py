"""The state of many systemd units in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts import output_sections
from rtinfra.facts.files import PENDING_DIR
from rtinfra.facts.output_sections import SectionsFact

_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload"


@dataclass(frozen=True)
class UnitState:
    """What systemd says of one unit, in systemd's own words ("loaded", "active", "enabled", ...)."""

    load: str
    active: str
    sub: str
    file: str
    needs_reload: bool


@dataclass(frozen=True)
class UnitsState:
    """States by unit name, and the names of pending actions (see rtinfra.facts.files.PENDING_DIR)."""

    units: Mapping[str, UnitState]
    pending: frozenset[str]


def parse_units_state(names: Sequence[str], lines: Sequence[str], marker: str = output_sections.MARKER) -> UnitsState:
    """Build a UnitsState; systemctl answers in the order of `names`, with an empty line between units."""
    found = output_sections.parse(lines, marker)
    blocks: list[dict[str, str]] = [{}]
    for line in found.get("show", []):
        if not line.strip():
            blocks.append({})
            continue
        key, _, value = line.partition("=")
        blocks[-1][key] = value
    blocks = [block for block in blocks if block]
    # By position, not by Id: an alias answers with another unit's name.
    units = {
        name: UnitState(
            load=block.get("LoadState", ""),
            active=block.get("ActiveState", ""),
            sub=block.get("SubState", ""),
            file=block.get("UnitFileState", ""),
            needs_reload=block.get("NeedDaemonReload") == "yes",
        )
        for name, block in zip(names, blocks, strict=False)
    }
    return UnitsState(units=units, pending=frozenset(line.strip() for line in found.get("pending", [])))


class Units(SectionsFact[UnitsState]):
    """State of the named units."""

    _names: Sequence[str] = ()

    @override
    def command(self, names: Sequence[str]) -> StringCommand:
        self._names = names
        quoted = " ".join(shlex.quote(name) for name in names)
        return self.asking(
            {
                "show": f"systemctl show --no-pager -p {_PROPERTIES} -- {quoted}",
                "pending": f"ls -1 {PENDING_DIR}",
            }
        )

    @override
    def process(self, output: list[str]) -> UnitsState:
        return parse_units_state(self._names, output, self.marker)
