"""The key that signs the apt repository of a mirror, and signatures made with it.

The key is made where the mirror is and never leaves it; it signs nothing else, so that who trusts it trusts this
mirror alone. It has no passphrase: the folder is readable by its owner only. Ed25519 and SHA-512 throughout: that is
what both gpgv (Debian 12) and sqv (Debian 13) accept, and the same text signed twice is the same bytes.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.files import sync_directory
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError

TOOLS = (Tool("gpg", "gpg"), Tool("gpgv", "gpgv"), Tool("gpg-agent", "gpg-agent"), Tool("gpgconf", "gpgconf"))
#: What the key says it was made at: earlier than any lock, whose time its signatures bear.
_BORN = datetime(2020, 1, 1, tzinfo=UTC)
_OWNER = "rtinfra mirror"
# What makes up a key in a GNUPGHOME.
_KEY_FILES = ("pubring.kbx", "private-keys-v1.d")
_TIMEOUT = 60.0


@dataclass(frozen=True)
class SigningKey:
    """The key of a mirror's apt repository."""

    home: Path
    """Its GNUPGHOME."""
    fingerprint: str
    public: bytes
    """The public part, armoured, as clients keep it."""

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
            _gpg(
                *(home, when, "--digest-algo", "SHA512", "--local-user", self.fingerprint),
                *("--output", work / "signed", "--clear-sign", work / "text"),
            )
            return (work / "signed").read_bytes()


def signing_key(keys: Path, report: Reporter) -> SigningKey:
    """Return the key kept below `keys`; the first time, make it.

    Raises:
        LocalError: gpg is missing and cannot be installed, or fails.
        MirrorError: the key is damaged.
    """
    programs.ensure(TOOLS, report)
    home = keys / "repository"
    if not home.exists():
        with report.step("Making the key that signs the repository", usual=1):
            _make(home)
    listed = _gpg(home, None, "--with-colons", "--list-keys")
    found = re.search(r"^fpr:(?:[^:]*:){8}([0-9A-F]{40}):", listed, re.MULTILINE)
    if found is None or not any((home / "private-keys-v1.d").glob("*.key")):
        raise MirrorError(
            f"the repository's signing key in {home} is damaged",
            f"restore {home} from a backup; without one remove it: a new key is made, and every client needs it",
        )
    with tempfile.TemporaryDirectory(prefix="rtinfra-gpg-") as name:
        public = Path(name) / "key.asc"
        _gpg(
            *(home, None, "--armor", "--export-options", "export-minimal"),
            *("--output", public, "--export", found[1]),
        )
        return SigningKey(home, found[1], public.read_bytes())


def verify(signed: Path, key: SigningKey) -> bytes:
    """Return the text of a clear-signed file that our key signed.

    Raises:
        MirrorError: it is not signed, signed by another key, or changed; both fingerprints are named.
    """
    with tempfile.TemporaryDirectory(prefix="rtinfra-gpg-") as name:
        ring, text = Path(name) / "key.gpg", Path(name) / "text"
        ring.write_bytes(_dearmoured(key.public))
        said = programs.execute(
            ["gpgv", "--keyring", ring, "--status-fd", "1", "--output", text, signed], timeout=_TIMEOUT, check=False
        )
        status: dict[str, str] = dict(re.findall(r"^\[GNUPG:\] (\w+) ?(.*)$", said.stdout, re.MULTILINE))
        if said.returncode == 0 and status.get("VALIDSIG", "").endswith(key.fingerprint):
            return text.read_bytes()
    if "BADSIG" in status:
        problem = "was changed after it was signed"
    elif other := (status.get("ERRSIG") or status.get("NO_PUBKEY") or "").split():
        problem = f"is signed by another key: {other[-1]}"
    else:
        problem = "is not signed"
    raise MirrorError(
        f"{signed} {problem}; the key of this mirror is {key.fingerprint}",
        "publish again; if you did not change the file yourself, find out who did",
        said.stdout,
    )


def _make(home: Path) -> None:
    """Make the key aside and rename: half a key is never there."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".repository-", dir=home.parent) as name:
        new = Path(name) / "home"
        new.mkdir(mode=0o700)
        with _folder() as work, _agent(link := work / "home"):
            link.symlink_to(new.absolute())
            _gpg(
                *(link, _BORN, "--cert-digest-algo", "SHA512", "--pinentry-mode", "loopback", "--passphrase", ""),
                *("--quick-generate-key", _OWNER, "ed25519", "sign", "never"),
            )
        for path in new.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            elif path.is_dir():
                sync_directory(path)
        sync_directory(new)
        new.rename(home)
        sync_directory(home.parent)


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


def _dearmoured(armoured: bytes) -> bytes:
    """The bytes of an armoured key (RFC 4880, 6.2)."""
    body = armoured.decode().partition("\n\n")[2]
    lines = [line for line in body.splitlines() if line and not line.startswith(("=", "-"))]
    return base64.b64decode("".join(lines))
