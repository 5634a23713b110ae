"""Which Debian packages are installed, and whether dpkg was interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from rtinfra.facts import sections


@dataclass(frozen=True)
class PackagesState:
    """Versions of installed packages by name; `interrupted` when `dpkg --configure -a` is called for."""

    installed: Mapping[str, str]
    interrupted: bool


def parse_packages_state(lines: list[str]) -> PackagesState:
    """Build a PackagesState from the fact's output."""
    found = sections.parse(lines)
    installed = {}
    for line in found.get("query", []):
        name, version, status = line.split("\t")
        if status.startswith(("ii", "hi")):  # installed, also when held
            installed[name] = version
    return PackagesState(installed=installed, interrupted=bool("".join(found.get("audit", [])).strip()))


class Packages(FactBase[PackagesState]):
    """State of the named packages."""

    @override
    def command(self, names: Sequence[str]) -> StringCommand:
        quoted = " ".join(shlex.quote(name) for name in names)
        return StringCommand(
            sections.script(
                {
                    "query": f"dpkg-query -W -f '${{Package}}\\t${{Version}}\\t${{db:Status-Abbrev}}\\n' {quoted}",
                    # The updates directory holds the journal of a dpkg that was killed.
                    "audit": "dpkg --audit; ls -1 /var/lib/dpkg/updates",
                }
            )
        )

    @override
    def process(self, output: list[str]) -> PackagesState:
        return parse_packages_state(list(output))
