"""Signatures by ssh-keygen (PROTOCOL.sshsig of OpenSSH), which every computer has that reaches others over SSH."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Final

from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter

TOOL: Final = Tool("ssh-keygen", "openssh-client")
#: What is added to the name of a signed file.
SUFFIX: Final = ".sig"
_SECONDS: Final = 30.0


class SignatureError(LocalError):
    """A file that is not signed, was changed after it was signed, or was signed by somebody who is not trusted."""


def ensure_key(path: Path, purpose: str, report: Reporter) -> Path:
    """Return a private key that only its owner can read; the first call makes it, and the public one beside it.

    Raises:
        LocalError: it cannot be made, or others can read it.
    """
    programs.ensure((TOOL,), report)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
            made = Path(folder, "key")
            programs.execute(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", purpose, "-f", made], timeout=_SECONDS
            )
            # Public first: a private key without the other half would never get it.
            replace_file(public(path), made.with_suffix(".pub").read_bytes())
            replace_file(path, made.read_bytes(), 0o600)
        report.note(f"Made the key {path} ({purpose})")
    if path.stat().st_mode & 0o077:
        raise LocalError(f"the key {path} can be read by others", f"chmod 600 {path}")
    return path


def public(key: Path) -> Path:
    """Return where the public half of a key is."""
    return key.with_name(f"{key.name}.pub")


def sign(file: Path, key: Path, namespace: str) -> Path:
    """Write the signature of a file next to it and return its path."""
    signature = signature_of(file)
    # An older one would make ssh-keygen ask.
    signature.unlink(missing_ok=True)
    programs.execute(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace, file], timeout=_SECONDS)
    return signature


def signature_of(file: Path) -> Path:
    """Return where the signature of a file is."""
    return file.with_name(file.name + SUFFIX)


def verify(shown: str, data: bytes, signature: bytes, signers: str, namespace: str) -> str:
    """Check the signature of bytes that were read from the file `shown`; return whose it is.

    What is checked is what the caller holds: a name may lead to another file the next time it is opened. `signers` has
    the format of ALLOWED SIGNERS in ssh-keygen(1).

    Raises:
        SignatureError: it does not hold.
    """
    with _signed(data, signature) as file:
        trusted = file.with_name("signers")
        # ssh-keygen complains about empty lines, where its answer is expected.
        trusted.write_text("".join(f"{line}\n" for line in signers.splitlines() if line.strip()), encoding="utf-8")
        found = programs.execute(
            ["ssh-keygen", "-Y", "find-principals", "-f", trusted, "-s", signature_of(file)],
            timeout=_SECONDS,
            check=False,
        )
        who = found.stdout.strip().splitlines()[-1] if found.returncode == 0 and found.stdout.strip() else ""
        if not who:
            raise SignatureError(
                f"{shown} was signed with a key that is not trusted here",
                "find out whose it is; when it is right, add their public key to the trusted ones",
                found.stdout,
            )
        checked = _asked("verify", file, namespace, "-f", trusted, "-I", who)
    if checked.returncode != 0:
        raise SignatureError(
            f"{shown} was changed after it was signed, or its signature is for something else",
            "do not rely on it; take it again from where it was made",
            checked.stdout,
        )
    return who


def signer(data: bytes, signature: bytes, namespace: str) -> str | None:
    """Return the fingerprint of the key that signed bytes, trusted or not; None when they are not what was signed."""
    with _signed(data, signature) as file:
        done = _asked("check-novalidate", file, namespace)
    fingerprint = re.search(r"\bSHA256:\S+", done.stdout)
    return fingerprint[0] if done.returncode == 0 and fingerprint else None


@contextmanager
def _signed(data: bytes, signature: bytes) -> Iterator[Path]:
    """Give a file with these bytes in a folder of our own, its signature beside it."""
    with tempfile.TemporaryDirectory(prefix="rtinfra-signed-") as folder:
        file = Path(folder, "signed")
        file.write_bytes(data)
        signature_of(file).write_bytes(signature)
        yield file


def _asked(what: str, file: Path, namespace: str, *options: str | Path) -> CompletedProcess[str]:
    words = ["ssh-keygen", "-Y", what, "-n", namespace, "-s", signature_of(file), *options]
    return programs.execute(words, timeout=_SECONDS, check=False, stdin=file)
