"""The folder of one verification as evidence: hashes of all its files, signed with a key of this computer.

Who has the folder and the public key can tell later that nothing in it was changed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from rtinfra.local import signatures
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter
from rtinfra.paths import PROJECT
from rtinfra.verify.report import REPORT_FILE, Report, read

#: What the signatures are for: one made for anything else is worth nothing here.
NAMESPACE: Final = "rtinfra-report"
#: Hashes of all files of a report, in the format of sha256sum(1).
MANIFEST: Final = "SHA256SUMS"
#: Moves the key that signs.
KEY_VARIABLE: Final = "RTINFRA_REPORT_KEY"
#: Public keys of other computers whose reports are taken, ALLOWED SIGNERS of ssh-keygen(1).
SIGNERS: Final = PROJECT / "report_signers"
_BLOCK: Final = 1 << 20


class EvidenceError(LocalError):
    """A report that cannot be taken as evidence."""


def signing_key(report: Reporter | None = None) -> Path:
    """Return the private key that signs reports; the first call makes it.

    Raises:
        LocalError: it cannot be made, or others can read it.
    """
    path = Path(os.environ.get(KEY_VARIABLE) or PROJECT / "secrets" / "report_ed25519")
    try:
        return signatures.ensure_key(path, NAMESPACE, report or Reporter())
    except OSError as error:
        raise EvidenceError(
            f"the key that signs reports, {path}, cannot be made or read: {error.strerror}",
            f"make its folder writable for you, or name another place in the environment variable {KEY_VARIABLE}",
        ) from error


def seal(directory: Path, key: Path) -> None:
    """Write the hashes of all files of a report and sign them."""
    names = sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in (MANIFEST, MANIFEST + signatures.SUFFIX)
    )
    lines = [f"{_sha256(directory / name)}  {name}\n" for name in names]
    replace_file(directory / MANIFEST, "".join(lines).encode())
    signatures.sign(directory / MANIFEST, key, NAMESPACE)


def read_sealed(directory: Path, key: Path) -> Report:
    """Read a report whose signature holds and whose files are as they were signed.

    Raises:
        LocalError: it is not signed by this computer or one of `report_signers`, or something in it was changed.
    """
    if not (directory / REPORT_FILE).is_file():
        raise EvidenceError(
            f"{directory} is no folder of a report", "give a folder below reports/, for example reports/latest"
        )
    signatures.verify(directory / MANIFEST, _signers(key), NAMESPACE)
    for line in (directory / MANIFEST).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = directory / name
        if not path.is_file() or _sha256(path) != digest:
            raise EvidenceError(
                f"{path} is not the file that was signed: it was {'changed' if path.exists() else 'removed'}",
                "do not rely on this report; take it again from where it was made, or verify anew",
            )
    return read(directory / REPORT_FILE)


def _signers(key: Path) -> str:
    own = signatures.public(key)
    lines = [f'this-computer namespaces="{NAMESPACE}" {own.read_text(encoding="utf-8")}'] if own.is_file() else []
    return "\n".join([*lines, SIGNERS.read_text(encoding="utf-8") if SIGNERS.is_file() else ""])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
