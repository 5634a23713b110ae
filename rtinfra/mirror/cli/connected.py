"""Commands of the connected side: lock, fetch, check, bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pyinfra.api.exceptions import InventoryError

from rtinfra.commands import EXIT_FAILED, messages, plain_errors
from rtinfra.images import LocalStore
from rtinfra.inventory import source
from rtinfra.local.archive import discover
from rtinfra.local.progress import ConsoleReporter, megabytes, seconds
from rtinfra.mirror import completeness as checking
from rtinfra.mirror import lock as locking
from rtinfra.mirror import trust
from rtinfra.mirror.bundle import PART_SIZE, make_bundle
from rtinfra.mirror.cli.common import LOCK, DirectoryOption, JsonOption, LockOption, app, mirror_in, show
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.fetch import fetch
from rtinfra.mirror.installer import checking_lines
from rtinfra.mirror.model import Lock
from rtinfra.mirror.required import load_required, load_settings
from rtinfra.paths import PROJECT, lab_inventory

_KEPT = "Nothing is half done; the same command goes on where this one ended."
_MEGABYTE = 1000**2

_Inventory = Annotated[Path, typer.Option(help="Inventory file or directory, relative to the project folder.")]

_HOSTS = Path("inventory")


@app.command("lock")
def lock_mirror(
    inventory: _Inventory = _HOSTS,
    lock_file: LockOption = LOCK,
    directory: DirectoryOption = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Date the lock today even when nothing changed: it is good for longer.")
    ] = False,
    advisories: Annotated[
        list[Path] | None,
        typer.Option(
            "--advisories",
            help="A .zip file of advisories in the OSV format, for `rtinfra mirror audit` on the closed side. May be"
            " given several times; without it none are carried.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find out what the hosts of the inventory install today, and write it down. Needs a connection.

    Nothing has changed upstream: the file stays as it is, byte for byte. Comments you wrote into it stay.

    Examples:

        rtinfra mirror lock

        rtinfra mirror lock --inventory inventory/hosts.yaml --directory /srv/mirror

        rtinfra mirror lock --advisories PyPI.zip --advisories Go.zip --advisories Debian.zip
    """
    with plain_errors(_KEPT):
        store = LocalStore()
        required = load_required(PROJECT, _place(inventory), store)
        found = locking.lock(
            required,
            PROJECT / lock_file,
            mirror_in(directory),
            locking.Sources(
                discover(suite=required.settings.suite, for_guests=False), store, PROJECT, tuple(advisories or ())
            ),
            ConsoleReporter(),
            renew=renew,
        )
        counts = _counts(found.lock)
        done = "unchanged" if not found.changed else "written" if found.before is None else "renewed"
        show(
            {"result": done, "lock": str(found.path), **counts},
            f"{found.path.name} {done}: {_counted(counts)}; good until {found.lock.valid_until:%Y-%m-%d}"
            "\nNext: rtinfra mirror fetch",
            as_json,
        )


@app.command("fetch")
def fetch_mirror(lock_file: LockOption = LOCK, directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """Bring the packages of the lock that are not here yet, by apt as it is configured here. Needs a connection.

    What has arrived of a file is kept when this is interrupted. Every file is compared with the lock.

    Examples:

        rtinfra mirror fetch

        rtinfra mirror fetch --directory /srv/mirror
    """
    with plain_errors("What has arrived is kept; the same command goes on from there."):
        lock = locking.read(PROJECT / lock_file)
        done = fetch(lock, mirror_in(directory), discover(suite=lock.suite, for_guests=False), ConsoleReporter())
        text = f"{done.files} packages fetched, {megabytes(done.bytes)} in {seconds(done.seconds)}"
        if not done.files:
            text = f"nothing to fetch: all {done.there} contents are here"
        show(asdict(done), f"{text}\nNext: rtinfra mirror check", as_json)


@app.command("check")
def check_mirror(
    inventory: _Inventory = _HOSTS,
    lock_file: LockOption = LOCK,
    directory: DirectoryOption = None,
    with_bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Also make a bare Debian from the mirror alone (a minute or two).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that the lock is complete: nothing in it needs anything that is not in it, and all of it is here.

    Examples:

        rtinfra mirror check

        rtinfra mirror check --bootstrap --json
    """
    with plain_errors("A check changes nothing."):
        lock = locking.read(PROJECT / lock_file)
        settings = load_settings(PROJECT, _place(inventory))
        report = ConsoleReporter()
        found = checking.check(lock, mirror_in(directory), settings, report, with_bootstrap=with_bootstrap)
        show(found.to_json(), "\n".join(_told(found)), as_json)
        if not found.ok:
            raise typer.Exit(EXIT_FAILED)


@app.command("bundle")
def bundle_mirror(
    base: Annotated[
        str | None,
        typer.Option(help="Id of an earlier bundle made here: only what that one did not bring. Without: everything."),
    ] = None,
    part_mb: Annotated[int, typer.Option(min=1, help="Largest size of one file, in MB.")] = PART_SIZE // _MEGABYTE,
    lock_file: LockOption = LOCK,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pack what the lock holds into a signed folder that can be carried: on a USB stick, for example.

    Examples:

        rtinfra mirror bundle

        rtinfra mirror bundle --base 20261126T080000Z-0123456789abcdef --part-mb 2000
    """
    with plain_errors("No bundle was made; the same command starts over."):
        lock = locking.read(PROJECT / lock_file)
        made = make_bundle(mirror_in(directory), lock, base, part_size=part_mb * _MEGABYTE, report=ConsoleReporter())
        size = sum(part.size for part in made.manifest.parts)
        carried = len(made.manifest.carried)
        lines = "\n".join(f"    {line}" for line in checking_lines(made.number))
        text = (
            f"bundle {made.manifest.id}: {carried} of {len(made.manifest.contents)} contents, {megabytes(size)}"
            f" in {len(made.manifest.parts)} parts, good until {made.manifest.valid_until:%Y-%m-%d}\n"
            f"Carry this folder in:      {made.folder}\n"
            "On paper or by telephone, never on the same stick, tell the other side what to type in a copy of it:\n"
            f"{lines}\n"
            f"    sh install.sh --key {made.number}"
        )
        for notice in filter(None, [trust.ending(made.signer.keys, datetime.now(UTC))]):
            messages().print(f"Warning: {notice}", style="yellow")
        data = {
            "id": made.manifest.id,
            "base": made.manifest.base,
            "folder": str(made.folder),
            "fingerprint": made.fingerprint,
            "number": made.number,
            "carried": carried,
            "bytes": size,
            "parts": len(made.manifest.parts),
        }
        show(data, text, as_json)


def _place(inventory: Path) -> Path:
    place = PROJECT / inventory
    if not place.is_dir():
        return place
    try:
        return source(place, lab_inventory())
    except InventoryError as error:
        raise MirrorError(str(error), "then run the same command again") from error


def _counts(lock: Lock) -> dict[str, int]:
    return {
        "packages": len(lock.packages),
        "images": len(lock.images),
        "wheels": len(lock.wheels),
        "bytes": sum(content.size for content in lock.contents()),
    }


def _counted(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['packages']} packages, {counts['images']} images, {counts['wheels']} wheels,"
        f" {megabytes(counts['bytes'])}"
    )


def _told(found: checking.Checked) -> list[str]:
    lines = [f"broken: {broken}" for broken in found.broken]
    if found.wheels_missing:
        lines.append(f"wheels are missing: {found.wheels_missing}")
    if found.not_in_pool:
        first = ", ".join(found.not_in_pool[:3])
        lines.append(f"{len(found.not_in_pool)} contents are not here yet ({first}, ...): rtinfra mirror fetch")
    if found.ok:
        lines.append(
            f"complete: {found.packages} packages and {found.wheels} wheels need nothing that is not in the lock"
        )
    if found.bootstrap_seconds is not None:
        lines.append(f"a bare Debian was made from the mirror alone in {seconds(found.bootstrap_seconds)}")
    return lines
