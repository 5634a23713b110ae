"""The packet filter of a host: what is loaded, what a boot would load, and whether anybody changed it by hand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rtinfra.facts import output_sections
from rtinfra.facts.files import FilesState, PathState, parse_files_state

#: The table that is ours, as nft(8) names it.
TABLE: Final = "inet rtinfra"
#: What a boot loads.
RULES: Final = "/etc/rtinfra/packet-filter.nft"
#: The program that loads it, and its unit.
LOADER: Final = "/usr/local/lib/rtinfra/packet-filter"
UNIT: Final = "rtinfra-packet-filter.service"
UNIT_FILE: Final = f"/etc/systemd/system/{UNIT}"
#: Hash of the rules that were loaded last, and of the table that this made. In /run: a boot loads them anew.
LOADED: Final = "/run/rtinfra/packet-filter.loaded"

#: Prints the hash of the table in the kernel, EMPTY where there is none. Words are sorted: the kernel keeps sets in no
#: order.
HASH_TABLE: Final = (
    f"nft -s list table {TABLE} 2>/dev/null | tr -s ' \\t,' '\\n' | LC_ALL=C sort | sha256sum | cut -c1-64"
)
#: What HASH_TABLE prints where there is no table: the hash of nothing.
EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

_FILES: Final = " ".join(map(shlex.quote, (RULES, LOADER, UNIT_FILE)))
#: Sections of a script that looks at more; `parse` reads their answers.
COMMANDS: Final = {
    "filter_program": "PATH=$PATH:/usr/sbin:/sbin; command -v nft >/dev/null && echo yes",
    "filter_table": f"PATH=$PATH:/usr/sbin:/sbin; {HASH_TABLE}",
    "filter_loaded": f"cat {LOADED}",
    "filter_unit": f"systemctl is-enabled {UNIT}; systemctl is-active {UNIT}",
    "filter_stat": f"stat --printf '%a\\t%U\\t%G\\t%F\\t%n\\n' -- {_FILES}",
    "filter_sha256": f"find {_FILES} -maxdepth 0 -type f -exec sha256sum -- {{}} +",
}


@dataclass(frozen=True)
class PacketFilterState:
    """What was seen. `table` and `loaded_table` are hashes of tables, `loaded_rules` is one of a file; empty: none."""

    has_program: bool = False
    table: str = ""
    loaded_rules: str = ""
    loaded_table: str = ""
    is_enabled: bool = False
    is_active: bool = False
    paths: Mapping[str, PathState] = field(default_factory=dict)

    @property
    def files(self) -> FilesState:
        """The state of the filter's files."""
        return FilesState(paths=self.paths, pending=frozenset())

    def has_loaded(self, sha256: str) -> bool:
        """Tell whether the table in the kernel is the one that rules of this hash made."""
        return bool(self.table) and self.loaded_rules == sha256 and self.loaded_table == self.table


def parse(found: Mapping[str, Sequence[str]]) -> PacketFilterState:
    """Build the state from the sections of COMMANDS."""

    def words(name: str) -> list[str]:
        return [word for line in found.get(name, ()) for word in line.split()]

    table, loaded, unit = words("filter_table"), words("filter_loaded"), words("filter_unit")
    files = [f"{output_sections.MARKER}stat", *found.get("filter_stat", ())]
    files += [f"{output_sections.MARKER}sha256", *found.get("filter_sha256", ())]
    return PacketFilterState(
        has_program=words("filter_program") == ["yes"],
        table=table[0] if table and table[0] != EMPTY else "",
        loaded_rules=loaded[0] if len(loaded) == 2 else "",
        loaded_table=loaded[1] if len(loaded) == 2 else "",
        is_enabled=unit[:1] == ["enabled"],
        is_active=unit[1:] == ["active"],
        paths=parse_files_state(files).paths,
    )
