"""All keys of a mirror together: of bundles, of the repository, and those that are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from rtinfra.config.types import Settings
from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, gpg, trust
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Instant
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.trust import RefusedKey, TrustedKey

Kind = Literal["bundle", "repository"]

_REPOSITORY: Final = re.compile(r"[0-9A-F]{40}")
_BUNDLE: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class KeyState(Settings):
    """A key as `rtinfra mirror keys list` shows it."""

    kind: Kind
    fingerprint: str
    number: str | None
    """What is told to the closed side; None for keys that are not told."""
    state: Literal["signs", "signs later", "trusted", "ended", "refused"]
    since: Instant | date | None
    """When it signs from, or since when it is refused; None: from the start."""
    until: Instant | None
    """When it ends; None: it does not."""


class Changed(Settings):
    """The outcome of a change of keys."""

    kind: Kind
    refused: str | None
    """Fingerprint of the key that was given up."""
    fingerprint: str | None
    """Of the key that signs instead, or will; None where nothing is signed with keys of that kind."""
    number: str | None
    since: Instant | None
    """When it begins to sign; None: now."""
    until: Instant | None


def listed(mirror: Mirror, now: datetime) -> tuple[KeyState, ...]:
    """Return every key that is known here. Nothing is changed.

    Raises:
        MirrorError: a list of keys, or the folder of the repository's key, is damaged.
    """
    return (*_bundle_keys(mirror, now), *_repository_keys(mirror, now), *_refused_keys(mirror))


def _bundle_keys(mirror: Mirror, now: datetime) -> Iterator[KeyState]:
    own = bundle_keys.own_keys(mirror)
    signs = bundle_keys.signs_now(own, now)
    here = {entry.key for entry in own}
    for entry in (*own, *(entry for entry in trust.pinned(mirror) if entry.key not in here)):
        state: Literal["signs", "signs later", "trusted", "ended"] = "trusted"
        if entry.has_ended(now):
            state = "ended"
        elif entry == signs:
            state = "signs"
        elif entry in own and entry.signs_from is not None and entry.signs_from > now:
            state = "signs later"
        yield _shown(entry, state)


def _shown(entry: TrustedKey, state: Literal["signs", "signs later", "trusted", "ended"]) -> KeyState:
    return KeyState(
        kind="bundle",
        fingerprint=entry.key.fingerprint,
        number=entry.key.number,
        state=state,
        since=entry.signs_from,
        until=entry.until,
    )


def _repository_keys(mirror: Mirror, now: datetime) -> Iterator[KeyState]:
    home = gpg.home_of(mirror.root / "keys")
    for fingerprint, end in (gpg.known_keys(home) if home else {}).items():
        state: Literal["signs", "ended"] = "signs" if end is None or end > now else "ended"
        yield KeyState(kind="repository", fingerprint=fingerprint, number=None, state=state, since=None, until=end)


def _refused_keys(mirror: Mirror) -> Iterator[KeyState]:
    for entry in trust.refused_keys(mirror):
        yield KeyState(
            kind=entry.kind,
            fingerprint=entry.fingerprint,
            number=None,
            state="refused",
            since=entry.since,
            until=None,
        )


def rotate(mirror: Mirror, kind: Kind, overlap: timedelta, now: datetime, report: Reporter) -> Changed:
    """Make a new key of a kind; for `overlap` the present one is taken beside it.

    Raises:
        MirrorError: nothing is signed here with keys of that kind, or a change is under way.
    """
    if kind == "bundle":
        if not bundle_keys.own_keys(mirror):
            raise MirrorError(
                f"no bundle has been made in {mirror.root}: there is no key to change",
                "type it where bundles are made; with --directory if their folder is another one",
            )
        new = bundle_keys.rotate(mirror, overlap, now, report)
        return _changed_bundle(new, None, now)
    if gpg.home_of(mirror.root / "keys") is None:
        raise MirrorError(
            f"nothing has been published from {mirror.root}: there is no key to change",
            "type it on the mirror; with --directory if its folder is another one",
        )
    with mirror.working("changing keys"):
        key = gpg.rotate(mirror.keys, overlap, now, report)
    return _changed_repository(key.fingerprint, None)


def revoke(mirror: Mirror, which: str, now: datetime, report: Reporter) -> Changed:
    """Refuse a key from now on, and have another one sign where it did.

    Args:
        mirror: where bundles are made, or where they are imported and published.
        which: fingerprint of the key (SHA256:..., or 40 hex digits for a repository's), or number of a key known here.
        now: the time.
        report: told what happens.

    Raises:
        MirrorError: `which` is neither.
    """
    if _REPOSITORY.fullmatch(which.upper()):
        fingerprint = which.upper()
        with mirror.working("changing keys"):
            # First of all: whatever is cut off after this, the key is not taken any more.
            trust.refuse(mirror, (RefusedKey("repository", fingerprint, now.astimezone(UTC).date()),))
            key = gpg.revoke(mirror.keys, fingerprint, now, report)
        return _changed_repository(key.fingerprint if key else None, fingerprint)
    fingerprint = which
    for entry in (*bundle_keys.own_keys(mirror), *trust.pinned(mirror)):
        if entry.key.is_called(which):
            fingerprint = entry.key.fingerprint
    if not _BUNDLE.fullmatch(fingerprint):
        raise MirrorError(
            f"{which} is no fingerprint, and no number of a key that is known here",
            "name it as `rtinfra mirror keys list` shows it: SHA256:..., or 40 digits for the repository's key",
        )
    return _changed_bundle(bundle_keys.revoke(mirror, fingerprint, now, report), fingerprint, now)


def _changed_bundle(new: TrustedKey | None, refused: str | None, now: datetime) -> Changed:
    since = new.signs_from if new is not None and new.signs_from is not None and new.signs_from > now else None
    return Changed(
        kind="bundle",
        refused=refused,
        fingerprint=new.key.fingerprint if new else None,
        number=new.key.number if new else None,
        since=since,
        until=new.until if new else None,
    )


def _changed_repository(fingerprint: str | None, refused: str | None) -> Changed:
    return Changed(kind="repository", refused=refused, fingerprint=fingerprint, number=None, since=None, until=None)
