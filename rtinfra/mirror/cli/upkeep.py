"""Commands of both sides: what differs, is everything whole, and making room."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rtinfra.commands import EXIT_FAILED, plain_errors
from rtinfra.images import LocalStore
from rtinfra.local.progress import ConsoleReporter, megabytes
from rtinfra.mirror import audit as auditing
from rtinfra.mirror import lock as locking
from rtinfra.mirror import upkeep, weaknesses
from rtinfra.mirror.cli.common import LOCK, DirectoryOption, JsonOption, LockOption, app, lock_of, mirror_in, show
from rtinfra.mirror.diff import diff_locks
from rtinfra.mirror.errors import MirrorError
from rtinfra.paths import PROJECT

_Id = "a lock file, or the id of a bundle, lock or release"


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help=f"Earlier: {_Id}.", show_default=False)],
    after: Annotated[str, typer.Argument(help=f"Later: {_Id}.")] = str(LOCK),
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what one lock has and another has not: packages with their versions, images, wheels, files, sizes.

    Examples:

        rtinfra mirror diff 20261126T080000Z-0123456789abcdef

        rtinfra mirror diff RELEASE OTHER_RELEASE --json
    """
    with plain_errors("Nothing was changed."):
        mirror = mirror_in(directory)
        found = diff_locks(lock_of(mirror, before), lock_of(mirror, after))
        show(found.to_json(), found.text().rstrip(), as_json)


@app.command("audit")
def audit(
    advisories: Annotated[
        list[Path] | None,
        typer.Option(
            "--advisories",
            help="Also hold all packages against advisories in the OSV format: a .json file, a .zip file of them (the"
            " `all.zip` of an ecosystem), or a folder of both. May be given several times. Default: those that the lock"
            " brought (`rtinfra mirror lock --advisories`).",
            show_default=False,
        ),
    ] = None,
    lock_file: LockOption = LOCK,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read everything again: is the pool what the locks say, and the live release what was published? Changes nothing.

    With advisories also: has a package a known weakness? Python, Go and Debian packages of the lock, of the live
    release, of the tool itself and of the images that are built here. Needs no network. What audit-waivers.yaml
    waives is shown and does not count.

    Exit 1 when something is wrong.

    Examples:

        rtinfra mirror audit

        rtinfra mirror audit --directory /srv/rtinfra-mirror --json

        rtinfra mirror audit --advisories PyPI.zip --advisories Go.zip --advisories Debian.zip
    """
    with plain_errors("Nothing was changed."):
        mirror, now, report = mirror_in(directory), datetime.now(UTC), ConsoleReporter()
        found, held = auditing.audit(mirror, now=now, report=report), None
        weak = weaknesses.audit(PROJECT, PROJECT / lock_file, mirror, LocalStore(), advisories or (), now, report)
        if weak is not None:
            found, held = (*found, *weak.findings), weak.summary
        lines = [f"{one.severity}: {one.file}: {one.problem}\n  Next step: {one.next_step}" for one in found]
        show(
            {"findings": [one.to_json() for one in found], "held": held},
            "\n".join([*(lines or ["everything is as it should be"]), *([held] if held else [])]),
            as_json,
        )
        if any(one.severity == "error" for one in found):
            raise typer.Exit(EXIT_FAILED)


@app.command("gc")
def collect(
    keep: Annotated[
        int, typer.Option(min=1, help="How many of the last releases and bundles stay, whatever their age.")
    ] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    lock_file: LockOption = LOCK,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove contents that nobody can need any more. What a host may still ask for stays until it has expired.

    Examples:

        rtinfra mirror gc --dry-run

        rtinfra mirror gc --keep 3
    """
    with plain_errors("What nobody needs and is still there goes with the next call."):
        path = PROJECT / lock_file
        found = upkeep.collect(
            mirror_in(directory),
            keep=keep,
            locks=[locking.read(path)] if path.is_file() else [],
            now=datetime.now(UTC),
            dry_run=dry_run,
            report=ConsoleReporter(),
        )
        verb = "would go" if dry_run else "removed"
        text = f"{len(found.releases)} releases and {len(found.contents)} contents {verb}, {megabytes(found.freed)}"
        lines = [*(f"release {name}" for name in found.releases), *(content.name for content in found.contents), text]
        show(found.to_json(), "\n".join(lines), as_json)


@app.command("remove")
def remove(
    releases: Annotated[list[str] | None, typer.Option("--release", help="Name of a release that is not live.")] = None,
    bundles: Annotated[list[str] | None, typer.Option("--bundle", help="Folder name of a bundle made here.")] = None,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old releases, and bundles made here. Their contents stay until `rtinfra mirror gc`.

    Examples:

        rtinfra mirror remove --bundle 20261126T080000Z-0123456789abcdef

        rtinfra mirror remove --release 20261126T080000Z-0123456789abcdef
    """
    with plain_errors("The same command goes on where this one ended."):
        if not releases and not bundles:
            raise MirrorError("nothing to remove was named", "name something with --release or --bundle")
        gone = upkeep.remove(
            mirror_in(directory), releases=releases or (), bundles=bundles or (), report=ConsoleReporter()
        )
        show({"removed": list(gone)}, f"removed: {', '.join(gone)}", as_json)
