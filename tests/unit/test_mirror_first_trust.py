"""The first trust in a bundle: the lines of the manual as they are written, and install.sh until it installs.

Real sh, sha256sum and ssh-keygen. What install.sh would install is there already, as a program that only takes down how
it was called: so everything before that runs as it is, and nothing is installed on this computer.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, signing
from rtinfra.mirror.bundle import SIGNED, Bundle, make_bundle, manifest_files
from rtinfra.mirror.installer import checking_lines
from rtinfra.mirror.model import Lock, Part
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.trust import RefusedKey, TrustedKey, pin, refuse
from rtinfra.paths import PROJECT
from tests.unit.bundle_site import ARCHITECTURE, make_lock

NOW = datetime.now(UTC).replace(microsecond=0)
CALLED = "called"


@dataclass(frozen=True)
class Two:
    """A bundle of the owner, and one that a stranger made of the same contents; both fit this computer."""

    lock: Lock
    owner: Mirror
    good: Bundle
    stranger: Mirror
    foreign: Bundle


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    work = tmp_path_factory.mktemp("trust")
    suite = re.findall(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)[0]
    owner, stranger = Mirror(work / "owner"), Mirror(work / "stranger")
    made = make_lock(owner.pool, work / "debs", created=NOW - timedelta(hours=1))
    lock = made.model_copy(update={"suite": suite})
    shutil.copytree(owner.pool.directory, stranger.pool.directory)
    return Two(lock, owner, make_bundle(owner, lock), stranger, make_bundle(stranger, lock))


@pytest.fixture
def folder(two: Two, tmp_path: Path) -> Path:
    """The good bundle where it was copied to."""
    return Path(shutil.copytree(two.good.folder, tmp_path / "bundle"))


@pytest.fixture
def foreign(two: Two, tmp_path: Path) -> Path:
    """The stranger's bundle where it was copied to."""
    return Path(shutil.copytree(two.foreign.folder, tmp_path / "foreign"))


def typed(page: str, number: str) -> list[str]:
    """The two lines of a page of the manual, with a number in its place."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(echo .*?)```", text, re.DOTALL)
    assert block.splitlines() == list(checking_lines())
    return [line.replace("NUMBER", number) for line in block.splitlines()]


def checked(folder: Path, number: str, page: str = "docs/offline.md") -> list[int]:
    """Exit codes of the lines, as far as an operator gets who stops at the first that fails."""
    codes: list[int] = []
    for line in typed(page, number):
        if not any(codes):
            codes.append(subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, check=False).returncode)
    return codes


@dataclass(frozen=True)
class Computer:
    """The computer that is to be the mirror: its folders, and programs before those of this one."""

    root: Path

    @property
    def mirror(self) -> Mirror:
        return Mirror(self.root / "mirror")

    def program(self, name: str, text: str) -> None:
        (self.root / "bin").mkdir(exist_ok=True)
        (self.root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.root / "bin" / name).chmod(0o755)

    def install(self, folder: Path, *options: str) -> tuple[int, str]:
        """Run install.sh; return its exit code and what it said."""
        done = subprocess.run(
            ["sh", folder / "install.sh", *options, "--target", self.root / "target", "--mirror", self.mirror.root],
            env={
                **os.environ,
                "PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "CALLED": str(self.root / CALLED),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def imported(self) -> str | None:
        """How rtinfra was called; None when install.sh did not come that far."""
        return (self.root / CALLED).read_text() if (self.root / CALLED).exists() else None


@pytest.fixture
def computer(two: Two, tmp_path: Path) -> Computer:
    found = Computer(tmp_path / "computer")
    rtinfra = found.root / "target/.venv/bin/rtinfra"
    rtinfra.parent.mkdir(parents=True)
    rtinfra.write_text('#!/bin/sh\necho "$*" >"$CALLED"\n')
    rtinfra.chmod(0o755)
    kinds = {kind: [c for c in two.good.manifest.contents if c.kind == kind] for kind in ("file", "wheel")}
    lines = "".join(f"{kind} {content.sha256}\n" for kind, contents in kinds.items() for content in contents)
    (found.root / "target/.installed").write_text(hashlib.sha256(lines.encode()).hexdigest() + "\n")
    found.program("dpkg", f"echo {ARCHITECTURE}")
    found.program("id", 'if [ "$*" = -u ]; then echo 0; else exec /usr/bin/id "$@"; fi')
    return found


# ---- the two lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["docs/offline.md", "docs/ko/offline.md"])
def test_the_lines_of_the_manual_accept_the_bundle_and_then_it_installs(
    two: Two, folder: Path, computer: Computer, page: str
) -> None:
    assert checked(folder, two.good.number, page) == [0, 0]
    code, said = computer.install(folder, "--key", two.good.number)
    assert code == 0, said
    assert computer.imported() == f"mirror import {folder} --key {two.good.number}\n"


def test_a_number_may_be_typed_in_capitals(two: Two, folder: Path, computer: Computer) -> None:
    assert checked(folder, two.good.number.upper()) == [0, 0]
    assert computer.install(folder, "--key", two.good.number.upper())[0] == 0


def forged_script(two: Two, folder: Path) -> None:
    """A line more in the script."""
    with (folder / "install.sh").open("a") as file:
        file.write("touch /tmp/never\n")


def forged_sums(two: Two, folder: Path) -> None:
    """The script and its sum changed."""
    forged_script(two, folder)
    new = hashlib.sha256((folder / "install.sh").read_bytes()).hexdigest()
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(re.sub(r"[0-9a-f]{64}(?=  install\.sh)", new, sums))


def forged_signature(two: Two, folder: Path) -> None:
    """The same, signed by the stranger."""
    forged_sums(two, folder)
    signing.sign(bundle_keys.signer(two.stranger, NOW, Reporter()).private, folder / "SHA256SUMS")


def forged_link(two: Two, folder: Path) -> None:
    """The script leads to another one."""
    (folder / "install.sh").rename(folder / "README.txt")
    (folder / "install.sh").symlink_to("manifest.txt")


@pytest.mark.parametrize("forge", [forged_script, forged_sums, forged_signature, forged_link])
def test_the_second_line_refuses_changed_files(two: Two, folder: Path, forge: Callable[[Two, Path], None]) -> None:
    forge(two, folder)
    codes = checked(folder, two.good.number)
    assert codes[0] == 0 and codes[1] != 0


def test_the_first_line_refuses_a_strangers_key(two: Two, foreign: Path) -> None:
    assert checked(foreign, two.good.number) == [1]


def signers_of_both(two: Two, *, first: str = "") -> bytes:
    return first.encode() + two.good.signer.entry.key.signers + two.foreign.signer.entry.key.signers


MANY: dict[str, Callable[[Two], bytes]] = {
    "both keys": signers_of_both,
    "the stranger's first": lambda two: b"".join(reversed(signers_of_both(two).splitlines(keepends=True))),
    "a public key file before a line for anybody": lambda two: (
        f"ssh-ed25519 {two.good.signer.entry.key.blob} a\n* ssh-ed25519 {two.foreign.signer.entry.key.blob}\n".encode()
    ),
    "a public key file": lambda two: f"ssh-ed25519 {two.good.signer.entry.key.blob}\n".encode(),
    "a comment": lambda two: signers_of_both(two, first="# both\n"),
    "a carriage return": lambda two: two.good.signer.entry.key.signers.replace(b"\n", b"\r\n"),
    "no end of the line": lambda two: two.good.signer.entry.key.signers.removesuffix(b"\n"),
    "a NUL": lambda two: two.good.signer.entry.key.signers + b"\0",
    "another name": lambda two: b"* " + two.good.signer.entry.key.signers.partition(b" ")[2],
    "authority": lambda two: two.good.signer.entry.key.signers.replace(b"namespaces", b"cert-authority,namespaces"),
    "nothing": lambda two: b"",
}


@pytest.mark.parametrize("what", MANY)
def test_more_or_less_than_one_key_is_refused_by_line_and_script_and_import(
    two: Two, foreign: Path, computer: Computer, what: str
) -> None:
    """With the owner's key in it, whose number is right, the stranger's signature would otherwise count."""
    (foreign / "bundle.signers").write_bytes(MANY[what](two))
    assert checked(foreign, two.good.number) == [1]
    for told in (two.good.number, two.good.fingerprint):
        code, said = computer.install(foreign, "--key", told)
        assert code == 1 and "bundle.signers is not one line with one key" in said, said
    pin(computer.mirror, (TrustedKey(two.good.signer.entry.key),))
    assert computer.install(foreign)[0] == 1
    assert computer.imported() is None


# ---- install.sh -------------------------------------------------------------------------------------------


def test_a_strangers_bundle_is_refused_by_number_and_by_pin(two: Two, foreign: Path, computer: Computer) -> None:
    said = [computer.install(foreign, "--key", two.good.number)]
    pin(computer.mirror, (TrustedKey(two.good.signer.entry.key),))
    said.append(computer.install(foreign))
    for code, text in said:
        assert code == 1
        assert f"the bundle is of the key {two.foreign.fingerprint}, but the key trusted here is" in text
    assert two.good.fingerprint in said[1][1]
    assert computer.imported() is None


def test_the_owners_key_beside_a_strangers_signature_is_refused(two: Two, foreign: Path, computer: Computer) -> None:
    (foreign / "bundle.signers").write_bytes(two.good.signer.entry.key.signers)
    code, said = computer.install(foreign, "--key", two.good.number)
    assert code == 1 and f"SHA256SUMS is not what the key {two.good.fingerprint} signed" in said


@pytest.mark.parametrize(
    ("put", "named"),
    [
        (lambda folder: (folder / "autorun.inf").touch(), "autorun.inf"),
        (lambda folder: (folder / "a\nmanifest.txt").touch(), "a?manifest.txt"),
        (lambda folder: (folder / "more").mkdir(), "more"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe"),
        (lambda folder: (folder / "README.txt").replace(folder.parent / "r"), "README.txt"),
        (lambda folder: (folder / "Packages").replace(folder.parent / "r"), "Packages"),
    ],
)
def test_what_is_not_of_the_bundle_and_links_are_named(
    two: Two, folder: Path, computer: Computer, put: Callable[[Path], object], named: str
) -> None:
    put(folder)
    if (folder.parent / "r").exists():
        (folder / named).symlink_to(folder.parent / "r")
    code, said = computer.install(folder, "--key", two.good.number)
    assert code == 1 and f"this is not of the bundle: {named}" in said, said
    assert computer.imported() is None


@pytest.mark.parametrize("name", ["bundle.signers", "SHA256SUMS", "SHA256SUMS.sig"])
def test_a_link_to_a_key_or_signature_is_refused(two: Two, folder: Path, computer: Computer, name: str) -> None:
    (folder / name).replace(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    code, said = computer.install(folder, "--key", two.good.number)
    assert code == 1 and f"{name} is no plain file" in said, said


def test_what_is_renamed_after_it_was_verified_is_not_used(two: Two, folder: Path, computer: Computer) -> None:
    """The moment the signature has been checked, other lists are put in place of the verified ones."""
    for name in ("manifest.txt", "Packages", "SHA256SUMS"):
        (folder.parent / name).write_text("architecture riscv64\nsuite sid\n")
    swap = f"for n in manifest.txt Packages SHA256SUMS; do mv -f {folder.parent}/$n {folder}/$n 2>/dev/null; done"
    computer.program(
        "sha256sum", f'/usr/bin/sha256sum "$@"; code=$?; case "$*" in *--check*) {swap};; esac; exit $code'
    )
    code, said = computer.install(folder, "--key", two.good.number)
    assert (folder / "manifest.txt").read_text().startswith("architecture riscv64"), "nothing was exchanged"
    assert code == 0, said
    assert computer.imported() is not None


def test_keys_of_an_earlier_import_are_taken_until_they_end(two: Two, folder: Path, computer: Computer) -> None:
    key, other = two.good.signer.entry.key, two.foreign.signer.entry.key
    for ends, code in ((NOW + timedelta(days=1), 0), (NOW - timedelta(days=1), 1)):
        pin(computer.mirror, (TrustedKey(other, NOW), TrustedKey(key, NOW - timedelta(days=9), ends)))
        found, said = computer.install(folder)
        assert found == code, said
    assert f"the key {key.fingerprint} has ended at {NOW - timedelta(days=1):%Y%m%d%H%M%S} UTC" in said


def test_a_pin_with_anything_else_in_it_is_refused(two: Two, foreign: Path, computer: Computer) -> None:
    key, other = two.good.signer.entry.key, two.foreign.signer.entry.key
    computer.mirror.root.mkdir()
    for line in (f"* ssh-ed25519 {other.blob}\n", f'rtinfra namespaces="*" ssh-ed25519 {other.blob}\n'):
        (computer.mirror.root / "trusted_bundle_key").write_text(TrustedKey(key).line + line)
        code, said = computer.install(foreign)
        assert code == 1 and "trusted_bundle_key has a line that rtinfra did not write" in said, said


def test_a_refused_key_is_refused_even_when_its_number_is_given(two: Two, folder: Path, computer: Computer) -> None:
    refuse(computer.mirror, (RefusedKey("bundle", two.good.fingerprint, NOW.date()),))
    code, said = computer.install(folder, "--key", two.good.number)
    assert code == 1 and f"the key {two.good.fingerprint} is refused here" in said, said
    assert computer.imported() is None


def test_a_part_too_many_in_the_signed_list_is_looked_for(two: Two, folder: Path, computer: Computer) -> None:
    """A signed list names files by plain names only; what is missing is said."""
    more = Part(file="part-0002", size=5, sha256=hashlib.sha256(b"other").hexdigest())
    manifest = two.good.manifest.model_copy(update={"parts": (*two.good.manifest.parts, more)})
    for name, data in manifest_files(manifest).items():
        (folder / name).write_bytes(data)
    for name in SIGNED:
        signing.sign(bundle_keys.signer(two.owner, NOW, Reporter()).private, folder / name)
    code, said = computer.install(folder, "--key", two.good.number)
    assert code == 1 and "part-0002 is truncated or missing: it has 0 bytes, 5 are expected" in said, said
