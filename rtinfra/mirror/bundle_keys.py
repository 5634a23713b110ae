"""The keys of the computer where bundles are made: which one signs, changing it with an overlap, giving one up.

In an overlap the closed side takes bundles of both keys. In its first half the old key still signs: every bundle of
that time makes the new one known. In its second half the new key signs, and what the old one signed may still arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter
from rtinfra.mirror import signing, trust
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.reading import read_plain
from rtinfra.mirror.signing import PublicKey
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.trust import RefusedKey, TrustedKey

#: How long a key signs, unless it is changed before.
KEY_LIFE: Final = timedelta(days=730)
#: How long both keys are taken when a key is changed, unless told otherwise.
OVERLAP: Final = timedelta(days=90)

# Below the folder of private keys.
_LIST_NAME: Final = "bundle_keys"
_PRIVATE_NAME: Final = "bundle_ed25519"
_PUBLIC_SUFFIX: Final = ".pub"
_ROTATE: Final = "rtinfra mirror keys rotate bundle"


@dataclass(frozen=True)
class Signer:
    """What signs a bundle."""

    private: Path
    entry: TrustedKey
    keys: tuple[TrustedKey, ...]
    """All keys whose bundles are to be taken, its own among them."""


def own_keys(mirror: Mirror) -> tuple[TrustedKey, ...]:
    """Return the keys of bundles that are made here; none where none are made. Nothing is changed.

    Raises:
        MirrorError: the list has anything else in it.
    """
    path = _folder(mirror) / _LIST_NAME
    if path.exists():
        return trust.parse_trusted(read_plain(path, trust.MOST), str(path))
    first = _folder(mirror) / _PRIVATE_NAME
    return (TrustedKey(signing.public_key(first)),) if first.exists() else ()


def signer(mirror: Mirror, now: datetime, report: Reporter) -> Signer:
    """Return the key that signs now; the first call makes it.

    Raises:
        MirrorError: every key has ended, or the private half of the one that signs is not here.
    """
    keys = own_keys(mirror)
    if not (_folder(mirror) / _LIST_NAME).exists():
        first = keys[0].key if keys else signing.new_key(mirror.keys / _PRIVATE_NAME, report)
        keys = (TrustedKey(first, until=_whole(now + KEY_LIFE)),)
        _record(mirror, keys)
    entry = signs_now(keys, now)
    if entry is None:
        raise MirrorError(
            f"no key signs bundles now: {', '.join(one.key.fingerprint for one in keys)} ended, or is for later",
            f"make a new one: {_ROTATE}; its number has to be told to the closed side",
        )
    return Signer(_private(mirror, entry.key), entry, keys)


def signs_now(keys: tuple[TrustedKey, ...], now: datetime) -> TrustedKey | None:
    """Return the newest key that signs already and has not ended."""
    there = [one for one in keys if not one.has_ended(now) and (one.signs_from is None or one.signs_from <= now)]
    return max(there, key=lambda one: one.signs_from or datetime.min.replace(tzinfo=UTC), default=None)


def rotate(mirror: Mirror, overlap: timedelta, now: datetime, report: Reporter) -> TrustedKey:
    """Make a new key that takes the place of the present one within `overlap`; return it.

    Raises:
        MirrorError: no bundle has been made here yet, or another key is about to take over already.
    """
    now = _whole(now)
    with mirror.working("changing keys"):
        keys = tuple(one for one in own_keys(mirror) if not one.has_ended(now))
        later = [one for one in keys if one.signs_from is not None and one.signs_from > now]
        if later:
            raise MirrorError(
                f"the key {later[0].key.fingerprint} takes over already, at {later[0].signs_from:%Y-%m-%d} UTC",
                "wait until then; to give up the present key at once: rtinfra mirror keys revoke FINGERPRINT",
            )
        ends = min([now + overlap, *(one.until for one in keys if one.until is not None)])
        # Without an overlap, or with nothing to overlap with, it signs at once.
        begins = now + (ends - now) / 2 if keys and ends > now else now
        new = _made(mirror, _whole(begins), report)
        _record(mirror, (*(replace(one, until=ends) for one in keys if ends > now), new))
        return new


def revoke(mirror: Mirror, fingerprint: str, now: datetime, report: Reporter) -> TrustedKey | None:
    """Give a key up for good: refused here from now on, and wherever the next bundles are taken.

    Return the key that signs instead; None where no bundles are made.
    """
    now = _whole(now)
    with mirror.working("changing keys"):
        own = own_keys(mirror)
        trust.refuse(mirror, (RefusedKey("bundle", fingerprint, now.date()),))
        before = trust.pinned(mirror)
        left = tuple(one for one in before if one.key.fingerprint != fingerprint)
        if left != before:
            trust.pin(mirror, left)
        if not own:
            return None
        keys = tuple(one for one in own if one.key.fingerprint != fingerprint and not one.has_ended(now))
        present = signs_now(keys, now)
        if present is None:
            later = min(keys, key=lambda one: one.signs_from or now, default=None)
            # What was to take over later does so at once.
            present = replace(later, signs_from=now) if later else _made(mirror, now, report)
            keys = (*(one for one in keys if one.key != present.key), present)
        _record(mirror, keys)
        return present


def _made(mirror: Mirror, begins: datetime, report: Reporter) -> TrustedKey:
    number = len(list(mirror.keys.glob(f"{_PRIVATE_NAME}*{_PUBLIC_SUFFIX}"))) + 1
    while (path := mirror.keys / f"{_PRIVATE_NAME}_{number}").exists():
        number += 1
    return TrustedKey(signing.new_key(path, report), begins, begins + KEY_LIFE)


def _private(mirror: Mirror, key: PublicKey) -> Path:
    for path in sorted(_folder(mirror).glob(f"{_PRIVATE_NAME}*")):
        if path.suffix != _PUBLIC_SUFFIX and signing.public_key(path) == key:
            return path
    raise MirrorError(
        f"the private half of the key {key.fingerprint} is not in {_folder(mirror)}",
        f"restore it from its backup; when it is lost: rtinfra mirror keys revoke {key.fingerprint}, which makes a new"
        " one",
    )


def _folder(mirror: Mirror) -> Path:
    # Not `mirror.keys`: looking makes no folder.
    return mirror.root / "keys"


def _record(mirror: Mirror, keys: tuple[TrustedKey, ...]) -> None:
    replace_file(mirror.keys / _LIST_NAME, trust.trusted_text(keys))


def _whole(moment: datetime) -> datetime:
    """Return a moment to the second, as lists have it."""
    return moment.astimezone(UTC).replace(microsecond=0)
