"""The state of many files, directories and pending actions in one round trip."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts import keyed_hash, output_sections
from rtinfra.facts.output_sections import SectionsFact
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

    Regular files have a hash: `sha256`, or `keyed` (rtinfra.facts.keyed_hash) where the content may be a secret.
    """

    kind: str
    mode: str
    owner: str
    group: str
    sha256: str | None = None
    keyed: str | None = None

    def holds(self, content: bytes) -> bool:
        """Whether it is a file with this content."""
        if self.keyed is not None:
            return self.keyed == keyed_hash.of(content)
        return self.sha256 == hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class FilesState:
    """States by path (absent paths are missing) and the names of pending actions.

    `drift` are values of the running kernel that are not as the last deploy made them, in words, each with the name of
    the action that puts it back; empty unless asked for.
    """

    paths: Mapping[str, PathState]
    pending: frozenset[str]
    drift: tuple[tuple[str, str], ...] = ()


def parse_files_state(lines: Sequence[str], marker: str = output_sections.MARKER) -> FilesState:
    """Build a FilesState from the fact's output."""
    found = output_sections.parse(lines, marker)
    hashes, keyed = _by_path(found.get("sha256", [])), _by_path(found.get("keyed", []))
    paths = {}
    for line in found.get("stat", []):
        mode, owner, group, kind, path = line.split("\t", 4)
        # An empty file is "regular empty file" to stat(1).
        kind = "regular file" if kind == "regular empty file" else kind
        paths[path] = PathState(kind, mode.zfill(4), owner, group, hashes.get(path), keyed.get(path))
    drift = (line.partition("\t") for line in found.get("drift", []))
    return FilesState(
        paths=paths,
        pending=frozenset(line.strip() for line in found.get("pending", [])),
        drift=tuple((action, plain(text)) for action, separator, text in drift if separator),
    )


def _by_path(lines: Iterable[str]) -> dict[str, str]:
    """Read what sha256sum(1) prints: hashes by path."""
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


class Files(SectionsFact[FilesState]):
    """State of the given absolute paths; paths must not contain line breaks or backslashes.

    `patterns` are shell patterns of more paths, for what is there without being known by name. With `runtime` the
    host's drift checker, where there is one, looks at the running kernel too: in the same round trip. `secret` are
    those of the paths whose content is one: of them, and of all that not everybody on the host may read, a keyed hash
    is shown. That takes `_stdin=keyed_hash.KEY`; without it such files have no hash.
    """

    @override
    def command(
        self, paths: Sequence[str], patterns: Sequence[str] = (), runtime: bool = False, secret: Sequence[str] = ()
    ) -> StringCommand:
        shown = [shlex.quote(path) for path in paths if path not in set(secret)]
        hidden = [shlex.quote(path) for path in secret]
        drift = {"drift": f"test -e {DRIFT_CHECKER} && python3 -I {DRIFT_CHECKER} --live </dev/null"} if runtime else {}
        # Files alone: a pipe that somebody laid in the place of one would be waited for without an end.
        files, each = "-maxdepth 0 -type f", f"-exec sh -c {shlex.quote(keyed_hash.HASH_EACH)} sh {{}} +"
        looked_at = " ".join([*shown, *patterns])
        keyed = [f"find {looked_at} {files} ! -perm -o=r {each}"] if looked_at else []
        keyed += [f"find {' '.join(hidden)} {files} {each}"] if hidden else []
        return self.asking(
            {
                **drift,
                "stat": f"stat --printf '%a\\t%U\\t%G\\t%F\\t%n\\n' -- {' '.join([*shown, *hidden, *patterns])}",
                "sha256": f"find {looked_at} {files} -perm -o=r -exec sha256sum -- {{}} +" if looked_at else "true",
                "keyed": f"{keyed_hash.READ_KEY} || exit; {'; '.join(keyed)}",
                "pending": f"ls -1 {PENDING_DIR}; ls -1 {LASTING_PENDING_DIR}",
            }
        )

    @override
    def process(self, output: list[str]) -> FilesState:
        return parse_files_state(output, self.marker)
