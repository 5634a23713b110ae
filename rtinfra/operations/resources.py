"""Values that say what a path, an action or a unit should be. No host is involved here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, Literal

from rtinfra.facts.files import PathState


@dataclass(frozen=True)
class Action:
    """A command that makes a changed file take effect, for example loading a sysctl file.

    It runs after all files of its role are in place. `name` is unique on the host: it is also the marker
    that lets a later run finish what an interrupted one left undone.
    """

    name: str
    command: str
    covers: tuple[str, ...] = ()
    """Names of actions that are needless when this one runs with the same files."""
    deferred: bool = False
    """Left to the units operation, which ends the run and does it once for the files of all roles."""


#: Makes systemd read changed units: seconds on a small host, so never more than once in a run.
DAEMON_RELOAD: Final = Action("daemon-reload", "systemctl daemon-reload", deferred=True)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A path of the host and what it should be: what all kinds have in common.

    `actions` run when the path changed; `restarts` names units that the role's units operation restarts.
    """

    path: str
    actions: tuple[Action, ...] = ()
    restarts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or any(character in self.path for character in "\n\t\\"):
            raise ValueError(f"{self.path!r} is not an absolute path without line breaks, tabs, backslashes")

    def difference(self, state: PathState | None) -> str | None:
        """Return in words how `state` differs from what is desired, None when it does not."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Owned(Resource):
    """A path that exists, with mode (octal digits) and owner."""

    mode: str
    owner: str = "root"
    group: str = "root"
    kind = ""

    def _ownership(self, state: PathState) -> list[str]:
        return [
            f"{what} {actual} -> {desired}"
            for what, actual, desired in (
                ("mode", state.mode, self.mode),
                ("owner", state.owner, self.owner),
                ("group", state.group, self.group),
            )
            if actual != desired
        ]


@dataclass(frozen=True, kw_only=True)
class File(Owned):
    """A file with exactly this content.

    `validate` is a shell command run on the host before the file is put in place, `{path}` standing for the
    staged copy; when it fails no file of the operation is touched. A `secret` file has mode 0600, and its
    content appears in no diff.
    """

    content: bytes = field(repr=False)
    mode: str = "0644"
    validate: str | None = None
    secret: bool = False
    kind = "file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.secret and self.mode[-2:] != "00":
            raise ValueError(f"{self.path} is secret: mode {self.mode} lets others read it")

    @property
    def sha256(self) -> str:
        """Hex digest of the desired content."""
        return hashlib.sha256(self.content).hexdigest()

    def difference(self, state: PathState | None) -> str | None:
        if state is None:
            return "new"
        if state.kind != "regular file":
            return f"replaces a {state.kind}"
        found = self._ownership(state)
        if not state.holds(self.content):
            found.insert(0, "content")
        return ", ".join(found) or None


@dataclass(frozen=True, kw_only=True)
class Directory(Owned):
    """A directory; what is inside is not touched."""

    mode: str = "0755"
    kind = "directory"

    def difference(self, state: PathState | None) -> str | None:
        if state is None:
            return "new directory"
        if state.kind != "directory":
            return f"is a {state.kind}, not a directory"
        return ", ".join(self._ownership(state)) or None


@dataclass(frozen=True, kw_only=True)
class Absent(Resource):
    """A file that must not exist."""

    def difference(self, state: PathState | None) -> str | None:
        if state is None:
            return None
        return "removed" if state.kind != "directory" else "is a directory, not a file"


@dataclass(frozen=True, kw_only=True)
class RuntimeValue:
    """A value of the running kernel that no file shows: somebody may have changed it by hand.

    `paths` is a shell pattern of files with that value, or of names of kernel threads for the form `fifo`. `form` says
    how it is compared: as words (`text`), as the chosen one of several (`choice`), as a list or mask of CPUs, as a
    priority. A `workqueue` and an `interrupt` have to stay within the value. `name` is what people call it; without one
    it is the path. `action` puts it back; None where only a reboot does.
    """

    kind: str
    paths: str
    value: str
    form: Literal["text", "choice", "cpus", "mask", "workqueue", "interrupt", "fifo"] = "text"
    name: str = ""
    action: Action | None = None


@dataclass(frozen=True)
class Unit:
    """A systemd unit and what it should be.

    `startup`: enabled or disabled at boot, masked, or None where the unit is static. `running`: started,
    or None to leave it.
    """

    name: str
    startup: Literal["enabled", "disabled", "masked"] | None = "enabled"
    running: bool | None = True


@dataclass(frozen=True)
class PythonEnvironment:
    """A virtual environment of a host with our own modules and what requirements/preflight.txt pins.

    `directory` has one environment for each set of contents, and `current` that points at the one in use.
    `check` is a module that must answer `--help` before it comes into use. `from_index`: third-party wheels come from
    the index that the host's pip is configured for, and only our own is carried.
    """

    directory: str
    check: str
    from_index: bool = False

    @property
    def python(self) -> str:
        """Its interpreter."""
        return f"{self.directory}/current/bin/python"
