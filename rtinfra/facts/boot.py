"""What is booted, and what GRUB would boot next."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from rtinfra.facts import sections
from rtinfra.facts.files import PENDING_DIR

#: Pending marker of a changed GRUB drop-in. In /run, so it is gone after the reboot it asks for.
BOOT_MARKER = "restart@boot"

# Goes unquoted into a shell script, since a quoted glob would not match anything.
_PATTERN = re.compile(r"^[A-Za-z0-9.*+~_\-]+$")
_LINUX_LINE = re.compile(r"^\s*linux(?:16|efi)?\s+(\S+)\s*(.*)$")


@dataclass(frozen=True)
class BootState:
    """The booted kernel and its command line, against the entry that GRUB has for the wanted kernel.

    `installed` are the kernel releases in /boot that match the pattern, oldest first; `next_parameters` is
    None when grub.cfg has no entry for the newest of them. Parameters are without BOOT_IMAGE and initrd.
    `changed_since_boot` tells that a deploy changed the GRUB settings after the last boot.
    """

    boot_id: str
    release: str
    is_realtime: bool
    parameters: tuple[str, ...]
    installed: tuple[str, ...]
    next_parameters: tuple[str, ...] | None
    default_is_newest: bool
    changed_since_boot: bool

    @property
    def newest(self) -> str | None:
        """The kernel release that should run, None when none is installed."""
        return self.installed[-1] if self.installed else None


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split() if not word.startswith(("BOOT_IMAGE=", "initrd=")))


def parse_boot_state(lines: list[str]) -> BootState:
    """Build a BootState from the fact's output."""
    found = sections.parse(lines)

    def one(name: str) -> str:
        values = found.get(name) or [""]
        return values[0].strip()

    installed = tuple(line.strip() for line in found.get("installed", []) if line.strip())
    entries: dict[str, tuple[str, ...]] = {}
    for line in found.get("grub_cfg", []):
        match = _LINUX_LINE.match(line)
        if not match:
            continue
        release = match[1].rsplit("/vmlinuz-", 1)[-1]
        parameters = _words(match[2])
        # The recovery entry of a kernel follows its normal one.
        if "single" not in parameters:
            entries.setdefault(release, parameters)
    newest = installed[-1] if installed else None
    return BootState(
        boot_id=one("boot_id"),
        release=one("release"),
        is_realtime="PREEMPT_RT" in one("version"),
        parameters=_words(one("cmdline")),
        installed=installed,
        next_parameters=entries.get(newest) if newest else None,
        default_is_newest=bool(newest) and f">gnulinux-{newest}-advanced" in one("default"),
        changed_since_boot=one("changed") == "yes",
    )


class Boot(FactBase[BootState]):
    """State of the boot chain for kernels whose release matches `image_pattern` (a shell pattern)."""

    @override
    def command(self, image_pattern: str) -> StringCommand:
        if not _PATTERN.match(image_pattern):
            raise ValueError(f"{image_pattern!r} is not a pattern of a kernel release")
        return StringCommand(
            sections.script(
                {
                    "boot_id": "cat /proc/sys/kernel/random/boot_id",
                    "release": "uname -r",
                    "version": "uname -v",
                    "cmdline": "cat /proc/cmdline",
                    "installed": (
                        f"for k in /boot/vmlinuz-{image_pattern}; do "
                        'test -e "$k" && echo "${k#/boot/vmlinuz-}"; done | sort -V'
                    ),
                    "grub_cfg": "grep -E '^[[:space:]]*linux' /boot/grub/grub.cfg",
                    "changed": f"test -e {PENDING_DIR}/{BOOT_MARKER} && echo yes",
                    "default": "grep -E '^[[:space:]]*set default=.*gnulinux' /boot/grub/grub.cfg",
                }
            )
        )

    @override
    def process(self, output: list[str]) -> BootState:
        return parse_boot_state(list(output))
