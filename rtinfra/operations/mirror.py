"""The offline mirror: certificates of the host that serves it, and hosts that use it and nothing else."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatch
from weakref import WeakKeyDictionary

from gevent.lock import RLock
from pyinfra import host, logger
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError, OperationError
from pyinfra.api.facts import get_fact
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from rtinfra.facts.files import PENDING_DIR, FilesState
from rtinfra.facts.mirror import (
    CERTIFICATES,
    RECORD,
    REFUSED,
    SET_ASIDE,
    SOURCES,
    Certificate,
    LiveMirror,
    MirrorState,
    Release,
    normalised,
)
from rtinfra.operations.change import Step, Unknown
from rtinfra.operations.changes import record
from rtinfra.operations.files import changes, observed, restart_marker
from rtinfra.operations.packages import APT, AS_BEFORE, FINISH, IN_ORDER, update
from rtinfra.operations.resources import Absent, File, Resource
from rtinfra.operations.scripts import script

_CERTIFICATES_SCRIPT = script("certificates.sh")
_SET_ASIDE_SCRIPT = script("set-aside.sh")
_RESTORE_SCRIPT = script("restore.sh")

# What mirror hosts answered, by run, then by host, folder and phase: one look serves all clients.
_asked: WeakKeyDictionary[State, dict[tuple[str, str, bool], MirrorState]] = WeakKeyDictionary()
_asking = RLock()


class MirrorUnreachable(Exception):
    """The mirror's host cannot be asked; the text says why."""


def asked(server: str, directory: str) -> MirrorState:
    """Return what the host `server` of this run's inventory serves from `directory`, whichever host is worked on.

    It is looked at once while the run is prepared and once more while it is carried out: what it serves by is made in
    between, on its first deploy.

    Raises:
        MirrorUnreachable: there is no connection to it.
    """
    state = _run()
    with _asking:
        answers = _asked.setdefault(state, {})
        key = (server, directory, bool(state.is_executing))
        if key not in answers:
            try:
                found: MirrorState | None = get_fact(
                    state,
                    state.inventory.get_host(server),
                    LiveMirror,
                    kwargs={"directory": directory},
                    # What cannot be done to a client is no failure of the mirror's host.
                    apply_failed_hosts=False,
                )
            except (ConnectError, OSError) as error:
                raise MirrorUnreachable(f"the mirror's host {server} cannot be reached: {error}") from error
            if found is None:
                raise MirrorUnreachable(f"the mirror's host {server} did not answer")
            answers[key] = found
        return answers[key]


def _run() -> State:
    """Return pyinfra's state of this run itself, not the proxy for it."""
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    return state


def renewals(state: MirrorState, names: Collection[str], renew_days: int) -> tuple[list[str], list[str]]:
    """Say in words why the authority's, and why the server's certificate has to be made; empty: it has not."""
    soon = state.clock + timedelta(days=renew_days)
    authority = list(_ending(state.authority, soon))
    server = [*_ending(state.server, soon)]
    if state.server is not None:
        required = frozenset(map(normalised, names))
        if state.server.names != required:
            server.append(f"is for {', '.join(sorted(state.server.names))}, wanted {', '.join(sorted(required))}")
        if not state.is_trusted:
            server.append("is not the authority's, or not of its key")
    return authority, server


def _ending(certificate: Certificate | None, soon: datetime) -> Iterator[str]:
    if certificate is None:
        yield "is not there yet"
    elif certificate.ends <= soon:
        yield f"ends at {certificate.ends:%Y-%m-%d}"


@operation()
def certificates(
    directory: str, names: Sequence[str], ca_days: int, server_days: int, renew_days: int, unit: str
) -> Generator[StringCommand, None, None]:
    """Make the authority of the mirror in `directory` and its server's certificate, when they are not right.

    `names` are what clients call it by, `unit` is restarted by the next operation on units.

    Raises:
        OperationError: no release is published.
    """
    state: MirrorState = host.get_fact(LiveMirror, directory=directory)
    if state.release is None:
        raise OperationError(f"no release is published in {directory}")
    authority, server = renewals(state, names, renew_days)
    if not authority and not server:
        host.noop("the certificates are as they should be")
        return
    for who, reasons in (("authority", authority), ("server", server)):
        if reasons:
            record(Step(name=f"certificate of the {who}", text=f"made: {'; '.join(reasons)}"))
            logger.info("%scertificate of the %s: %s", host.print_prefix, who, "; ".join(reasons))
    # Not later than the release: a client whose clock lets it use the release may then use the certificate too.
    begin = min(state.clock, state.release.index.date)
    arguments = [
        "authority" if authority else "server",
        ",".join(_alternative(name) for name in dict.fromkeys(map(normalised, names))),
        *(f"{moment:%Y%m%d%H%M%SZ}" for moment in (begin, *_ends(state.clock, ca_days, server_days))),
        CERTIFICATES,
        f"{PENDING_DIR}/{restart_marker(unit)}",
    ]
    yield StringCommand(f"set -- {shlex.join(arguments)}\n{_CERTIFICATES_SCRIPT}")


def _ends(now: datetime, *days: int) -> Iterator[datetime]:
    return (now + timedelta(days=count) for count in days)


def _alternative(name: str) -> str:
    """Return a name the way openssl writes it among the alternatives of a certificate."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


@operation()
def barrier(server: str) -> Generator[StringCommand, None, None]:
    """Barrier: the mirror's host reaches it once it serves, its clients before they are pointed at it. Does nothing.

    pyinfra orders the operations of different hosts by those they have in common, not by their lines in deploy.py: this
    is the one that the mirror's host and its clients share.
    """
    host.noop(f"{server} serves the mirror")
    yield from ()


@operation()
def pointed(
    server: str,
    directory: str,
    files: Callable[[MirrorState], Sequence[Resource]],
    replaced: Collection[str],
    follow: bool,
) -> Generator[StringCommand, None, None]:
    """Point a host at the mirror that `server` serves from `directory`, and at nothing else.

    `files` says what that takes, from what the mirror's host answers; those of them named in `replaced` may belong to
    others. What is replaced, and every other source of packages, is kept aside for `restored`. With `follow`, installed
    packages are brought to the versions of the live release whenever that is another than the one they have.

    Raises:
        OperationError: the mirror's host cannot be asked, has nothing to serve or no certificate yet, or what it serves
            is signed by a key that was given up.
    """
    try:
        served = asked(server, directory)
    except MirrorUnreachable as error:
        raise OperationError(str(error)) from error
    if served.release is None:
        raise OperationError(f"no release is published in {directory} of {server}")
    if served.authority is None:
        if _run().is_executing:
            raise OperationError(f"{server} has no certificate yet: deploy to it first, with `--limit {server}`")
        # It is made by an operation before this one.
        record(
            Step(name=server, text="is the host's only source of packages from now on"),
            Unknown(name="files", text="what they hold follows from the certificate that this run makes"),
        )
        yield StringCommand("true")
        return
    paths = files(served)
    found = observed(paths, [RECORD, SET_ASIDE], [*SOURCES, f"{REFUSED}/*"])
    _require_key(server, served.release, {*served.refused, *_refused_here(found)})
    others = other_sources(found, {path.path for path in paths})
    ours = [path for path in paths if path.path in replaced and path.difference(found.paths.get(path.path))]
    keeps = others or ours or SET_ASIDE not in found.paths
    pairs = [*(("source", path) for path in others), *(("replaced", path.path) for path in ours)]
    if keeps:
        for path in others:
            logger.info("%s%s: set aside", host.print_prefix, path)
        record(Step(name="set aside", text=", ".join(path for _, path in pairs) or "nothing is there to be kept"))
    follows = follow and (others or not _is_recorded(served.release.name, found))
    if follows:
        record(
            Step(name="packages", text=f"are brought to the versions of release {served.release.name}"),
            Unknown(name="packages", text="which, is known once the host uses the mirror"),
        )
    # What differs is told before the first command.
    sends = list(changes([*paths, *(Absent(path=path) for path in others)], found))
    if keeps:
        yield _script(_SET_ASIDE_SCRIPT, (word for pair in pairs for word in pair))
    yield from sends
    if follows:
        logger.info("%sfollowing release %s of the mirror", host.print_prefix, served.release.name)
        yield from _follow(served.release.name)


def _refused_here(found: FilesState) -> Iterator[str]:
    """Yield the fingerprints of the mirrors' keys that the host does not believe."""
    prefix = f"{REFUSED}/"
    return (path.removeprefix(prefix) for path in found.paths if path.startswith(prefix))


def _require_key(server: str, release: Release, refused: Collection[str]) -> None:
    """Refuse a release that is signed by a key which was given up, on the mirror or as this host remembers it.

    Raises:
        OperationError: it is, or its key file holds anything else than keys.
    """
    try:
        keys = release.fingerprints
    except ValueError as error:
        raise OperationError(f"the key of release {release.name} on {server} {error}; publish it again") from error
    if bad := sorted(set(keys) & set(refused)):
        raise OperationError(
            f"release {release.name} on {server} is signed by the key {', '.join(bad)}, which was given up: was the"
            " mirror restored from an old backup? There: `rtinfra mirror keys revoke` that key, then `rtinfra mirror"
            " publish --again`"
        )


def other_sources(found: FilesState, ours: Collection[str]) -> list[str]:
    """Return the files with sources of packages that are not ours."""
    return [
        path
        for path, state in found.paths.items()
        if path not in ours and state.kind != "directory" and any(fnmatch(path, pattern) for pattern in SOURCES)
    ]


def _record(release: str) -> File:
    return File(path=RECORD, content=f"{release}\n".encode())


def _is_recorded(release: str, found: FilesState) -> bool:
    state = found.paths.get(RECORD)
    return state is not None and state.holds(_record(release).content)


def _follow(release: str) -> Iterator[StringCommand]:
    yield StringCommand(IN_ORDER)
    # Nothing that was cut off is in apt's way.
    yield StringCommand(FINISH)
    yield StringCommand(update())
    yield StringCommand(f"{APT} --fix-broken install")
    # What is on hold stays: apt leaves it out by itself.
    yield StringCommand(f"{APT} --allow-downgrades full-upgrade")
    yield StringCommand(AS_BEFORE)
    # Last, so that a run cut off before does all of it again.
    yield from changes([_record(release)], FilesState({}, frozenset()))


@operation()
def restored(paths: Collection[str]) -> Generator[StringCommand, None, None]:
    """Undo `pointed`: take away our files and put back what was there before. `paths` are all that are ours."""
    found = observed((), [SET_ASIDE, *paths])
    if SET_ASIDE not in found.paths:
        host.noop("the host is not pointed at the mirror")
        return
    logger.info("%sputting back what was configured before the mirror", host.print_prefix)
    record(Step(name="restore", text="what was configured before the mirror is put back"))
    yield from changes([Absent(path=path) for path in paths], found)
    yield _script(_RESTORE_SCRIPT, ())


def _script(text: str, arguments: Iterable[str]) -> StringCommand:
    return StringCommand(f"set -- {shlex.join(arguments)}\n{text}")
