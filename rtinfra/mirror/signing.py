"""Who made a bundle: an ed25519 key of this mirror, and the one key whose bundles a closed network takes.

ssh-keygen signs (PROTOCOL.sshsig of OpenSSH), because every computer that is reached over SSH has it. Such signatures
have no time in them and no chance: the same file and key give the same signature.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from rtinfra.local import programs, signatures
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter
from rtinfra.local.signatures import SignatureError
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.store import Mirror

#: What the signatures are for: one made for anything else is worth nothing here.
NAMESPACE = "rtinfra-bundle"
#: The public key in a bundle's folder, for people and for the first import.
PUBLIC_NAME = "bundle.pub"

_PRIVATE_NAME = "bundle_ed25519"
# In ssh-keygen's format of trusted keys, below the folder of the mirror.
_PINNED_NAME = "trusted_bundle_key"
_IDENTITY = "rtinfra"
_SECONDS = 30.0


@dataclass(frozen=True)
class PublicKey:
    """An ed25519 public key."""

    blob: str
    """Its base64 form, as in public key files."""

    @classmethod
    def parse(cls, text: str, shown: str) -> PublicKey:
        """Find the key in the text of a public key file or of trusted keys.

        Raises:
            MirrorError: there is none.
        """
        found = re.search(r"\bssh-ed25519 ([A-Za-z0-9+/]{68})(?:\s|$)", text)
        if found is None:
            raise MirrorError(f"{shown} holds no ed25519 public key", "carry it again from where it was made")
        return cls(found[1])

    @property
    def fingerprint(self) -> str:
        """What people compare, as ssh-keygen shows it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def line(self) -> str:
        """The content of its public key file."""
        return f"ssh-ed25519 {self.blob} {NAMESPACE}\n"

    @property
    def trusted(self) -> str:
        """The content of a file of trusted keys with this one, `ALLOWED SIGNERS` of ssh-keygen(1)."""
        return f'{_IDENTITY} namespaces="{NAMESPACE}" ssh-ed25519 {self.blob}\n'


def signing_key(mirror: Mirror, report: Reporter) -> Path:
    """Return the private key that signs this mirror's bundles; the first call makes it."""
    path = mirror.keys / _PRIVATE_NAME
    is_new = not path.exists()
    signatures.ensure_key(path, NAMESPACE, report)
    if is_new:
        report.note("Whoever has that key can make bundles; keep a copy in a safe")
    return path


def public_key(private: Path) -> PublicKey:
    """Return the public half of a private key."""
    return PublicKey.parse(programs.execute(["ssh-keygen", "-y", "-f", private], timeout=_SECONDS).stdout, str(private))


def sign(private: Path, file: Path) -> None:
    """Write the signature of a file next to it."""
    signatures.sign(file, private, NAMESPACE)


def verify(file: Path, trusted: PublicKey) -> None:
    """Check the signature that lies next to a file.

    Raises:
        MirrorError: there is none, it is another key's (both fingerprints are in the message), or the file has changed.
    """
    signature = signatures.signature_of(file)
    if not signature.is_file():
        raise MirrorError(
            f"{file.name} is not signed: {signature.name} is missing",
            "do not use this bundle unless its signature can be carried here from where it was made",
        )
    try:
        signatures.verify(file, trusted.trusted, NAMESPACE)
    except SignatureError as error:
        # The signature itself says whose it is.
        signer = signatures.signer(file, NAMESPACE)
        if signer is None:
            raise MirrorError(
                f"{file.name} is not what was signed, or its signature is damaged",
                "do not use this bundle; carry it again from where it was made, and find out who changed it",
            ) from error
        raise MirrorError(
            f"{file.name} is signed by the key {signer}, but the key trusted here is {trusted.fingerprint}",
            "do not use this bundle, unless those who made it confirm the new fingerprint on another way (by"
            " telephone); then import it with --key and that fingerprint",
        ) from error


def trusted_key(mirror: Mirror, folder: Path, fingerprint: str | None) -> PublicKey:
    """Return the key that must have signed the bundle in `folder`.

    That is the key with the fingerprint that the operator was told; otherwise the key of the first import; otherwise,
    where bundles are made, the mirror's own.

    Raises:
        MirrorError: no key is trusted yet, or the bundle's key has another fingerprint than given.
    """
    pinned, own = mirror.root / _PINNED_NAME, mirror.root / "keys" / _PRIVATE_NAME
    if fingerprint is None and pinned.is_file():
        return _read(pinned)
    if fingerprint is None and own.is_file():
        return public_key(own)
    key = _read(folder / PUBLIC_NAME)
    if fingerprint is not None:
        if key.fingerprint != fingerprint:
            raise MirrorError(
                f"the bundle brings the key {key.fingerprint}, but the key given is {fingerprint}",
                "compare the fingerprint with what `rtinfra mirror bundle` showed where the bundle was made;"
                " when it differs, do not use this bundle",
            )
        return key
    raise MirrorError(
        f"no key is trusted here yet; the bundle brings the key {key.fingerprint}",
        "compare it with what `rtinfra mirror bundle` showed where the bundle was made, on another way than the"
        f" bundle itself; when it is the same, repeat with --key {key.fingerprint}",
    )


def _read(path: Path) -> PublicKey:
    try:
        return PublicKey.parse(path.read_text(encoding="ascii", errors="replace"), str(path))
    except FileNotFoundError as error:
        raise MirrorError(f"{path} is missing", "carry it again from where it was made") from error


def pin(mirror: Mirror, key: PublicKey) -> None:
    """Trust a key, and no other, from now on."""
    replace_file(mirror.root / _PINNED_NAME, key.trusted.encode())
