"""The state of many files, directories and pending actions in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from rtinfra.facts import output_sections
from rtinfra.terminal import plain

#: Restarts that a file change asked for and that have not succeeded yet. In /run on purpose: a reboot starts
#: everything with the new files, so nothing is pending after one. What the drift checker asks for is here too.
PENDING_DIR = "/run/rtinfra/pending"
#: Actions that a file change asked for and that have not succeeded yet, also when the power was gone meanwhile: a boot
#: makes no boot menu and no accounts.
LASTING_PENDING_DIR = "/var/lib/rtinfra/pending"
#: Where the role `drift` puts the program that looks for values somebody changed by hand.
DRIFT_CHECKER = "/usr/local/lib/rtinfra/drift.py"


@dataclass(frozen=True)
class PathState:
    """What a path is: `kind` as stat(1) says ("regular file", "directory", ...), mode as octal digits.

    `sha256` is set for regular files only.
    """

    kind: str
    mode: str
    owner: str
    group: str
    sha256: str | None = None


@dataclass(frozen=True)
class FilesState:
    """States by path (absent paths are missing) and the names of pending actions.

    `drift` are values of the running kernel that are not as the last deploy made them, in words, each with the name of
    the action that puts it back; empty unless asked for.
    """

    paths: Mapping[str, PathState]
    pending: frozenset[str]
    drift: tuple[tuple[str, str], ...] = ()


def parse_files_state(lines: list[str]) -> FilesState:
    """Build a FilesState from the fact's output."""
    found = output_sections.parse(lines)
    hashes = {}
    for line in found.get("sha256", []):
        digest, _, path = line.partition("  ")
        hashes[path] = digest
    paths = {}
    for line in found.get("stat", []):
        mode, owner, group, kind, path = line.split("\t", 4)
        # An empty file is "regular empty file" to stat(1).
        kind = "regular file" if kind == "regular empty file" else kind
        paths[path] = PathState(kind, mode.zfill(4), owner, group, hashes.get(path))
    drift = (line.partition("\t") for line in found.get("drift", []))
    return FilesState(
        paths=paths,
        pending=frozenset(line.strip() for line in found.get("pending", [])),
        drift=tuple((action, plain(text)) for action, separator, text in drift if separator),
    )


class Files(FactBase[FilesState]):
    """State of the given absolute paths; paths must not contain line breaks or backslashes.

    `patterns` are shell patterns of more paths, for what is there without being known by name. With `runtime` the
    host's drift checker, where there is one, looks at the running kernel too: in the same round trip.
    """

    @override
    def command(self, paths: Sequence[str], patterns: Sequence[str] = (), runtime: bool = False) -> StringCommand:
        quoted = " ".join([*(shlex.quote(path) for path in paths), *patterns])
        drift = {"drift": f"test -e {DRIFT_CHECKER} && python3 -I {DRIFT_CHECKER} --live"} if runtime else {}
        return StringCommand(
            output_sections.script(
                {
                    **drift,
                    "stat": f"stat --printf '%a\\t%U\\t%G\\t%F\\t%n\\n' -- {quoted}",
                    # Files alone: a pipe that somebody laid in the place of one would be waited for without an end.
                    "sha256": f"find {quoted} -maxdepth 0 -type f -exec sha256sum -- {{}} +",
                    "pending": f"ls -1 {PENDING_DIR}; ls -1 {LASTING_PENDING_DIR}",
                }
            )
        )

    @override
    def process(self, output: list[str]) -> FilesState:
        return parse_files_state(list(output))
