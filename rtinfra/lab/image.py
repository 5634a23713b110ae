"""The base image: a bare Debian on a disk with GRUB, built once and kept until its recipe changes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from rtinfra.lab import accel
from rtinfra.lab.errors import LabError
from rtinfra.lab.firmware import Firmware
from rtinfra.lab.guest import (
    KERNEL_PARAMETERS,
    ROOT_PARTITION,
    SEAL_DONE,
    SEAL_PROGRAM,
    FileSystems,
    Guest,
    overlay,
)
from rtinfra.lab.spec import MachineSpec
from rtinfra.local import programs
from rtinfra.local.archive import Archive, guest_sources
from rtinfra.local.bootstrap import bootstrap
from rtinfra.local.errors import LocalError
from rtinfra.local.file_lock import locked
from rtinfra.local.progress import Reporter

# Raised when the way of building changes without a change in packages, files or commands.
FORMAT = 1
# Room for the tree, the raw disk and the finished image at the same time (measured: about 3 GB).
BUILD_SPACE = 5 * 1000**3
# The tree alone.
TREE_SPACE = 1500 * 1000**2
# Partition 1, after the partition table: GRUB's core image, or the EFI system partition with room for two loaders.
_LOADER_START = 1024**2
_CORE_IMAGE_SIZE = 1024**2
_EFI_SIZE = 64 * 1024**2
# Types of partitions: BIOS boot, EFI system, Linux root of x86-64.
_CORE_IMAGE_TYPE = "21686148-6449-6E6F-744E-656564454649"
_EFI_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
# The second GPT lives at the end of the disk.
_TAIL = 1024**2


def images_directory() -> Path:
    """``$XDG_CACHE_HOME/rtinfra/images``: everything in it can be built again."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "rtinfra" / "images"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the base image contains."""

    guest: Guest
    disk_gb: int
    archive: Archive

    @classmethod
    def of(cls, spec: MachineSpec, archive: Archive) -> Recipe:
        """The recipe of the image that a machine of this shape starts from."""
        firmware = Firmware.UEFI if spec.firmware.is_uefi else Firmware.BIOS
        return cls(Guest(spec.suite, firmware, spec.backports), spec.disk_gb, archive)

    def key(self) -> str:
        """The sha256 over the whole recipe; the same key means the same image."""
        files = self.guest.files(self.archive, FileSystems("", ""))
        content = {
            "format": FORMAT,
            "suite": self.guest.suite,
            "disk_gb": self.disk_gb,
            "packages": self.guest.packages,
            "files": hashlib.sha256(overlay(files)).hexdigest(),
            "commands": self.guest.finishing_commands,
            "sources": guest_sources(self.archive, self.guest.suite, backports=self.guest.backports),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def uuids(self) -> FileSystems:
        """The serial numbers of the file systems, derived from the key so that they need no record."""
        key = self.key()
        serial = key[:8].upper()
        return FileSystems(str(uuid.UUID(key[:32], version=4)), f"{serial[:4]}-{serial[4:]}")

    @property
    def loader_size(self) -> int:
        """Bytes of the boot loader's partition."""
        return _EFI_SIZE if self.guest.firmware.is_uefi else _CORE_IMAGE_SIZE

    @property
    def root_start(self) -> int:
        """Byte at which the root file system begins."""
        return _LOADER_START + self.loader_size

    @property
    def root_size(self) -> int:
        """Bytes of the root file system."""
        return self.disk_gb * 1024**3 - self.root_start - _TAIL

    def partition_table(self) -> str:
        """What sfdisk(8) is told."""
        loader = _EFI_TYPE if self.guest.firmware.is_uefi else _CORE_IMAGE_TYPE
        return (
            "label: gpt\nfirst-lba: 2048\n"
            f"start={_LOADER_START // 512}, size={self.loader_size // 512}, type={loader}\n"
            f"start={self.root_start // 512}, size={self.root_size // 512}, type={_ROOT_TYPE}\n"
        )


def require_space(directory: Path, needed: int, purpose: str) -> None:
    """Refuse before starting when the file system of ``directory`` has less than ``needed`` bytes free."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise LabError(
            f"not enough disk space {purpose}: {directory} has {free / 1e9:.1f} GB free,"
            f" {needed / 1e9:.1f} GB are needed",
            "free some space there, or move the directory: XDG_CACHE_HOME says where images are kept,"
            " RTINFRA_LAB_DIR where the machines are, TMPDIR where temporary files are",
        )


def ensure_image(spec: MachineSpec, archive: Archive, report: Reporter) -> Path:
    """The base image for ``spec``, built now when it does not exist yet.

    Raises LabError for missing disk space, an archive that cannot be reached, or a failed build; a failed or
    interrupted build leaves nothing behind.
    """
    if platform.machine() != "x86_64":
        raise LabError(
            f"the lab builds machines for x86_64, and this machine is {platform.machine()}",
            "run the lab on an x86_64 machine",
        )
    recipe = Recipe.of(spec, archive)
    directory = images_directory()
    image = directory / f"debian-{recipe.guest.suite}-{recipe.guest.firmware}-{recipe.key()[:16]}.qcow2"
    if image.exists():
        return image
    with locked(directory / "build.lock", "building a base image", timeout=1800):
        # Whoever held the lock before may have built it.
        if not image.exists():
            for leftover in directory.glob("build-*"):  # of a build that was killed; the lock says nobody's
                shutil.rmtree(leftover, ignore_errors=True)
            require_space(directory, BUILD_SPACE, "to build the base image")
            with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as work:
                build(recipe, Path(work), report).rename(image)
    return image


def build(recipe: Recipe, work: Path, report: Reporter) -> Path:
    """Build an image in an empty folder and return its path there. Raises LocalError."""
    with report.step(f"Fetching a bare Debian ({recipe.guest.suite}) from the configured archive", usual=60):
        tree = _bootstrap(recipe, work)
    with report.step("Writing it to a disk image", usual=15):
        disk = _write_disk(recipe, work, tree)
    slow = accel.choose().slowness
    with report.step("Installing the boot loader inside the machine itself", usual=20 * slow):
        _seal(recipe, work, disk)
    with report.step("Packing the image", usual=10):
        image = work / "image.qcow2"
        programs.execute(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image], timeout=600)
    return image


def _bootstrap(recipe: Recipe, work: Path) -> Path:
    """Debian's packages and our files as a tar archive (no root needed: mmdebstrap finds a way)."""
    tree = work / "tree.tar"
    laid_over = work / "overlay.tar"
    laid_over.write_bytes(overlay(recipe.guest.files(recipe.archive, recipe.uuids())))
    if os.geteuid() != 0:
        require_space(Path(tempfile.gettempdir()), TREE_SPACE, "to put the guest's files together")
    hooks = [f"--customize-hook=tar-in {laid_over} /"]
    hooks += [f"--customize-hook=chroot \"$1\" sh -c '{line}'" for line in recipe.guest.finishing_commands]
    bootstrap(
        recipe.archive,
        recipe.guest.suite,
        variant="minbase",
        packages=recipe.guest.packages,
        hooks=hooks,
        target=tree,
        work=work,
    )
    return tree


def _write_disk(recipe: Recipe, work: Path, tree: Path) -> Path:
    """A raw disk with a partition table and the root file system; kernel and initramfs beside it."""
    root = work / "root"
    root.mkdir()
    disk = work / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(recipe.disk_gb * 1024**3)
    (work / "table").write_text(recipe.partition_table(), encoding="ascii")
    uuids = recipe.uuids()
    # FAT, without mounting it. mtools count sectors of 512 bytes.
    format_efi = (
        f" mformat -i disk.raw@@{_LOADER_START} -F -T {recipe.loader_size // 512} -N {uuids.efi.replace('-', '')} ::;"
    )
    # Extract and format as one (pretended) root, so that owners and device nodes survive.
    script = (
        'set -e; tar --extract --numeric-owner --xattrs --xattrs-include="*" --file tree.tar --directory root;'
        f" sfdisk --quiet disk.raw < table;{format_efi if recipe.guest.firmware.is_uefi else ''}"
        " cp root/vmlinuz kernel; cp root/initrd.img initramfs;"
        f" mke2fs -q -t ext4 -U {uuids.root} -L root -d root"
        # Everything is initialised now: no background work in the guest later.
        f" -E offset={recipe.root_start},lazy_itable_init=0,lazy_journal_init=0"
        f" disk.raw {recipe.root_size // 1024}k"
    )
    pretend = [] if os.geteuid() == 0 else ["fakeroot"]
    programs.execute([*pretend, "sh", "-c", script], timeout=600, cwd=work)
    tree.unlink()
    return disk


def _seal(recipe: Recipe, work: Path, disk: Path) -> None:
    """Boot the kernel directly, once, and let the guest write its own initramfs and boot loader."""
    console = work / "console.log"
    acceleration = accel.choose()
    command: list[str | Path] = ["qemu-system-x86_64", *acceleration.arguments, "-machine", "q35"]
    command += ["-m", "1024", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
    command += ["-device", "virtio-rng-pci", "-serial", f"file:{console}"]
    command += ["-kernel", work / "kernel", "-initrd", work / "initramfs"]
    root = f"root={ROOT_PARTITION} rw init={SEAL_PROGRAM}"
    command += ["-append", f"{root} panic=-1 {KERNEL_PARAMETERS}"]
    try:
        programs.execute(command, timeout=120 * acceleration.slowness)
        failure = ""
    except LocalError as error:
        failure = str(error)
    log = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
    if SEAL_DONE not in log:
        raise LabError(
            f"the new Debian {recipe.guest.suite} image could not install its boot loader. {failure}".rstrip(),
            "the end of its console above says why; try again, and report it when it stays",
            "\n".join(log.splitlines()[-25:]),
        )
