"""What operations would change on a host, and what they did: they say so themselves, when they have looked.

pyinfra prepares all operations before it carries out the first, so a later one looks at a host on which the earlier
ones have not happened. From what those said it predicts what it will find: `predicted`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from rtinfra.operations.change import ActionRun, Change, FileChange, PackageChange, Reboot


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


def needs_contents() -> bool:
    """Tell whether contents, versions and the like are to be asked for: while a plan is made."""
    return recorder().contents and not _run().is_executing


@dataclass(frozen=True)
class Predicted:
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

    def follows(self, action: str) -> bool:
        """Tell whether files that will have changed since the last boot ask for that action."""
        return any(action in change.actions for change in self._since_reboot() if isinstance(change, FileChange))

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


def predicted() -> Predicted:
    """Return what is predicted of the host that is worked on; nothing while operations are carried out."""
    if _run().is_executing:
        return Predicted(())
    own = host.current_op_hash
    earlier = recorder().planned(host.name).items()
    return Predicted([change for operation, changes in earlier if operation != own for change in changes])
