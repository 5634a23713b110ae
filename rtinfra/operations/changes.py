"""What operations would change on a host, and what they did: they say so themselves, when they have looked.

pyinfra prepares all operations before it carries out the first, so a later one looks at a host on which the earlier
ones have not happened. What those said is how it foresees what it will find: `foreseen`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api.state import State
from pyinfra.context import ctx_state

Json = dict[str, object]

_SHOWN_AT_MOST = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing of a host that becomes another. A `consequence` follows from other changes of the same run."""

    kind: ClassVar[str]
    #: What a plan shows of it beside name and text.
    more: ClassVar[tuple[str, ...]] = ()
    name: str
    text: str
    consequence: bool = False

    @property
    def wanted(self) -> str:
        """What tells two changes of the same thing apart; never shown."""
        return self.text

    def to_json(self) -> Json:
        """Return the change as a plan shows it."""
        shown = {"kind": self.kind, "name": self.name, "text": self.text, "consequence": self.consequence}
        return shown | {name: getattr(self, name) for name in self.more}


@dataclass(frozen=True, kw_only=True)
class FileChange(Change):
    """A path that becomes another: `text` says in words how.

    `before` and `after` are its contents: None where there are none, where nobody asked, and before those that only
    root may read. `restarts` and `actions` name what follows.
    """

    kind = "file"
    more = ("content", "diff")
    before: bytes | None = field(default=None, repr=False)
    after: bytes | None = field(default=None, repr=False)
    secret: bool = False
    restarts: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        return f"{self.text} {hashlib.sha256(self.after or b'').hexdigest()}"

    @property
    def diff(self) -> str:
        """A unified diff; empty where contents are secret, no text, or the same."""
        if self.secret:
            return ""
        old, new = (_text(content) for content in (self.before, self.after))
        if old is None or new is None:
            return ""
        lines = difflib.unified_diff(
            old.splitlines(),
            new.splitlines(),
            "/dev/null" if self.before is None else self.name,
            "/dev/null" if self.after is None else self.name,
            lineterm="",
        )
        return "\n".join(lines)

    @property
    def content(self) -> str:
        """Whether the contents are shown, and why not."""
        if self.secret:
            return "secret"
        known = [content for content in (self.before, self.after) if content is not None]
        if any(_text(content) is None for content in known):
            return f"no text, {len(self.after or b'')} bytes"
        return "shown" if known else "none"


def _text(content: bytes | None) -> str | None:
    """Return a content as text, None when it is none."""
    if content is not None and (len(content) > _SHOWN_AT_MOST or b"\0" in content):
        return None
    try:
        return (content or b"").decode()
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, kw_only=True)
class LiveChange(Change):
    """A value of the running kernel that somebody changed by hand, put back."""

    kind = "live"


@dataclass(frozen=True, kw_only=True)
class ActionRun(Change):
    """A command that makes changed files take effect."""

    kind = "action"


@dataclass(frozen=True, kw_only=True)
class PackageChange(Change):
    """A Debian package: `new` is None while its version is not known, `old` when it is not installed."""

    kind = "package"
    more = ("old", "new")
    old: str | None
    new: str | None


def package(name: str, old: str | None, new: str | None, consequence: bool = False) -> PackageChange:
    """Return the change of a package; as a consequence it is one that another needs."""
    version = new or "version not known before"
    text = version if old is None else f"{old} -> {version}"
    return PackageChange(name=name, text=text, old=old, new=new, consequence=consequence)


@dataclass(frozen=True, kw_only=True)
class UnitChange(Change):
    """A systemd unit: `text` names what is done to it, `because` why."""

    kind = "unit"
    more = ("because",)
    because: str


@dataclass(frozen=True, kw_only=True)
class ImageChange(Change):
    """A container image that a host gets."""

    kind = "image"


@dataclass(frozen=True, kw_only=True)
class Reboot(Change):
    """A reboot, with the kernel arguments that it adds to and removes from the booted ones."""

    kind = "reboot"
    more = ("reasons", "added", "removed")
    reasons: tuple[str, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step(Change):
    """Something that is done and is none of the other kinds."""

    kind = "step"


@dataclass(frozen=True, kw_only=True)
class Unknown(Change):
    """What cannot be known before the run, in words."""

    kind = "unknown"


class Recorder:
    """What the operations of one run said, by host and operation. With `contents`, files are read for their diffs."""

    def __init__(self, contents: bool = False) -> None:
        self.contents = contents
        self._said: dict[tuple[bool, str], dict[str, list[Change]]] = {}

    def add(self, state: State, change: Change) -> None:
        """Take down a change of the operation that is looking."""
        found = self._said.setdefault((state.is_executing, host.name), {})
        changes = found.setdefault(host.current_op_hash or "", [])
        # An operation that is tried again says the same again.
        if change not in changes:
            changes.append(change)

    def planned(self, name: str) -> dict[str, list[Change]]:
        """Return what operations of a host said while they were prepared, by pyinfra's hash of them."""
        return self._said.get((False, name), {})

    def done(self, name: str) -> dict[str, list[Change]]:
        """Return what operations of a host said when they were carried out."""
        return self._said.get((True, name), {})


_recorders: WeakKeyDictionary[State, Recorder] = WeakKeyDictionary()


def _run() -> State:
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    return state


def attach(state: State, recorder: Recorder) -> None:
    """Let the operations of a run tell this recorder."""
    _recorders[state] = recorder


def recorder() -> Recorder:
    """Return the recorder of this run; without one that was attached it is one that asks hosts for nothing."""
    return _recorders.setdefault(_run(), Recorder())


def record(*changes: Change) -> None:
    """Say what the operation that is looking would change, or changes. Before its first command."""
    for change in changes:
        recorder().add(_run(), change)


def wants_contents() -> bool:
    """Tell whether contents, versions and the like are to be asked for: while a plan is made."""
    return recorder().contents and not _run().is_executing


@dataclass(frozen=True)
class Foreseen:
    """What the earlier operations of this run will have changed when this one is carried out."""

    changes: Sequence[Change]

    @property
    def has_reboot(self) -> bool:
        """Whether the host will have been rebooted, and nothing is pending any more."""
        return any(isinstance(change, Reboot) for change in self.changes)

    @property
    def files(self) -> list[FileChange]:
        """Files that will be others."""
        return [change for change in self.changes if isinstance(change, FileChange)]

    @property
    def packages(self) -> list[PackageChange]:
        """Packages that will be installed."""
        return [change for change in self.changes if isinstance(change, PackageChange)]

    def still_pending(self, names: Collection[str]) -> set[str]:
        """Return those of the pending actions that nobody will have done."""
        done = {change.name for change in self.changes if isinstance(change, ActionRun)}
        return set() if self.has_reboot else set(names) - done

    def restarts(self) -> dict[str, list[str]]:
        """Return the units that wait for a restart then, each with the files that are the reason."""
        found: dict[str, list[str]] = {}
        for change in self._since_reboot():
            if isinstance(change, FileChange):
                for unit in change.restarts:
                    found.setdefault(unit, []).append(change.name)
        return found

    def _since_reboot(self) -> Iterator[Change]:
        last = max((n for n, change in enumerate(self.changes) if isinstance(change, Reboot)), default=-1)
        yield from self.changes[last + 1 :]


def foreseen() -> Foreseen:
    """Return what is foreseen of the host that is worked on; nothing while operations are carried out."""
    if _run().is_executing:
        return Foreseen(())
    own = host.current_op_hash
    earlier = recorder().planned(host.name).items()
    return Foreseen([change for operation, changes in earlier if operation != own for change in changes])
