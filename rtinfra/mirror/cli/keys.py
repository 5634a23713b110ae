"""``rtinfra mirror keys``: what signs, changing it in time, and giving up what was stolen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from rtinfra.commands import messages, plain_errors
from rtinfra.local.progress import ConsoleReporter
from rtinfra.mirror import bundle_keys, keys, trust
from rtinfra.mirror.cli.common import DirectoryOption, JsonOption, app, mirror_in, show
from rtinfra.mirror.keys import Changed, KeyState, Kind
from rtinfra.mirror.store import Mirror

_OVERLAP_DAYS = bundle_keys.OVERLAP.days
_PUBLISH = "rtinfra mirror publish --again, then pyinfra inventory deploy.py (hosts get the keys)"

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Keys of the mirror: that which signs bundles (where bundles are made), that which signs the repository (on"
    " the mirror), and those that are refused (both). docs/offline.md, Keys, says when to do what.",
)
app.add_typer(group, name="keys")


@group.command("list")
def list_keys(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """Show every key: who signs, until when, what is refused. Changes nothing.

    Examples:

        rtinfra mirror keys list

        rtinfra mirror keys list --directory /srv/rtinfra-mirror --json
    """
    with plain_errors("Nothing was changed."):
        mirror, now = mirror_in(directory), datetime.now(UTC)
        found = keys.listed(mirror, now)
        for notice in _notices(mirror, now):
            messages().print(f"Warning: {notice}", style="yellow")
        text = "\n".join(line for one in found for line in _lines(one)) or "there is no key yet"
        show({"keys": [one.to_json() for one in found]}, text, as_json)


@group.command("rotate")
def rotate(
    kind: Annotated[Kind, typer.Argument(help="The key that signs what.", show_default=False)],
    overlap_days: Annotated[
        int,
        typer.Option(min=0, max=730, help="For how long the present key is taken beside the new one. 0: not at all."),
    ] = _OVERLAP_DAYS,
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new key that takes over from the present one, in time and with an overlap.

    bundle: in the first half of the overlap the present key still signs, and each bundle makes the new one known; in
    the second half the new one signs. Nobody has to be told anything, if one bundle is imported in the first half.

    repository: both sign from the next publication on; hosts get the new key with the next deploy.

    Examples:

        rtinfra mirror keys rotate bundle

        rtinfra mirror keys rotate repository --overlap-days 30 --directory /srv/rtinfra-mirror
    """
    with plain_errors("The key was changed, or not at all: rtinfra mirror keys list."):
        overlap = timedelta(days=overlap_days)
        done = keys.rotate(mirror_in(directory), kind, overlap, datetime.now(UTC), ConsoleReporter())
        if kind == "repository":
            both = f"signs, beside the present one for {overlap_days} days" if overlap_days else "signs"
            text = f"the new key {done.fingerprint} {both}\nNext: {_PUBLISH}"
        else:
            text = _bundle_text(done)
        show(done.to_json(), text, as_json)


@group.command("revoke")
def revoke(
    key: Annotated[
        str, typer.Argument(help="Its fingerprint, as `rtinfra mirror keys list` shows it.", show_default=False)
    ],
    directory: DirectoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give up a key that was stolen or lost: refused here at once and for good, and wherever bundles of here are taken.

    Type it where bundles are made, which makes a new key; and on the mirror, which need not wait for a bundle then.

    Examples:

        rtinfra mirror keys revoke SHA256:TkVDdIBaZdEgdVWYBqOCadRGXyjZW5JYwtVx1cJ49oE

        rtinfra mirror keys revoke 1D134A429097ED34064841F94126760AE2B9606D --directory /srv/rtinfra-mirror
    """
    with plain_errors("The key is refused already; the same command goes on where this one ended."):
        done = keys.revoke(mirror_in(directory), key, datetime.now(UTC), ConsoleReporter())
        if done.kind == "repository":
            text = f"the key {done.refused} is refused from now on" + (
                f"\nNext: {_PUBLISH}" if done.fingerprint else ""
            )
        else:
            text = f"the key {done.refused} is refused from now on\n{_bundle_text(done)}"
        show(done.to_json(), text, as_json)


def _bundle_text(done: Changed) -> str:
    if done.fingerprint is None:
        return (
            "Next: have a bundle made with another key, where bundles are made; import it with --key and the number"
            " that you are told"
        )
    when = f"signs from {done.since:%Y-%m-%d} on" if done.since else "signs from now on"
    told = (
        "Next: make a bundle and have it imported before that day; nobody has to be told anything"
        if done.since
        else "Next: rtinfra mirror bundle; tell the closed side this number on another way, to be given with --key"
    )
    return f"the key {done.fingerprint} {when}, until {done.until:%Y-%m-%d}\nits number: {done.number}\n{told}"


def _notices(mirror: Mirror, now: datetime) -> list[str]:
    found = [trust.ending(known, now) for known in (bundle_keys.own_keys(mirror), trust.pinned(mirror))]
    return list(dict.fromkeys(notice for notice in found if notice))


def _lines(key: KeyState) -> Iterator[str]:
    """One line for a key, and one for its number; neither is ever cut or folded, for they are copied."""
    words = [f"from {key.since:%Y-%m-%d}" if key.since else "", f"until {key.until:%Y-%m-%d}" if key.until else ""]
    yield f"{key.kind:<10}  {key.state:<11}  {' '.join(filter(None, words)):<32}  {key.fingerprint}"
    if key.number:
        yield f"{'':<10}  {'':<11}  {'number':<32}  {key.number}"
