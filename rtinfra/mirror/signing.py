"""Signatures of bundles: ed25519 keys of the computer where bundles are made, and how a key is written down.

ssh-keygen signs (PROTOCOL.sshsig of OpenSSH), because every computer that is reached over SSH has it. Such signatures
have no time in them and no chance: the same file and key give the same signature.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtinfra.local import programs, signatures
from rtinfra.local.progress import Reporter
from rtinfra.local.signatures import SignatureError
from rtinfra.mirror.errors import MirrorError

#: What the signatures are for: one made for anything else is worth nothing here.
NAMESPACE: Final = "rtinfra-bundle"
#: Whose signatures they are, in files of trusted keys.
IDENTITY: Final = "rtinfra"
#: The key that signed a bundle, in the bundle's folder: a file of trusted keys with one line, as ssh-keygen takes it.
SIGNERS_NAME: Final = "bundle.signers"
#: An ed25519 public key in base64: the name of its kind, then 32 bytes (RFC 8709, 4).
BLOB: Final = r"AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}"

_SECONDS: Final = 30.0


@dataclass(frozen=True)
class PublicKey:
    """An ed25519 public key."""

    blob: str
    """Its base64 form, as in public key files."""

    @classmethod
    def of_signers(cls, data: bytes, shown: str) -> PublicKey:
        """Return the key of a file that trusts exactly one, written as `signers` writes it.

        ssh-keygen would take more: several keys, names for anybody, certificates. Nothing of that is looked for, so
        that the key which was compared is the only one that counts.

        Raises:
            MirrorError: it is anything else.
        """
        found = re.search(BLOB, data.decode("ascii", "replace"))
        if found is None or cls(found[0]).signers != data:
            raise MirrorError(
                f'{shown} is not one line with one key: {IDENTITY} namespaces="{NAMESPACE}" ssh-ed25519 ...',
                "do not use this bundle unless the file can be carried again from where it was made and is right then",
            )
        return cls(found[0])

    @property
    def fingerprint(self) -> str:
        """Its short form, as ssh-keygen shows it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def number(self) -> str:
        """What is told to the closed side: the sha256 of `signers`, which sha256sum checks before anything is run."""
        return hashlib.sha256(self.signers).hexdigest()

    @property
    def signers(self) -> bytes:
        """The content of a file of trusted keys with this one, ALLOWED SIGNERS of ssh-keygen(1)."""
        return f'{IDENTITY} namespaces="{NAMESPACE}" ssh-ed25519 {self.blob}\n'.encode()

    def is_called(self, told: str) -> bool:
        """Whether an operator who was told `told` means this key: its number, or its fingerprint."""
        return told.strip() == self.fingerprint or told.strip().lower() == self.number


def public_key(private: Path) -> PublicKey:
    """Return the public half of a private key.

    Raises:
        MirrorError: it is no ed25519 key.
    """
    line = programs.execute(["ssh-keygen", "-y", "-f", private], timeout=_SECONDS).stdout
    found = re.fullmatch(rf"ssh-ed25519 ({BLOB})(?: [^\n]*)?\n", line)
    if found is None:
        raise MirrorError(f"{private} is no ed25519 key", "restore it from its backup, or move it away: one is made")
    return PublicKey(found[1])


def new_key(path: Path, report: Reporter) -> PublicKey:
    """Make a private key that signs bundles, unless it is there."""
    is_new = not path.exists()
    signatures.ensure_key(path, NAMESPACE, report)
    if is_new:
        report.note("Whoever has that key can make bundles; keep a copy in a safe")
    return public_key(path)


def sign(private: Path, file: Path) -> None:
    """Write the signature of a file next to it."""
    signatures.sign(file, private, NAMESPACE)


def verify(name: str, data: bytes, signature: bytes, trusted: PublicKey) -> None:
    """Check the signature of bytes that were read from the file `name`.

    Raises:
        MirrorError: it is another key's (both fingerprints are in the message), or the bytes are not what was signed.
    """
    try:
        signatures.verify(name, data, signature, trusted.signers.decode(), NAMESPACE)
    except SignatureError as error:
        # The signature itself says whose it is.
        signer = signatures.signer(data, signature, NAMESPACE)
        if signer is None:
            raise MirrorError(
                f"{name} is not what was signed, or its signature is damaged",
                "do not use this bundle; carry it again from where it was made, and find out who changed it",
            ) from error
        raise other_key(name, signer, trusted.fingerprint) from error


def other_key(what: str, signer: str, trusted: str) -> MirrorError:
    """Return the refusal of what another key signed; both are fingerprints."""
    return MirrorError(
        f"{what} is signed by the key {signer}, but the key trusted here is {trusted}",
        "do not use this bundle, unless those who made it tell you the number of their new key on another way (by"
        " telephone); then import it with --key and that number",
    )
