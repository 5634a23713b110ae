"""Commands of the closed side: take a bundle in, serve it, go back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rtinfra.commands import messages, plain_errors
from rtinfra.local.progress import ConsoleReporter, megabytes
from rtinfra.mirror import importer, release
from rtinfra.mirror.cli.common import DirectoryOption, JsonOption, app, mirror_in, show

_SERVED = "What is served has not changed; the same command goes on where this one ended."
_Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.", show_default=False)]
_Key = Annotated[
    str | None,
    typer.Option(
        help="Number of the key that signed the bundle (64 digits, told by whoever made it); needed before the first"
        " import."
    ),
]


@app.command("verify")
def verify_bundle(
    folder: _Folder, key: _Key = None, directory: DirectoryOption = None, as_json: JsonOption = False
) -> None:
    """Check a bundle to its last byte: signature, time, order, every part, every content. Changes nothing.

    Examples:

        rtinfra mirror verify /media/usb/20261126T080000Z-0123456789abcdef

        rtinfra mirror verify /media/usb/BUNDLE --key 9f86d0... --json
    """
    with plain_errors("Nothing was changed."):
        found = importer.verify_bundle(mirror_in(directory), folder, told=key, report=ConsoleReporter())
        for warning in found.warnings:
            messages().print(f"Warning: {warning}", style="yellow")
        what = "is in this mirror already" if found.state == "known" else "can be imported"
        show(
            found.to_json(),
            f"bundle {found.id} is whole and {what}: {found.contents} contents, {found.added} of them new,"
            f" {megabytes(found.added_bytes)}\nNext: rtinfra mirror import {folder}",
            as_json,
        )


@app.command("import")
def import_bundle(
    folder: _Folder, key: _Key = None, directory: DirectoryOption = None, as_json: JsonOption = False
) -> None:
    """Take a bundle into this mirror. What is served stays as it is until `rtinfra mirror publish`.

    Everything is checked before anything is changed. Cut off, even by a power cut, the same command goes on.

    Examples:

        rtinfra mirror import /media/usb/20261126T080000Z-0123456789abcdef

        rtinfra mirror import /media/usb/BUNDLE --key 9f86d0...
    """
    with plain_errors(_SERVED):
        done = importer.import_bundle(mirror_in(directory), folder, told=key, report=ConsoleReporter())
        for warning in done.warnings:
            messages().print(f"Warning: {warning}", style="yellow")
        text = f"bundle {done.id} imported: {done.added} contents added, {megabytes(done.added_bytes)}"
        if done.state == "known":
            text = f"bundle {done.id} had been imported before; nothing to do"
        show(done.to_json(), f"{text}\nNext: rtinfra mirror publish", as_json)


@app.command("publish")
def publish(
    wanted: Annotated[
        str | None, typer.Argument(help="Id of a bundle or release; the bundle imported last when left away.")
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Even if it is live: sign it under a newer date, so that it is good for longer."),
    ] = False,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve what was imported: made aside, complete and signed, then switched to in one step.

    Examples:

        rtinfra mirror publish

        rtinfra mirror publish --again
    """
    with plain_errors(_SERVED):
        done = release.publish(mirror_in(directory), wanted, now=_now(), report=ConsoleReporter(), again=again)
        _show(done, as_json)


@app.command("rollback")
def rollback(
    wanted: Annotated[
        str | None,
        typer.Argument(help="Id of an earlier bundle or release; what was live before when left away."),
    ] = None,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve earlier content again, under a newer date: hosts ignore an index that is older than theirs.

    Hosts follow at their next deploy: their packages go back to the versions of that content.

    Examples:

        rtinfra mirror rollback

        rtinfra mirror rollback 20261126T080000Z-0123456789abcdef
    """
    with plain_errors(_SERVED):
        done = release.rollback(mirror_in(directory), wanted, now=_now(), report=ConsoleReporter())
        _show(done, as_json)


def _show(done: release.Publication, as_json: bool) -> None:
    found = done.release
    if notice := release.expiry_notice(found, _now()):
        messages().print(f"Warning: {notice}", style="yellow")
    what = "is live" if done.changed else "was live already"
    text = (
        f"release {found.name} {what}: good until {found.valid_until:%Y-%m-%d},"
        f" repository signed by {found.fingerprint}\nNext: pyinfra inventory deploy.py (hosts follow)"
    )
    show({**found.to_json(), "changed": done.changed}, text, as_json)


def _now() -> datetime:
    return datetime.now(UTC)
