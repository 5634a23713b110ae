"""What starts a machine before its boot loader does: UEFI as computers have it today, or a BIOS."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from rtinfra.local import programs
from rtinfra.local.programs import Tool

# Where Debian's package `ovmf` has its files; those of 4 MiB are the only ones in newer releases.
_FOLDER = Path("/usr/share/OVMF")


class Firmware(StrEnum):
    """The kinds of firmware a machine may have."""

    UEFI = "uefi"
    SECURE_BOOT = "secure-boot"
    BIOS = "bios"

    @property
    def is_uefi(self) -> bool:
        """Whether it looks for its boot loader in an EFI system partition, and keeps variables."""
        return self is not Firmware.BIOS

    @property
    def machine(self) -> str:
        """QEMU's board. With secure boot only firmware itself, in system management mode, may write variables."""
        return "q35,smm=on" if self is Firmware.SECURE_BOOT else "q35"

    def arguments(self, variables: Path) -> list[str]:
        """QEMU's options for this firmware with a machine's own `variables`; none for a BIOS, which QEMU has itself."""
        if not self.is_uefi:
            return []
        words = ["-global", "driver=cfi.pflash01,property=secure,value=on"] if self is Firmware.SECURE_BOOT else []
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_FOLDER / _CODE[self]}"]
        words += ["-drive", f"if=pflash,unit=1,format=qcow2,file={variables}"]
        return words

    def make_variables(self, path: Path) -> None:
        """Write the variables of a computer that was never started; those for secure boot hold the usual keys.

        As qcow2: QEMU takes snapshots of a machine only when it can take one of all that the machine writes to. With a
        place for every byte (-S 0): firmware never flushes, so a power cut would lose what went to a new place.
        """
        fresh = path.with_suffix(".new")
        source = _FOLDER / _VARIABLES[self]
        programs.execute(["qemu-img", "convert", "-S", "0", "-f", "raw", "-O", "qcow2", source, fresh], timeout=60)
        fresh.rename(path)


_CODE = {Firmware.UEFI: "OVMF_CODE_4M.fd", Firmware.SECURE_BOOT: "OVMF_CODE_4M.secboot.fd"}
_VARIABLES = {Firmware.UEFI: "OVMF_VARS_4M.fd", Firmware.SECURE_BOOT: "OVMF_VARS_4M.ms.fd"}

#: What has to be on this computer for UEFI.
TOOLS = (Tool(str(_FOLDER / _CODE[Firmware.UEFI]), "ovmf"),)
