"""The content of many files in one round trip; only asked for when diffs are to be shown."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts.output_sections import SectionsFact


class Contents(SectionsFact[Mapping[str, bytes]]):
    """Bytes of each of the given files; absent files are missing from the mapping."""

    @override
    def command(self, paths: Sequence[str]) -> StringCommand:
        return self.asking({path: f"base64 -- {shlex.quote(path)}" for path in paths})

    @override
    def process(self, output: list[str]) -> Mapping[str, bytes]:
        return {path: base64.b64decode("".join(lines)) for path, lines in self.sections(output).items() if lines}
