"""The content of many files in one round trip; only asked for when diffs are to be shown."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from rtinfra.facts import output_sections


class Contents(FactBase[Mapping[str, bytes]]):
    """Bytes of each of the given files; absent files are missing from the mapping."""

    @override
    def command(self, paths: Sequence[str]) -> StringCommand:
        return StringCommand(output_sections.script({path: f"base64 -- {shlex.quote(path)}" for path in paths}))

    @override
    def process(self, output: list[str]) -> Mapping[str, bytes]:
        return {
            path: base64.b64decode("".join(lines)) for path, lines in output_sections.parse(output).items() if lines
        }
