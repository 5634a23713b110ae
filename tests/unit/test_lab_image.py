"""The base image: its key, what goes into it, and refusals before and during a build."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import tarfile
import threading
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from rtinfra.lab import Firmware, accel, guest, image
from rtinfra.lab.errors import LabError
from rtinfra.lab.guest import FileSystems, Guest
from rtinfra.lab.image import Recipe
from rtinfra.lab.spec import MachineSpec
from rtinfra.local import programs
from rtinfra.local.archive import Archive
from rtinfra.local.errors import LocalError
from rtinfra.local.file_lock import locked
from rtinfra.local.progress import Reporter

ARCHIVE = Archive(main=("http://mirror.example/debian",), security=("http://mirror.example/security",))
GUEST = Guest("trixie", Firmware.UEFI, backports=False)
RECIPE = Recipe(GUEST, 12, ARCHIVE)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rtinfra" / "images"


def test_the_same_recipe_has_the_same_key() -> None:
    assert RECIPE.key() == Recipe(GUEST, 12, dataclasses.replace(ARCHIVE)).key()
    assert len(RECIPE.key()) == 64


@pytest.mark.parametrize(
    "other",
    [
        Recipe(dataclasses.replace(GUEST, suite="bookworm"), 12, ARCHIVE),
        Recipe(dataclasses.replace(GUEST, backports=True), 12, ARCHIVE),
        Recipe(dataclasses.replace(GUEST, firmware=Firmware.BIOS), 12, ARCHIVE),
        Recipe(GUEST, 20, ARCHIVE),
        Recipe(GUEST, 12, dataclasses.replace(ARCHIVE, main=("http://other.example/debian",))),
        Recipe(GUEST, 12, dataclasses.replace(ARCHIVE, options=(("Acquire::Check-Date", "false"),))),
    ],
)
def test_another_recipe_has_another_key(other: Recipe) -> None:
    assert other.key() != RECIPE.key()
    assert other.uuids() != RECIPE.uuids()


@pytest.mark.parametrize(("where", "what"), [("PACKAGES", ("one",)), ("_GRUB", "GRUB_TIMEOUT=9\n")])
def test_another_guest_has_another_key(where: str, what: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = RECIPE.key()
    monkeypatch.setattr(guest, where, what)
    assert RECIPE.key() != before


def test_the_guests_files_belong_to_root_and_say_what_they_are() -> None:
    with tarfile.open(
        fileobj=io.BytesIO(guest.overlay(GUEST.files(ARCHIVE, FileSystems("some-uuid", "AB-CD"))))
    ) as tar:
        members = {member.name: member for member in tar.getmembers()}
        fstab = tar.extractfile("etc/fstab")
        assert fstab is not None
        assert fstab.read().splitlines() == [
            b"UUID=some-uuid / ext4 errors=remount-ro 0 1",
            b"UUID=AB-CD /boot/efi vfat umask=0077,x-systemd.device-timeout=300 0 1",
        ]
    assert all((member.uid, member.gid) == (0, 0) for member in members.values())
    assert members["usr/local/sbin/lab-seal"].mode == 0o755
    assert "etc/default/grub.d/10-lab.cfg" in members


def test_a_companys_key_is_one_of_the_guests_files(tmp_path: Path) -> None:
    key = tmp_path / "company.gpg"
    key.write_bytes(b"\x99binary")
    found = GUEST.files(dataclasses.replace(ARCHIVE, keyring=key), FileSystems("", ""))
    assert guest.GuestFile("etc/apt/keyrings/lab-archive.gpg", b"\x99binary") in found


def test_secure_boot_starts_from_the_same_disk_as_uefi() -> None:
    uefi, secure, bios = (Recipe.of(MachineSpec(firmware=kind), ARCHIVE) for kind in Firmware)
    assert uefi == secure != bios
    assert {"shim-signed", "grub-efi-amd64-signed"} <= set(uefi.guest.packages)
    assert "grub-pc" in bios.guest.packages


@pytest.mark.parametrize("firmware", [Firmware.UEFI, Firmware.BIOS])
def test_partitions_follow_each_other_and_leave_room_for_the_second_table(firmware: Firmware) -> None:
    recipe = Recipe.of(MachineSpec(firmware=firmware, disk_gb=4), ARCHIVE)
    loader, root = (
        [int(number) * 512 for number in re.findall(r"=(\d+),", line)]
        for line in recipe.partition_table().splitlines()[2:]
    )
    assert sum(loader) == root[0] == recipe.root_start
    assert root[1] == recipe.root_size
    assert sum(root) <= 4 * 1024**3 - 33 * 512


def test_backports_are_among_the_guests_sources_when_asked_for() -> None:
    def sources(kind: Guest) -> str:
        (found,) = [file for file in kind.files(ARCHIVE, FileSystems("", "")) if file.path.endswith(".sources")]
        return str(found.content)

    assert "Suites: trixie trixie-updates\n" in sources(GUEST)
    assert "Suites: trixie trixie-updates trixie-backports\n" in sources(dataclasses.replace(GUEST, backports=True))


def test_too_little_disk_space_is_refused_before_anything_is_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image.shutil, "disk_usage", lambda path: Usage(10**10, 10**10, 10**9))
    monkeypatch.setattr(programs, "execute", lambda *words, **options: pytest.fail("must not be started"))
    with pytest.raises(LabError) as caught:
        image.ensure_image(MachineSpec(), ARCHIVE, Reporter())
    assert "1.0 GB free, 5.0 GB are needed" in caught.value.message
    assert "XDG_CACHE_HOME" in caught.value.next_step


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.platform, "machine", lambda: "aarch64")
    with pytest.raises(LabError, match="aarch64"):
        image.ensure_image(MachineSpec(), ARCHIVE, Reporter())


class Tools:
    """Stands for the programs of a build: notes them and leaves behind what they would."""

    def __init__(self, seal: str = guest.SEAL_DONE) -> None:
        self.commands: list[list[str]] = []
        self._seal = seal

    def __call__(self, command: Sequence[str | Path], **options: Any) -> CompletedProcess[str]:
        words = [str(word) for word in command]
        self.commands.append(words)
        if words[0] == "mmdebstrap":
            Path(words[-2]).write_text("a tree")
        elif words[0] == "qemu-img":
            Path(words[-1]).write_text("an image")
        elif words[0] == "qemu-system-x86_64":
            console = words[words.index("-serial") + 1].removeprefix("file:")
            Path(console).write_text(f"Linux version 6\n{self._seal}\n")
        return CompletedProcess(words, 0, "", "")


def build(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(programs, "execute", tools)
    monkeypatch.setattr(accel, "choose", lambda: accel.TCG)
    monkeypatch.setattr(image.shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))
    return image.ensure_image(MachineSpec(), ARCHIVE, Reporter())


def test_a_build_ends_in_one_file_and_is_done_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "build-killed").mkdir(parents=True)
    tools = Tools()
    found = build(tools, monkeypatch)
    assert found.read_text() == "an image"
    assert sorted(path.name for path in cache.iterdir()) == ["build.lock", found.name]
    bootstrap = tools.commands[0]
    assert f"--include={','.join(GUEST.packages)}" in bootstrap
    assert bootstrap[-3] == "trixie"
    assert build(tools, monkeypatch) == found
    assert len(tools.commands) == 4


def test_without_root_the_files_get_a_pretended_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    tools = Tools()
    build(tools, monkeypatch)
    assert tools.commands[1][0] == "fakeroot"


def test_a_failed_seal_shows_the_console_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError) as caught:
        build(Tools(seal="grub-install: error: no disk"), monkeypatch)
    assert "grub-install: error: no disk" in caught.value.detail
    assert [path.name for path in cache.iterdir()] == ["build.lock"]


def test_an_unreachable_archive_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline(Tools):
        def __call__(self, command: Sequence[str | Path], **options: Any) -> CompletedProcess[str]:
            raise LocalError("mmdebstrap ended with exit code 25", "look", "E: could not connect")

    with pytest.raises(LocalError, match=r"http://mirror\.example/debian") as caught:
        build(Offline(), monkeypatch)
    assert "could not connect" in caught.value.detail


def test_a_lock_that_is_held_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(tmp_path / "lock", "testing", timeout=1):
            held.set()
            release.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    try:
        with (
            pytest.raises(LocalError, match="another rtinfra has been testing"),
            locked(tmp_path / "lock", "testing", timeout=0),
        ):
            pytest.fail("the lock is held by another")
    finally:
        release.set()
        holder.join()
