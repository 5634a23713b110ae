"""The folder of one verification as evidence: hashes of all its files, signed with a key of this computer.

Who has the folder and the public key can tell later that nothing in it was changed.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, Final

from rtinfra.local import signatures
from rtinfra.local.errors import LocalError
from rtinfra.local.files import open_plain, replace_file
from rtinfra.local.progress import Reporter
from rtinfra.paths import PROJECT
from rtinfra.verify.report import REPORT_FILE, Report, parsed

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
    lines = []
    for name in names:
        with (directory / name).open("rb") as file:
            lines.append(f"{_sha256(file)}  {name}\n")
    replace_file(directory / MANIFEST, "".join(lines).encode())
    signatures.sign(directory / MANIFEST, key, NAMESPACE)


def read_sealed(directory: Path, key: Path) -> Report:
    """Read a report whose signature holds and whose files are as they were signed.

    Manifest, signature and report are read once each: what was verified is what is used, whatever stands under their
    names a moment later.

    Raises:
        LocalError: it is not signed by this computer or one of `report_signers`, or something in it was changed.
    """
    if not (directory / REPORT_FILE).is_file():
        raise EvidenceError(
            f"{directory} is no folder of a report", "give a folder below reports/, for example reports/latest"
        )
    manifest, signature = directory / MANIFEST, signatures.signature_of(directory / MANIFEST)
    signed = _whole(manifest, "take it from where it was made")
    signatures.verify(
        str(manifest), signed, _whole(signature, "take it from where it was made"), _signers(key), NAMESPACE
    )
    report: bytes | None = None
    for line in signed.decode().splitlines():
        digest, _, name = line.partition("  ")
        path, content = directory / name, None
        try:
            with open_plain(path) as file:
                # The one file of which more than its hash is used.
                content = file.read() if name == REPORT_FILE else None
                found = _sha256(file if content is None else io.BytesIO(content))
        except OSError:
            found = ""
        if found != digest:
            raise EvidenceError(
                f"{path} is not the file that was signed: it was {'changed' if path.exists() else 'removed'}",
                "do not rely on this report; take it again from where it was made, or verify anew",
            )
        report = report if content is None else content
    if report is None:
        raise EvidenceError(
            f"{directory / REPORT_FILE} is not among the files that were signed",
            "do not rely on this report; take it again from where it was made, or verify anew",
        )
    return parsed(report, directory)


def _whole(path: Path, next_step: str) -> bytes:
    try:
        with open_plain(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise EvidenceError(f"{path.parent} is not signed: {path.name} is missing", next_step) from error
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}", next_step) from error


def _signers(key: Path) -> str:
    own = signatures.public(key)
    lines = [f'this-computer namespaces="{NAMESPACE}" {own.read_text(encoding="utf-8")}'] if own.is_file() else []
    return "\n".join([*lines, SIGNERS.read_text(encoding="utf-8") if SIGNERS.is_file() else ""])


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
