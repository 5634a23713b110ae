"""Which Debian packages are installed, and whether dpkg was interrupted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts import output_sections
from rtinfra.facts.output_sections import SectionsFact


@dataclass(frozen=True)
class PackagesState:
    """Versions of installed packages by name; `interrupted` when `dpkg --configure -a` is called for."""

    installed: Mapping[str, str]
    interrupted: bool


def parse_packages_state(lines: Sequence[str], marker: str = output_sections.MARKER) -> PackagesState:
    """Build a PackagesState from the fact's output."""
    found = output_sections.parse(lines, marker)
    installed = {}
    for line in found.get("query", []):
        name, version, status = line.split("\t")
        if status.startswith(("ii", "hi")):  # installed, also when held
            installed[name] = version
    return PackagesState(installed=installed, interrupted=bool("".join(found.get("audit", [])).strip()))


class Packages(SectionsFact[PackagesState]):
    """State of the named packages."""

    @override
    def command(self, names: Sequence[str]) -> StringCommand:
        quoted = " ".join(shlex.quote(name) for name in names)
        return self.asking(
            {
                "query": f"dpkg-query -W -f '${{Package}}\\t${{Version}}\\t${{db:Status-Abbrev}}\\n' {quoted}",
                # The updates directory holds the journal of a dpkg that was killed.
                "audit": "dpkg --audit; ls -1 /var/lib/dpkg/updates",
            }
        )

    @override
    def process(self, output: list[str]) -> PackagesState:
        return parse_packages_state(output, self.marker)


# As apt-get(8) tells of a simulation: `Inst chrony [4.3-2] (4.6.1-3 Debian:13/stable [amd64])`.
_INSTALLS = re.compile(r"^Inst (?P<name>\S+) (?:\[(?P<old>[^]\s]+)\] )?\((?P<new>\S+)")
# Debian's own timer fetches new lists every day.
_OLD_LISTS_SECONDS = 2 * 86_400


@dataclass(frozen=True)
class Installation:
    """A package that would come or get another version; `old` is None where it is not installed."""

    name: str
    old: str | None
    new: str


@dataclass(frozen=True)
class SimulationState:
    """What apt would install by the lists the host has now. `lists_age` in seconds, None without lists."""

    changes: tuple[Installation, ...]
    errors: tuple[str, ...]
    lists_age: int | None

    @property
    def doubt(self) -> str | None:
        """Why the real run may install something else, in words; None where nothing speaks for it."""
        if self.lists_age is None:
            return "the host has no lists of packages yet: versions are known once the run has fetched them"
        if self.errors:
            return f"the host's apt does not know yet: {'; '.join(self.errors)}; the run fetches new lists first"
        if self.lists_age > _OLD_LISTS_SECONDS:
            days = self.lists_age // 86_400
            return f"by lists that are {days} days old; the run fetches new ones first and may take newer versions"
        return None


def parse_simulation(lines: Sequence[str], marker: str = output_sections.MARKER) -> SimulationState:
    """Build a SimulationState from the fact's output."""
    found = output_sections.parse(lines, marker)
    install = found.get("install", [])
    newest, now = (int("".join(found.get(name, [])).strip() or 0) for name in ("lists", "clock"))
    return SimulationState(
        changes=tuple(
            Installation(match["name"].partition(":")[0], match["old"], match["new"])
            for match in map(_INSTALLS.match, install)
            if match
        ),
        errors=tuple(line.removeprefix("E: ") for line in install if line.startswith("E: ")),
        lists_age=max(0, now - newest) if newest else None,
    )


class Simulation(SectionsFact[SimulationState]):
    """What `apt-get install` of `requests` would do. It changes nothing: not even apt's caches are written."""

    @override
    def command(self, requests: Sequence[str], options: str = "") -> StringCommand:
        quiet = "-o Debug::NoLocking=true -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
        names = " ".join(shlex.quote(request) for request in requests)
        return self.asking(
            {
                "install": (
                    f"LC_ALL=C apt-get -s -y -q --no-install-recommends {quiet}{options} --allow-downgrades"
                    f" install -- {names} 2>&1"
                ),
                "lists": (
                    "find /var/lib/apt/lists -name '*_Packages*' -printf '%T@\\n' | sort -n | tail -n 1 | cut -d . -f 1"
                ),
                "clock": "date +%s",
            }
        )

    @override
    def process(self, output: list[str]) -> SimulationState:
        return parse_simulation(output, self.marker)
