"""What the commands of both sides share: the application, their options, how results are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rtinfra.mirror import lock as locking
from rtinfra.mirror import release
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LOCK_NAME, Lock
from rtinfra.mirror.store import DIRECTORY_VARIABLE, Mirror, mirror_directory
from rtinfra.paths import PROJECT

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The offline mirror: packages, images and wheels of all hosts, locked and fetched here, carried in, published"
    " inside.\n\n"
    "Connected side: lock, fetch, check, bundle. Closed side: import, publish, rollback. Both: verify, diff, audit, gc,"
    " remove, keys. docs/offline.md shows the whole journey.\n\n"
    "Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, settings or lock, 130 interrupted.",
)

DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--directory", help=f"Folder of the mirror. Default: {DIRECTORY_VARIABLE}, else .mirror of the project."
    ),
]
LockOption = Annotated[Path, typer.Option("--lock", help="The lock, relative to the project folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON to standard output.")]

LOCK = Path(LOCK_NAME)


def mirror_in(directory: Path | None) -> Mirror:
    """Return the mirror that is meant."""
    return Mirror((directory or mirror_directory()).absolute())


def lock_of(mirror: Mirror, which: str) -> Lock:
    """Return the lock that is meant: the path of a lock file, or the id of a bundle, lock or release of the mirror.

    Raises:
        MirrorError: there is none.
    """
    path = PROJECT / which
    if path.is_file():
        return locking.read(path)
    if which == LOCK_NAME:
        raise MirrorError(f"there is no {which} in {PROJECT}", "make it: rtinfra mirror lock")
    return release.read_lock(mirror, release.choose(mirror.state(), which))


def show(data: Mapping[str, Any], text: str, as_json: bool) -> None:
    """Print a result, for people or for programs."""
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        Console(soft_wrap=True, highlight=False).print(text, markup=False)
