"""Which Python environment of ours a host has, and which wheels are in its cache."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts.output_sections import SectionsFact

#: Wheels that were carried to a host.
CACHE = "/var/cache/rtinfra/wheels"


@dataclass(frozen=True)
class EnvironmentState:
    """`python` is the version of the host's Python, `3.13`, empty without one; `current` the name of the environment
    in use; `wheels` hashes of the wheels in the cache by file name.
    """

    python: str
    current: str
    wheels: Mapping[str, str]


class Environment(SectionsFact[EnvironmentState]):
    """The environment below a directory, and the cache of wheels."""

    @override
    def command(self, directory: str) -> StringCommand:
        current = shlex.quote(f"{directory}/current")
        return self.asking(
            {
                "python": "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'",
                # An interpreter that an upgrade of the distribution has taken away is no environment.
                "current": f"{current}/bin/python -c '' && basename \"$(readlink {current})\"",
                "wheels": f"cd {CACHE} && sha256sum -- *.whl",
            }
        )

    @override
    def process(self, output: list[str]) -> EnvironmentState:
        found = self.sections(output)
        wheels = (line.split("  ", 1) for line in found.get("wheels", []) if "  " in line)
        return EnvironmentState(
            python="".join(found.get("python", [])).strip(),
            current="".join(found.get("current", [])).strip(),
            wheels={name.strip(): digest for digest, name in wheels},
        )
