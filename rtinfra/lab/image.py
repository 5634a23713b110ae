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

from rtinfra.lab import accel, guest
from rtinfra.lab.errors import LabError
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
_BOOT_PARTITION_START = 1024**2
_ROOT_START = 2 * 1024**2
# The second GPT lives at the end of the disk.
_TAIL = 1024**2


def images_directory() -> Path:
    """``$XDG_CACHE_HOME/rtinfra/images``: everything in it can be built again."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "rtinfra" / "images"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the base image contains."""

    suite: str
    disk_gb: int
    archive: Archive

    def key(self) -> str:
        """The sha256 over the whole recipe; the same key means the same image."""
        files = guest.files(self.archive, self.suite, root_uuid="")
        content = {
            "format": FORMAT,
            "suite": self.suite,
            "disk_gb": self.disk_gb,
            "packages": guest.PACKAGES,
            "files": hashlib.sha256(guest.overlay(files)).hexdigest(),
            "commands": guest.finishing_commands(),
            "sources": guest_sources(self.archive, self.suite),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def root_uuid(self) -> str:
        """The UUID of the root file system, derived from the key so that it needs no record."""
        return str(uuid.UUID(self.key()[:32], version=4))


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
    recipe = Recipe(spec.suite, spec.disk_gb, archive)
    directory = images_directory()
    image = directory / f"debian-{spec.suite}-{recipe.key()[:16]}.qcow2"
    if image.exists():
        return image
    with locked(directory / "build.lock", "building a base image", timeout=1800):
        # Whoever held the lock before may have built it.
        if not image.exists():
            for leftover in directory.glob("build-*"):  # of a build that was killed; the lock says nobody's
                shutil.rmtree(leftover, ignore_errors=True)
            require_space(directory, BUILD_SPACE, "to build the base image")
            with tempfile.TemporaryDirectory(prefix="build-", dir=directory) as work:
                _build(recipe, Path(work), report).rename(image)
    return image


def _build(recipe: Recipe, work: Path, report: Reporter) -> Path:
    with report.step(f"Fetching a bare Debian ({recipe.suite}) from the configured archive", usual=60):
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
    overlay = work / "overlay.tar"
    overlay.write_bytes(guest.overlay(guest.files(recipe.archive, recipe.suite, recipe.root_uuid())))
    if os.geteuid() != 0:
        require_space(Path(tempfile.gettempdir()), TREE_SPACE, "to put the guest's files together")
    hooks = [f"--customize-hook=tar-in {overlay} /"]
    hooks += [f"--customize-hook=chroot \"$1\" sh -c '{line}'" for line in guest.finishing_commands()]
    bootstrap(
        recipe.archive,
        recipe.suite,
        variant="minbase",
        packages=guest.PACKAGES,
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
    size = recipe.disk_gb * 1024**3
    with disk.open("wb") as file:
        file.truncate(size)
    table = (
        "label: gpt\nfirst-lba: 2048\n"
        f"start={_BOOT_PARTITION_START // 512}, size={(_ROOT_START - _BOOT_PARTITION_START) // 512},"
        " type=21686148-6449-6E6F-744E-656564454649\n"  # BIOS boot: GRUB's core image
        f"start={_ROOT_START // 512}, size={(size - _ROOT_START - _TAIL) // 512},"
        " type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n"  # Linux root, x86-64
    )
    (work / "table").write_text(table, encoding="ascii")
    # Extract and format as one (pretended) root, so that owners and device nodes survive.
    script = (
        'set -e; tar --extract --numeric-owner --xattrs --xattrs-include="*" --file tree.tar --directory root;'
        " sfdisk --quiet disk.raw < table;"
        " cp root/vmlinuz kernel; cp root/initrd.img initramfs;"
        f" mke2fs -q -t ext4 -U {recipe.root_uuid()} -L root -d root"
        # Everything is initialised now: no background work in the guest later.
        f" -E offset={_ROOT_START},lazy_itable_init=0,lazy_journal_init=0"
        f" disk.raw {(size - _ROOT_START - _TAIL) // 1024}k"
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
    root = f"root={guest.ROOT_PARTITION} rw init={guest.SEAL_PROGRAM}"
    command += ["-append", f"{root} panic=-1 {guest.KERNEL_PARAMETERS}"]
    try:
        programs.execute(command, timeout=120 * acceleration.slowness)
        failure = ""
    except LocalError as error:
        failure = str(error)
    log = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
    if guest.SEAL_DONE not in log:
        raise LabError(
            f"the new Debian {recipe.suite} image could not install its boot loader. {failure}".rstrip(),
            "the end of its console above says why; try again, and report it when it stays",
            "\n".join(log.splitlines()[-25:]),
        )
