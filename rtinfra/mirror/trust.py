"""Which keys sign bundles, and which keys are refused for good: two short lists that travel in every bundle.

`trusted_keys` has one line for each key whose bundles are to be taken, in ssh-keygen's format of trusted keys with the
times between which a key signs. A closed network takes the list of each bundle that it imports for its own: so it
learns a new key while the old one still signs, and forgets the old one afterwards. `refused_keys` only ever grows: what
was refused once, anywhere on the way, stays refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from rtinfra.local.files import replace_file
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.reading import read_plain
from rtinfra.mirror.signing import BLOB, IDENTITY, NAMESPACE, PublicKey, other_key
from rtinfra.mirror.store import Mirror

#: Names of the lists in a bundle.
TRUSTED_NAME: Final = "trusted_keys"
REFUSED_NAME: Final = "refused_keys"
#: Most bytes of a list: some hundred keys.
MOST: Final = 64 << 10
#: How long before its end a key is warned about.
WARN: Final = timedelta(days=90)

# Below the folder of the mirror: what is trusted since the last import.
_PINNED_NAME: Final = "trusted_bundle_key"
# As ssh-keygen reads it: year to second, UTC.
_MOMENT: Final = "%Y%m%d%H%M%S"
_TRUSTED_LINE: Final = re.compile(
    rf'{IDENTITY} namespaces="{NAMESPACE}"(?:,valid-after="(\d{{14}})Z")?(?:,valid-before="(\d{{14}})Z")?'
    rf" ssh-ed25519 ({BLOB})"
)
# First line of the list: a bundle has no empty files, and people see what it is.
_REFUSED_TITLE: Final = "# Keys that nothing is taken from any more: kind, fingerprint, since when."
_REFUSED_LINE: Final = re.compile(
    r"(?:(bundle) (SHA256:[A-Za-z0-9+/]{43})|(repository) ([0-9A-F]{40})) (\d{4}-\d{2}-\d{2})"
)


@dataclass(frozen=True)
class TrustedKey:
    """A key whose bundles are taken."""

    key: PublicKey
    signs_from: datetime | None = None
    """When bundles begin to be signed with it; None: from the start."""
    until: datetime | None = None
    """From then on its bundles are refused; None: never, a key of before keys had an end."""

    @property
    def line(self) -> str:
        """Its line in a list."""
        after = f',valid-after="{self.signs_from:{_MOMENT}}Z"' if self.signs_from else ""
        before = f',valid-before="{self.until:{_MOMENT}}Z"' if self.until else ""
        return f'{IDENTITY} namespaces="{NAMESPACE}"{after}{before} ssh-ed25519 {self.key.blob}\n'

    def has_ended(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.until is not None and self.until <= now

    def notice(self, now: datetime) -> str | None:
        """Return the warning that it ends soon; None while there is time."""
        if self.until is None or self.until - now > WARN:
            return None
        return (
            f"the key {self.key.fingerprint} ends at {self.until:%Y-%m-%d %H:%M} UTC and its bundles are refused then;"
            " where bundles are made: rtinfra mirror keys rotate bundle, then a new bundle in time"
        )


def ending(keys: tuple[TrustedKey, ...], now: datetime) -> str | None:
    """Return the warning that the last of some keys ends soon; None while there is time, or where there is none."""
    notices = [entry.notice(now) for entry in keys]
    return None if None in notices else next((notice for notice in reversed(notices) if notice), None)


@dataclass(frozen=True, order=True)
class RefusedKey:
    """A key that nothing is taken from any more."""

    kind: Literal["bundle", "repository"]
    fingerprint: str
    """As ssh-keygen shows it (bundle), or 40 hex digits as gpg does (repository)."""
    since: date

    @property
    def line(self) -> str:
        """Its line in a list."""
        return f"{self.kind} {self.fingerprint} {self.since:%Y-%m-%d}\n"


def parse_trusted(data: bytes, shown: str) -> tuple[TrustedKey, ...]:
    """Read a list of trusted keys; every line must be as `TrustedKey.line` writes it.

    Raises:
        MirrorError: naming the line.
    """
    found = []
    for number, line in enumerate(_lines(data), 1):
        match = _TRUSTED_LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError
            found.append(TrustedKey(PublicKey(match[3]), _moment(match[1]), _moment(match[2])))
        except ValueError as error:
            raise _wrong(shown, number, "is no trusted key with nothing else") from error
    if not found or len({entry.key for entry in found}) != len(found):
        raise MirrorError(f"{shown} lists no key, or one twice", "carry it again from where it was made")
    return tuple(found)


def parse_refused(data: bytes, shown: str) -> tuple[RefusedKey, ...]:
    """Read a list of refused keys.

    Raises:
        MirrorError: naming the line.
    """
    lines = _lines(data)
    if lines[:1] != [_REFUSED_TITLE]:
        raise _wrong(shown, 1, f"is not: {_REFUSED_TITLE}")
    found: list[RefusedKey] = []
    for number, line in enumerate(lines[1:], 2):
        match = _REFUSED_LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError
            since = date.fromisoformat(match[5])
        except ValueError as error:
            raise _wrong(shown, number, "is no refused key") from error
        if match[1]:
            found.append(RefusedKey("bundle", match[2], since))
        else:
            found.append(RefusedKey("repository", match[4], since))
    return tuple(found)


def trusted_text(keys: tuple[TrustedKey, ...]) -> bytes:
    """Return the list of trusted keys as a file."""
    return "".join(entry.line for entry in keys).encode()


def refused_text(keys: tuple[RefusedKey, ...]) -> bytes:
    """Return the list of refused keys as a file: each once, as of when it was refused first."""
    first: dict[str, RefusedKey] = {}
    for entry in sorted(keys, key=lambda entry: entry.since):
        first.setdefault(entry.fingerprint, entry)
    return (f"{_REFUSED_TITLE}\n" + "".join(entry.line for entry in sorted(first.values()))).encode()


def pinned(mirror: Mirror) -> tuple[TrustedKey, ...]:
    """Return the keys that are trusted since the last import; none before the first.

    Raises:
        MirrorError: the file has anything else in it.
    """
    path = mirror.root / _PINNED_NAME
    return parse_trusted(read_plain(path, MOST), str(path)) if path.exists() else ()


def refused_keys(mirror: Mirror) -> tuple[RefusedKey, ...]:
    """Return the keys that are refused here.

    Raises:
        MirrorError: the file has anything else in it.
    """
    path = _refused_path(mirror)
    return parse_refused(read_plain(path, MOST), str(path)) if path.exists() else ()


def refuse(mirror: Mirror, keys: tuple[RefusedKey, ...]) -> None:
    """Refuse keys from now on, beside those that are refused already."""
    before = refused_keys(mirror)
    after = refused_text((*before, *keys))
    if after != refused_text(before):
        replace_file(mirror.keys / REFUSED_NAME, after)


def _refused_path(mirror: Mirror) -> Path:
    # Beside the keys, so that it is in their backup; not `mirror.keys`, which makes the folder.
    return mirror.root / "keys" / REFUSED_NAME


def accepted_signer(
    mirror: Mirror, brought: PublicKey, told: str | None, own: tuple[TrustedKey, ...], now: datetime
) -> PublicKey:
    """Return the key that must have signed a bundle which brings the key `brought`.

    It counts when it is the one that the operator was told of; otherwise when it is trusted since an earlier import;
    otherwise, where bundles are made, when it is one of the mirror's `own`.

    Raises:
        MirrorError: it does not count, has ended, or is refused.
    """
    require_not_refused(brought, refused_keys(mirror))
    if told is not None:
        if not brought.is_called(told):
            raise MirrorError(
                f"the bundle brings the key {brought.fingerprint}, but the key given is {told}",
                "compare it with the number that `rtinfra mirror bundle` showed where the bundle was made;"
                " when it differs, do not use this bundle",
            )
        return brought
    known = pinned(mirror) or own
    if not known:
        raise MirrorError(
            f"no key is trusted here yet; the bundle brings the key {brought.fingerprint}",
            "ask whoever made the bundle for the number of its key, on another way than the bundle itself (by"
            " telephone), then repeat with --key and that number",
        )
    found = next((entry for entry in known if entry.key == brought), None)
    if found is None:
        raise other_key("the bundle", brought.fingerprint, ", ".join(entry.key.fingerprint for entry in known))
    _require_time(found, now)
    return brought


def require_not_refused(key: PublicKey, refused: tuple[RefusedKey, ...]) -> None:
    """Refuse what a refused key signed, whatever the operator says.

    Raises:
        MirrorError: it is refused; the message says since when.
    """
    for entry in refused:
        if (entry.kind, entry.fingerprint) == ("bundle", key.fingerprint):
            raise MirrorError(
                f"the bundle is signed by the key {key.fingerprint}, which is refused since {entry.since}: it was"
                " reported as stolen or lost",
                "do not use this bundle; have one made with the present key, and find out who made this one",
            )


def _require_time(entry: TrustedKey, now: datetime) -> None:
    if entry.has_ended(now):
        raise MirrorError(
            f"the key {entry.key.fingerprint} has ended at {entry.until:%Y-%m-%d %H:%M} UTC; it is now"
            f" {now:%Y-%m-%d %H:%M} UTC",
            "where bundles are made: rtinfra mirror keys rotate bundle, then make the bundle again; tell the number of"
            " the new key on another way, to be given with --key",
        )


@dataclass(frozen=True)
class Lists:
    """The two lists of a bundle, as importing it leaves them here."""

    trusted: tuple[TrustedKey, ...]
    refused: tuple[RefusedKey, ...]


def merged(
    mirror: Mirror, signer: PublicKey, trusted: tuple[TrustedKey, ...], refused: tuple[RefusedKey, ...], now: datetime
) -> Lists:
    """Return what is trusted and refused here after importing a bundle that `signer` signed, with these lists in it.

    Raises:
        MirrorError: by its own lists the bundle is not to be taken.
    """
    every = (*refused_keys(mirror), *refused)
    require_not_refused(signer, every)
    gone = {entry.fingerprint for entry in every}
    ends = {entry.key: entry.until for entry in pinned(mirror)}
    kept = tuple(
        replace(entry, until=_earlier(entry.until, ends.get(entry.key)))
        for entry in trusted
        if entry.key.fingerprint not in gone
    )
    own = next((entry for entry in kept if entry.key == signer), None)
    if own is None:
        raise MirrorError(
            f"the bundle does not list the key {signer.fingerprint}, which signed it, in its {TRUSTED_NAME}",
            "do not use this bundle; have it made again",
        )
    _require_time(own, now)
    return Lists(kept, every)


def take_over(mirror: Mirror, lists: Lists) -> None:
    """Trust and refuse from now on what importing a bundle leads to."""
    # First what is refused: a power cut in between must not leave a stolen key trusted.
    refuse(mirror, lists.refused)
    pin(mirror, lists.trusted)


def pin(mirror: Mirror, trusted: tuple[TrustedKey, ...]) -> None:
    """Trust these keys, and no others; none: the next import needs a number again."""
    path = mirror.root / _PINNED_NAME
    if trusted:
        replace_file(path, trusted_text(trusted))
    else:
        path.unlink(missing_ok=True)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    # The end of a key never moves away: whoever has a key could otherwise lengthen its own life.
    return one if other is None else other if one is None else min(one, other)


def _lines(data: bytes) -> list[str]:
    # Only line feeds end a line: what else Python takes for one belongs to the line, and is refused there.
    text = data.decode("ascii", "replace")
    return text.removesuffix("\n").split("\n") if text else []


def _moment(text: str | None) -> datetime | None:
    return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC) if text else None


def _wrong(shown: str, number: int, problem: str) -> MirrorError:
    return MirrorError(
        f"{shown}:{number} {problem}", "take the line out if you wrote it; otherwise find out who changed the file"
    )
