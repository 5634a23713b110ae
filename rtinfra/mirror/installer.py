"""The files of a bundle that start everything on a computer with nothing but Debian: install.sh and what it reads.

A shell reads no JSON. It gets the manifest as lines of words, and one list of hashes with a signature.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import FORMAT, Lock, Manifest, bundle_id
from rtinfra.mirror.signing import IDENTITY, NAMESPACE, SIGNERS_NAME

TEXT_NAME = "manifest.txt"
SUMS_NAME = "SHA256SUMS"
SCRIPT_NAME = "install.sh"
INDEX_NAME = "Packages"
README_NAME = "README.txt"
#: In place of the number of a key in what is typed.
NUMBER = "NUMBER"

#: What the tool itself needs on the closed side; installed from the bundle, with all that these depend on.
PACKAGES = ("gpg", "gpg-agent", "gpgv", "openssh-client", "python3", "python3-venv")
#: The tool as a file of the lock.
TOOL_FILE = re.compile(r"rtinfra-[0-9A-Za-z.+]+\.tar")

_HERE = Path(__file__).parent
_SHA256 = re.compile(rb"^SHA256: *([0-9a-f]{64}) *$", re.MULTILINE)
_FILENAME = re.compile(rb"^Filename: *\S+ *$", re.MULTILINE)


def require(lock: Lock) -> None:
    """Refuse a lock that leaves a bare computer without the tool.

    Raises:
        MirrorError: naming what is missing.
    """
    there = {package.name for package in lock.packages}
    missing = [f"package {name}" for name in PACKAGES if name not in there]
    if sum(TOOL_FILE.fullmatch(file.name) is not None for file in lock.files) != 1:
        missing.append("file rtinfra-<version>.tar, once")
    if missing:
        raise MirrorError(
            f"lock {lock.id} lacks what {SCRIPT_NAME} needs on the closed side: {', '.join(missing)}",
            "make the lock again with: rtinfra mirror lock",
        )


def checking_lines(number: str = NUMBER) -> tuple[str, str]:
    """Return what is typed before anything of a bundle is run, in its folder, on a bare Debian.

    What is on a stick cannot vouch for itself: the first line compares the key with the number that came on another
    way, the second one everything else with what that key signed.
    """
    return (
        f'echo "{number}  {SIGNERS_NAME}" | sha256sum -c --strict',
        f"ssh-keygen -Y verify -f {SIGNERS_NAME} -I {IDENTITY} -n {NAMESPACE} -s {SUMS_NAME}.sig <{SUMS_NAME}"
        f" && sha256sum -c --strict --quiet {SUMS_NAME}",
    )


def files(lock: Lock, stanzas: bytes, member_name: Callable[[str], str]) -> dict[str, bytes]:
    """Return script, package index and text for people, by name.

    Args:
        lock: what the bundle brings.
        stanzas: the content `lock.stanzas`.
        member_name: from a sha256 to the name of that content in the archive.

    Raises:
        MirrorError: a stanza has no sha256 or no path.
    """
    readme = (_HERE / "bundle-readme.txt").read_text(encoding="utf-8")
    return {
        SCRIPT_NAME: (_HERE / "install.sh").read_bytes(),
        INDEX_NAME: b"\n".join(_relocated(stanzas, member_name)),
        README_NAME: readme.replace("@ID@", bundle_id(lock))
        .replace("@UNTIL@", f"{lock.valid_until:%Y-%m-%d}")
        .replace("@LINES@", "\n".join(f"    {line}" for line in checking_lines()))
        .encode(),
    }


def _relocated(stanzas: bytes, member_name: Callable[[str], str]) -> Iterator[bytes]:
    """Stanzas whose path is the name in the archive, so that apt asks for what was unpacked."""
    for stanza in re.split(rb"\n\n+", stanzas.strip(b"\n")):
        sha256 = _SHA256.search(stanza)
        if sha256 is None or len(_FILENAME.findall(stanza)) != 1:
            raise MirrorError(
                f"a stanza of the lock has no SHA256 or Filename: {stanza[:80]!r}",
                "make the lock again with: rtinfra mirror lock",
            )
        yield _FILENAME.sub(b"Filename: " + member_name(sha256[1].decode()).encode(), stanza) + b"\n"


def manifest_files(manifest: Manifest, json_name: str, json_data: bytes) -> dict[str, bytes]:
    """Return the manifest for a shell, by name: its text, and the hashes of all files that are signed with it."""
    text = "".join(f"{line}\n" for line in _lines(manifest)).encode()
    sums = {part.file: part.sha256 for part in (*manifest.parts, *manifest.files)}
    sums |= {name: hashlib.sha256(data).hexdigest() for name, data in ((json_name, json_data), (TEXT_NAME, text))}
    return {
        TEXT_NAME: text,
        SUMS_NAME: "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())).encode(),
    }


def _lines(manifest: Manifest) -> Iterator[str]:
    """One fact a line, a word that says which first; names, which may have blanks, last."""
    yield f"format {FORMAT}"
    yield f"id {manifest.id}"
    yield f"base {manifest.base or '-'}"
    # Seconds since 1970, as `date +%s` prints them.
    yield f"created {manifest.created.timestamp():.0f}"
    yield f"valid_until {manifest.valid_until.timestamp():.0f}"
    yield f"suite {manifest.suite}"
    yield f"architecture {manifest.architecture}"
    yield f"packages {' '.join(PACKAGES)}"
    for part in manifest.parts:
        yield f"part {part.sha256} {part.size} {part.file}"
    for content in manifest.contents:
        where = "inside" if content.inside else "before"
        yield f"{content.kind} {content.sha256} {content.size} {where} {content.name}"
