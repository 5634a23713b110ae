"""All files of a role in one operation: one look, one transfer of what differs."""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

from pyinfra import host, logger, state
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import OperationError
from pyinfra.api.operation import operation

from rtinfra.facts import keyed_hash
from rtinfra.facts.contents import Contents
from rtinfra.facts.files import Files, FilesState
from rtinfra.operations import change
from rtinfra.operations.change import ActionRun, FileChange, RuntimeValueChange
from rtinfra.operations.changes import needs_contents, predicted, record
from rtinfra.operations.resources import Absent, Action, Directory, File, Resource, RuntimeValue
from rtinfra.operations.scripts import script

# The script is the same for every role and every run.
_SCRIPT = script("sync.sh")


def restart_marker(unit: str) -> str:
    """Name of the pending marker that asks for a restart of `unit`."""
    return f"restart@{unit}"


@operation()
def sync(paths: Sequence[Resource], runtime: Sequence[RuntimeValue] = ()) -> Generator[StringCommand, None, None]:
    """Make all `paths` what they should be.

    One fact reads the state of all of them, one command sends those that differ: staged in a directory only
    root can read, checked by each file's own validator, then fsynced and renamed one by one, then the
    actions. An action that an interrupted run left undone is done too. Of the values in `runtime`, those that somebody
    changed by hand are put back.

    Raises:
        OperationError: when a path is given twice, or something else is where a directory should be.
    """
    yield from changes(paths, observed(paths, runtime=bool(runtime)), runtime)


def observed(
    paths: Sequence[Resource], others: Sequence[str] = (), patterns: Sequence[str] = (), runtime: bool = False
) -> FilesState:
    """Return what `paths`, further paths and those that `patterns` fit are on the host, in one round trip."""
    found: FilesState = host.get_fact(
        Files,
        paths=[*others, *(path.path for path in paths)],
        patterns=patterns,
        runtime=runtime,
        secret=[path.path for path in paths if isinstance(path, File) and path.secret],
        _stdin=keyed_hash.KEY,
    )
    return found


def changes(
    paths: Sequence[Resource], found: FilesState, runtime: Sequence[RuntimeValue] = ()
) -> Iterator[StringCommand]:
    """Yield the command that makes all `paths` what they should be, for an operation that has looked itself.

    `runtime` as for `sync`.

    Raises:
        OperationError: when a path is given twice, or something else is where a directory should be.
    """
    _refuse_duplicates(paths)
    changed = [(path, difference) for path in paths if (difference := path.difference(found.paths.get(path.path)))]
    actions = {action.name: action for path, _ in changed for action in path.actions}
    follow_files = frozenset(actions)
    # Left undone by an interrupted run.
    pending = predicted().still_pending(found.pending)
    actions |= {action.name: action for path in paths for action in path.actions if action.name in pending}
    for _, text in found.drift:
        logger.info("%s%s", host.print_prefix, text)
    remediations = {value.action.name: value.action for value in runtime if value.action}
    actions |= {
        name: remediations[name] for name in (*(name for name, _ in found.drift), *pending) if name in remediations
    }
    # One that an earlier run left undone has a marker, which only its own run takes away.
    covered = {name for action in actions.values() for name in action.covers} - pending
    deferred = sorted(name for name, action in actions.items() if action.deferred and name not in covered | pending)
    actions = {name: action for name, action in actions.items() if name not in covered and not action.deferred}
    if not changed and not actions and not deferred:
        host.noop(f"all {len(paths)} paths are as they should be")
        return

    for path, difference in changed:
        if isinstance(path, Directory | Absent) and difference.startswith("is a "):
            raise OperationError(f"{path.path} {difference}; move it away, then run the deploy again")
        logger.info("%s%s: %s", host.print_prefix, path.path, difference)
    has_diffs = bool(state.config.DIFF)
    contents = _contents(changed, found) if needs_contents() or has_diffs else {}
    said = [_said(path, difference, contents, covered) for path, difference in changed]
    if has_diffs:
        _show_diffs(said)
    record(*said, *_drifted(found), *_runs(actions, follow_files, found))
    restarts = sorted({unit for path, _ in changed for unit in path.restarts})
    markers = [*map(restart_marker, restarts), *deferred]
    payload = bundle([path for path, _ in changed], list(actions.values()), markers)
    yield StringCommand(_SCRIPT, _stdin=payload)


def bundle(paths: Sequence[Resource], actions: Sequence[Action], markers: Sequence[str]) -> str:
    """Pack what sync.sh reads from standard input: base64 of a tar with a manifest and the files.

    `markers` are the names under which the units operation finds what it has to do.
    """
    lines: list[tuple[str, ...]] = []
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in paths:
            match path:
                case File():
                    _add(tar, f"root{path.path}", path.content)
                    if path.validate:
                        # The script runs it inside the staged tree.
                        staged = f'"$PWD"{shlex.quote(path.path)}'
                        lines.append(("validate", path.path, path.validate.replace("{path}", staged)))
                    lines.append(("file", path.path, path.mode, path.owner, path.group))
                case Directory():
                    lines.append(("directory", path.path, path.mode, path.owner, path.group))
                case Absent():
                    lines.append(("absent", path.path))
        lines += [
            ("keep", unit, path.path) for path in paths if isinstance(path, File | Absent) for unit in path.restarts
        ]
        lines += [("marker", marker) for marker in markers]
        lines += [("action", action.name, action.command) for action in actions]
        _add(tar, "manifest", "".join("\t".join(line) + "\n" for line in lines).encode())
    return base64.encodebytes(archive.getvalue()).decode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o600
    tar.addfile(member, io.BytesIO(content))


def _refuse_duplicates(paths: Sequence[Resource]) -> None:
    seen: set[str] = set()
    for path in paths:
        if path.path in seen:
            raise OperationError(f"{path.path} is managed twice in one operation")
        seen.add(path.path)


def _contents(changed: Sequence[tuple[Resource, str]], found: FilesState) -> Mapping[str, bytes]:
    """Return what is in the files that change and are there, as far as others than root may read it.

    One more round trip, for who asks to see differences.
    """
    # What changes in mode or owner alone needs no look.
    paths = [
        path.path
        for path, difference in changed
        if path.path in found.paths and _is_shown(path, found) and _is_about_content(path, difference)
    ]
    return host.get_fact(Contents, paths=paths) if paths else {}


def _is_shown(path: Resource, found: FilesState) -> bool:
    state = found.paths.get(path.path)
    if isinstance(path, Directory) or (isinstance(path, File) and path.secret):
        return False
    # One that only root may read may hold a secret, whatever it is to become.
    return state is None or (state.kind == "regular file" and state.mode[-2:] != "00")


def _is_about_content(path: Resource, difference: str) -> bool:
    return isinstance(path, Absent) or "content" in difference.split(", ")


def _said(path: Resource, difference: str, contents: Mapping[str, bytes], covered: Collection[str]) -> FileChange:
    """Return a difference the way a plan and a run record tell it, without actions that others cover."""
    is_new = difference == "new" or difference.startswith("replaces ")
    after = None
    if isinstance(path, File) and (is_new or path.path in contents or path.secret):
        after = path.content
    return change.file(
        name=path.path,
        text=f"{difference}, mode {path.mode}, {path.owner}:{path.group}"
        if difference.startswith("new") and isinstance(path, File | Directory)
        else difference,
        before=contents.get(path.path),
        after=after,
        secret=isinstance(path, File) and path.secret,
        restarts=path.restarts,
        actions=tuple(action.name for action in path.actions if action.name not in covered),
    )


def _drifted(found: FilesState) -> Iterator[RuntimeValueChange]:
    for _, text in found.drift:
        name, _, values = text.partition(": ")
        yield RuntimeValueChange(name=name, text=values)


def _runs(actions: Mapping[str, Action], follow_files: Collection[str], found: FilesState) -> Iterator[ActionRun]:
    """Tell the actions, each with why: only what an interrupted run left undone is no consequence."""
    drifted = {name for name, _ in found.drift}
    for name, action in actions.items():
        follows = name in follow_files or name in drifted
        text = action.command if follows else f"{action.command}, left undone by a run that was cut off"
        yield ActionRun(name=name, text=text, consequence=follows)


def _show_diffs(changes: Sequence[FileChange]) -> None:
    """Print unified diffs on stderr, as pyinfra's own --diff does."""
    for one in changes:
        for line in one.diff.splitlines():
            logger.info("%s%s", host.print_prefix, line)
