"""What a machine keeps while it is off: its disk, on top of an image that machines share, and UEFI's variables."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtinfra.lab import accel, image
from rtinfra.lab.errors import LabError
from rtinfra.lab.spec import MachineSpec
from rtinfra.local import archive, programs
from rtinfra.local.progress import Reporter

# What a machine usually writes while it is provisioned and tested.
SPACE = 3 * 1000**3


@dataclass(frozen=True)
class Storage:
    """The files of one machine."""

    disk: Path
    variables: Path
    """What UEFI firmware remembers; not there for a BIOS."""
    seed: Path
    """What an operator's image is told at its first start; not there for other machines."""

    @classmethod
    def of(cls, directory: Path) -> Storage:
        """Where they are in a machine's directory."""
        return cls(directory / "disk.qcow2", directory / "firmware.qcow2", directory / "seed.img")

    def exists(self) -> bool:
        """Whether the machine was made."""
        return self.disk.exists()

    def make(self, machine: str, spec: MachineSpec, report: Reporter) -> None:
        """Make what is not there yet."""
        if spec.firmware.is_uefi and not self.variables.exists():
            spec.firmware.make_variables(self.variables)
        if self.disk.exists():
            return
        image.require_space(self.disk.parent, SPACE, f"for the machine {machine}")
        if (warning := accel.weakness()) is not None:
            report.note(warning)
        if spec.image:
            base, kind, size = _operators_image(spec)
        else:
            base, kind, size = image.ensure_image(spec, archive.discover(), report), "qcow2", ()
        fresh = self.disk.with_suffix(".new")
        programs.execute(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", kind, fresh, *size], timeout=60)
        fresh.rename(self.disk)

    def remove(self) -> None:
        """Throw away all that the machine has kept."""
        for path in (self.disk, self.variables, self.seed):
            path.unlink(missing_ok=True)

    def copy_to(self, other: Storage) -> None:
        """Copy them as they are now; the disk has its name once all is whole."""
        copies = [(mine, theirs) for mine, theirs in self._beside(other) if mine.exists()]
        for mine, theirs in copies:
            fresh = theirs.with_suffix(".new")
            programs.execute(["cp", "--reflink=auto", "--sparse=always", mine, fresh], timeout=120)
        for _, theirs in copies:
            theirs.with_suffix(".new").rename(theirs)

    def require(self, machine: str) -> None:
        """Raise LabError when the machine was never made, or the image under its disk is gone."""
        if not self.exists():
            raise LabError(f"there is no machine called {machine}", f"make it: `rtinfra lab up {machine}`")
        base = Path(_information(self.disk)["full-backing-filename"])
        if not base.exists():
            raise LabError(
                f"the base image under the disk of {machine} is gone: {base}",
                f"`rtinfra lab reset {machine}` makes a fresh machine (what was on it is lost)",
            )

    def _beside(self, other: Storage) -> tuple[tuple[Path, Path], ...]:
        # The disk last: it says that the machine was made.
        return (self.variables, other.variables), (self.seed, other.seed), (self.disk, other.disk)


def _information(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        programs.execute(["qemu-img", "info", "-U", "--output=json", path], timeout=60).stdout
    )
    return found


def _operators_image(spec: MachineSpec) -> tuple[Path, str, tuple[str, ...]]:
    """An operator's image, its format, and the size of a disk on top of it: cloud images grow at their first start."""
    path = Path(spec.image)
    if not path.is_file():
        raise LabError(
            f"there is no image {path}", "name a file in a format that QEMU knows, such as a vendor's .qcow2 or .img"
        )
    information = _information(path)
    grown = spec.disk_gb * 1024**3 > int(information["virtual-size"])
    return path, str(information["format"]), (f"{spec.disk_gb}G",) if grown else ()


def require_same_kind(machine: str, made: MachineSpec, wanted: MachineSpec) -> None:
    """Raise LabError when a disk that was made for one shape is asked for in another that needs a fresh one."""
    if _kind(made) != _kind(wanted):
        raise LabError(
            f"the disk of {machine} is made for {_kind(made)}, not {_kind(wanted)}",
            f"`rtinfra lab reset {machine} {_options(made, wanted)}` makes a fresh one (what is on it is lost)",
        )


def _kind(spec: MachineSpec) -> str:
    if spec.image:
        return f"the image {spec.image} with {spec.disk_gb} GiB, started by {spec.firmware}"
    backports = " and backports" if spec.backports else ""
    return f"Debian {spec.suite}{backports} with {spec.disk_gb} GiB, started by {spec.firmware}"


def _options(made: MachineSpec, wanted: MachineSpec) -> str:
    """The options of the command line that ask for the kind that is wanted."""
    words = ["--disk", str(wanted.disk_gb), "--firmware", wanted.firmware]
    if wanted.image:
        words += ["--image", wanted.image]
    else:
        words += ["--release", wanted.suite, "--backports" if wanted.backports else "--no-backports"]
        words += ["--image", ""] if made.image else []
    return shlex.join(words)
