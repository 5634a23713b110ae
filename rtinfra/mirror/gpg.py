"""The keys that sign the apt repository of a mirror, and signatures made with them.

There is one, or while it is changed two: then both sign, and hosts that know either take what they sign. They are kept
in a folder of gpg; a change makes the next folder aside, complete, and the newest folder is the one in use.

A key is made where the mirror is and never leaves it; it signs nothing else, so that who trusts it trusts this mirror
alone. It has no passphrase: the folder is readable by its owner only. Ed25519 and SHA-512 throughout: that is what both
gpgv (Debian 12) and sqv (Debian 13) accept, and the same text signed twice is the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rtinfra import openpgp
from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file, sync_directory
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError

TOOLS = (Tool("gpg", "gpg"), Tool("gpgv", "gpgv"), Tool("gpg-agent", "gpg-agent"), Tool("gpgconf", "gpgconf"))
#: What the key says it was made at: earlier than any lock, whose time its signatures bear.
_BORN = datetime(2020, 1, 1, tzinfo=UTC)
_OWNER = "rtinfra mirror"
# What makes up a key in a GNUPGHOME.
_KEY_FILES = ("pubring.kbx", "private-keys-v1.d")
_HOME = "repository"
# In a home: fingerprint and end of the keys that have one, a line each.
_ENDS = "rtinfra-ends"
_TIMEOUT = 60.0


@dataclass(frozen=True)
class SigningKey:
    """What signs a mirror's apt repository: its key, and while that one is changed the one before it too."""

    home: Path
    """Its GNUPGHOME."""
    fingerprints: tuple[str, ...]
    """The newest key first."""
    public: bytes
    """The public parts, armoured, as clients keep them."""

    @property
    def fingerprint(self) -> str:
        """Of the newest key."""
        return self.fingerprints[0]

    def clearsign(self, text: bytes, when: datetime) -> bytes:
        """Sign a text as of `when`; the same text and time give the same bytes.

        Raises:
            MirrorError: `when` is before the key's own time.
        """
        if when < _BORN:
            raise MirrorError(
                f"nothing can be signed as of {when:%Y-%m-%d %H:%M:%S} UTC: that is before {_BORN:%Y-%m-%d}",
                "set the clock of the machine where the lock is made, then make the lock again",
            )
        with _session(self.home) as (home, work):
            (work / "text").write_bytes(text)
            signers = [word for fingerprint in self.fingerprints for word in ("--local-user", fingerprint)]
            _gpg(
                *(home, when, "--digest-algo", "SHA512"),
                *signers,
                *("--output", work / "signed", "--clear-sign", work / "text"),
            )
            return (work / "signed").read_bytes()


def signing_key(keys: Path, report: Reporter, now: datetime | None = None) -> SigningKey:
    """Return what signs now, kept below `keys`; the first time, make it.

    Raises:
        LocalError: gpg is missing and cannot be installed, or fails.
        MirrorError: the key is damaged.
    """
    programs.ensure(TOOLS, report)
    if home_of(keys) is None:
        with report.step("Making the key that signs the repository", usual=1), _next_home(keys) as new:
            _add_key(new)
    home = home_of(keys)
    assert home is not None
    now = now or datetime.now(UTC)
    return _signing(home, tuple(one for one, end in known_keys(home).items() if end is None or end > now))


def _signing(home: Path, fingerprints: tuple[str, ...]) -> SigningKey:
    with tempfile.TemporaryDirectory(prefix="rtinfra-gpg-") as name:
        public = Path(name) / "key.asc"
        _gpg(
            *(home, None, "--armor", "--export-options", "export-minimal"),
            *("--output", public, "--export"),
            *fingerprints,
        )
        text = public.read_bytes()
    if set(openpgp.fingerprints(text)) != set(fingerprints):
        raise _damaged(home)
    return SigningKey(home, fingerprints, text)


def home_of(keys: Path) -> Path | None:
    """Return the folder of the keys in use; None before the first key is made."""
    homes = (path for path in keys.glob(f"{_HOME}*") if _number(path) >= 0 and path.is_dir())
    return max(homes, key=_number, default=None)


def _number(home: Path) -> int:
    """Return how many changes of keys led to a folder; -1: it is none of ours."""
    found = re.fullmatch(rf"{_HOME}(?:-([0-9]{{1,6}}))?", home.name)
    return -1 if found is None else int(found[1] or 0)


def known_keys(home: Path) -> Mapping[str, datetime | None]:
    """Return when each key of a folder ends, by its fingerprint; None for the newest, which comes first.

    Raises:
        MirrorError: the folder is damaged.
    """
    listed = _gpg(home, None, "--with-colons", "--list-keys")
    found = re.findall(r"^pub:.*\nfpr:(?:[^:]*:){8}([0-9A-F]{40}):", listed, re.MULTILINE)
    ends: dict[str, datetime | None] = dict.fromkeys(found)
    try:
        for line in (home / _ENDS).read_text(encoding="ascii").splitlines():
            fingerprint, _, end = line.partition(" ")
            ends[fingerprint] = datetime.fromisoformat(end)
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise _damaged(home) from error
    private = len(list((home / "private-keys-v1.d").glob("*.key")))
    if set(ends) != set(found) or private != len(found) or list(ends.values()).count(None) != 1:
        raise _damaged(home)
    return dict(sorted(ends.items(), key=lambda item: item[1] is not None))


def _damaged(home: Path) -> MirrorError:
    return MirrorError(
        f"the repository's signing key in {home} is damaged",
        f"restore {home} from a backup; without one remove it: a new key is made, and every client needs it",
    )


def rotate(keys: Path, overlap: timedelta, now: datetime, report: Reporter) -> SigningKey:
    """Make a new key; the present one signs beside it for `overlap`.

    Raises:
        MirrorError: the folder of the keys is damaged, or a change is under way.
    """
    present = signing_key(keys, report, now)
    if len(present.fingerprints) > 1:
        raise MirrorError(
            f"the key {present.fingerprint} takes over already, and {present.fingerprints[1]} still signs beside it",
            "wait until that one has ended (rtinfra mirror keys list), or give it up: rtinfra mirror keys revoke"
            f" {present.fingerprints[1]}",
        )
    left = {present.fingerprint: now + overlap} if overlap else {}
    with _next_home(keys) as new:
        _drop(new, [one for one in known_keys(present.home) if one not in left])
        _add_key(new)
        _write_ends(new, left)
    return signing_key(keys, report, now)


def revoke(keys: Path, fingerprint: str, now: datetime, report: Reporter) -> SigningKey | None:
    """Remove a key for good, and make a new one when it was the newest; return what signs now.

    None: no repository is signed here.
    """
    home = home_of(keys)
    if home is None:
        return None
    known = known_keys(home)
    if fingerprint in known:
        left = {one: end for one, end in known.items() if one != fingerprint and (end is None or end > now)}
        with _next_home(keys) as new:
            _drop(new, [one for one in known if one not in left])
            if None not in left.values():
                _add_key(new)
            _write_ends(new, {one: end for one, end in left.items() if end is not None})
    return signing_key(keys, report, now)


def _write_ends(home: Path, ends: Mapping[str, datetime]) -> None:
    text = "".join(f"{one} {end.isoformat(timespec='seconds')}\n" for one, end in ends.items())
    replace_file(home / _ENDS, text.encode())


def verify(signed: bytes, shown: Path, key: SigningKey) -> bytes:
    """Return the text of a clear-signed file that our key signed; `signed` was read from the file `shown`.

    Raises:
        MirrorError: it is not signed, signed by another key, or changed; both fingerprints are named.
    """
    with tempfile.TemporaryDirectory(prefix="rtinfra-gpg-") as name:
        ring, text, file = Path(name) / "key.gpg", Path(name) / "text", Path(name) / "signed"
        file.write_bytes(signed)
        ring.write_bytes(openpgp.dearmoured(key.public))
        said = programs.execute(
            ["gpgv", "--keyring", ring, "--status-fd", "1", "--output", text, file], timeout=_TIMEOUT, check=False
        )
        status: dict[str, str] = dict(re.findall(r"^\[GNUPG:\] (\w+) ?(.*)$", said.stdout, re.MULTILINE))
        good = set(re.findall(r"^\[GNUPG:\] VALIDSIG .*\b([0-9A-F]{40})$", said.stdout, re.MULTILINE))
        if said.returncode == 0 and good == set(key.fingerprints):
            return text.read_bytes()
    if "BADSIG" in status:
        problem = "was changed after it was signed"
    elif other := (status.get("ERRSIG") or status.get("NO_PUBKEY") or "").split():
        problem = f"is signed by another key: {other[-1]}"
    elif good:
        problem = f"is signed by {' and '.join(sorted(good))}"
    else:
        problem = "is not signed"
    raise MirrorError(
        f"{shown} {problem}; the key of this mirror is {' and '.join(key.fingerprints)}",
        "publish again; if you did not change the file yourself, find out who did",
        said.stdout,
    )


@contextmanager
def _next_home(keys: Path) -> Iterator[Path]:
    """Give a copy of the folder in use, or an empty one; it takes its place when it is complete and on the disk."""
    keys.mkdir(parents=True, exist_ok=True)
    present = home_of(keys)
    with tempfile.TemporaryDirectory(prefix=".repository-", dir=keys) as name:
        new = Path(name) / "home"
        new.mkdir(mode=0o700)
        if present is not None:
            shutil.copytree(present, new, dirs_exist_ok=True, ignore=_all_but_keys)
        yield new
        for path in new.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            elif path.is_dir():
                sync_directory(path)
        sync_directory(new)
        number = _number(present) + 1 if present else 0
        new.rename(keys / (f"{_HOME}-{number}" if number else _HOME))
        sync_directory(keys)
    # Private halves that are not used any more are nobody's to find, those included that a power cut left.
    for path in keys.glob(f"{_HOME}*"):
        if 0 <= _number(path) < number:
            shutil.rmtree(path)


def _all_but_keys(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied with keys: what gpg keeps beside them."""
    is_inside = Path(folder).name in _KEY_FILES
    return [] if is_inside else [name for name in names if name not in (*_KEY_FILES, _ENDS)]


def _add_key(home: Path) -> None:
    with _linked(home) as link:
        _gpg(
            *(link, _BORN, "--cert-digest-algo", "SHA512", "--pinentry-mode", "loopback", "--passphrase", ""),
            # There may be another one of that name.
            *("--yes", "--quick-generate-key", _OWNER, "ed25519", "sign", "never"),
        )


def _drop(home: Path, fingerprints: list[str]) -> None:
    if fingerprints:
        with _linked(home) as link:
            _gpg(link, None, "--yes", "--delete-secret-and-public-key", *fingerprints)


@contextmanager
def _linked(home: Path) -> Iterator[Path]:
    """Give a short path to a folder of keys, which gpg then changes."""
    with _folder() as work, _agent(link := work / "home"):
        link.symlink_to(home.absolute())
        yield link


@contextmanager
def _session(home: Path) -> Iterator[tuple[Path, Path]]:
    """Give a GNUPGHOME with the keys of `home`, and a private folder for files.

    Its agent is its own: one that is just ending, of a call before, would otherwise be asked and not answer. Nothing of
    the key is copied.
    """
    with _folder() as work:
        own = work / "home"
        own.mkdir(mode=0o700)
        for name in _KEY_FILES:
            (own / name).symlink_to(home.absolute() / name)
        with _agent(own):
            yield own, work


@contextmanager
def _folder() -> Iterator[Path]:
    # The agent's socket is below it, and the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="rtinfra-gpg-") as name:
        yield Path(name)


@contextmanager
def _agent(home: Path) -> Iterator[None]:
    """Leave no agent running afterwards."""
    try:
        yield
    finally:
        programs.execute(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], timeout=_TIMEOUT)


def _gpg(home: Path, when: datetime | None, *arguments: str | Path) -> str:
    command: list[str | Path] = ["gpg", "--homedir", home, "--no-options", "--batch", "--quiet", "--no-tty"]
    command += ["--no-auto-check-trustdb", "--trust-model", "always", "--no-emit-version", "--no-comments"]
    if when is not None:
        # The exclamation mark stops the clock.
        command += ["--faked-system-time", f"{when.timestamp():.0f}!"]
    try:
        return programs.execute([*command, *arguments], timeout=_TIMEOUT).stdout
    except LocalError as error:
        raise MirrorError(
            "the repository's signing key cannot be used", f"see whether {home} is complete", str(error)
        ) from error
