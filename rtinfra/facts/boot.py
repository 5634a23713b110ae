"""What is booted, and what GRUB would boot next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts import output_sections
from rtinfra.facts.output_sections import SectionsFact
from rtinfra.render import render
from rtinfra.terminal import plain

#: What a changed GRUB drop-in asks a "restart" of: the host.
BOOT = "boot"
#: The program on the host that freezes, tries, judges and promotes (templates/rt_kernel/boot.sh).
BOOT_PROGRAM = "/usr/local/lib/rtinfra/boot"
#: Makes the last known good entry the one that boots when nobody chooses.
DEFAULT_ENTRY_FILE = "/etc/default/grub.d/61-rtinfra-default.cfg"
#: While this file is there the host is not rebooted; it says why.
NO_REBOOT_FILE = "/etc/rtinfra/no-reboot"
#: Executables here say whether the host may be rebooted now: exit 0, or a reason on their output.
BUSY_HOOKS = "/etc/rtinfra/busy.d"

#: What GRUB starts when nobody chooses, as boot.sh names it.
GOOD_ENTRY = "rtinfra-good"
_STORE = "/boot/rtinfra"
_MENU = "/boot/grub/rtinfra.cfg"
#: Prints release, command line and our words of the last known good entry, when it is complete; the menu names it.
KEPT_SCRIPT = f"""d={_STORE}/$(sed -n 's/^# good //p' {_MENU})
test -s "$d/vmlinuz" && test -s "$d/initrd.img" && cat "$d/release" "$d/words" &&
sed -n "s/^PARAMETERS='\\(.*\\)'$/\\1/p" "$d"/wanted"""

# Goes unquoted into a shell script, since a quoted glob would not match anything.
_PATTERN = re.compile(r"^[A-Za-z0-9.*+~_\-]+$")
#: Reads GRUB's language on the host, as boot.sh does; what it can be asked stands in the file.
GRUB_READER = f"perl -e {shlex.quote(render('rt_kernel/grub-words.pl').decode())} --"

#: Prints what became of the last trial.
TRIAL_SCRIPT = f"cat {_STORE}/state"


@dataclass(frozen=True)
class Trial:
    """What became of the last trial boot; `at` is UTC, ISO 8601, `boot` the id of the boot that wrote this.

    `status` is armed, running, promoted, failed, or ended: over without a verdict, as by a power failure.
    """

    id: str
    status: str
    release: str
    at: str
    boot: str
    reason: str


@dataclass(frozen=True)
class Kept:
    """The last known good entry: the frozen kernel's release and its command line.

    `ours` are the words that the settings asked for when it was frozen.
    """

    release: str
    parameters: tuple[str, ...]
    ours: tuple[str, ...] = ()


@dataclass(frozen=True)
class BootState:
    """The booted kernel and its command line, against the entry that GRUB has for the newest kernel of ours.

    `installed` are the kernel releases in /boot that match the pattern, oldest first; `next_parameters` is
    None when grub.cfg has no entry for the newest of them. `next_variables` are, as name=value, all values that a
    variable of GRUB on its line may have. Parameters are without BOOT_IMAGE, initrd and the mark of
    our own entries.

    `good` is None when there is no complete last known good entry; `default_is_good` whether GRUB boots it by itself.
    `evidence` is what is left of a trial that failed, `guard` why somebody is against a reboot, None when nobody does.
    """

    boot_id: str
    release: str
    is_realtime: bool
    parameters: tuple[str, ...]
    installed: tuple[str, ...]
    next_parameters: tuple[str, ...] | None
    next_variables: tuple[str, ...] = ()
    good: Kept | None = None
    default_is_good: bool = False
    trial: Trial | None = None
    evidence: tuple[str, ...] = ()
    guard: str | None = None

    @property
    def trial_is_open(self) -> bool:
        """Whether a trial was booted, and what becomes of it is still to come."""
        if self.trial is None:
            return False
        # Armed in this boot it has not been booted yet; nobody may ever do it.
        return self.trial.status == "running" or (self.trial.status == "armed" and self.trial.boot != self.boot_id)

    @property
    def newest(self) -> str | None:
        """The kernel release that should run, None when none is installed."""
        return self.installed[-1] if self.installed else None


def parameter_name(word: str) -> str:
    """Return a parameter's name as the kernel compares it: a dash in it is an underscore."""
    return word.strip('"').partition("=")[0].replace("-", "_")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split() if not word.startswith(("BOOT_IMAGE=", "initrd=", "rtinfra.")))


def parse_boot_state(lines: Sequence[str], marker: str = output_sections.MARKER) -> BootState:
    """Build a BootState from the fact's output."""
    found = output_sections.parse(lines, marker)

    def one(name: str) -> str:
        values = found.get(name) or [""]
        return values[0].strip()

    installed = tuple(line.strip() for line in found.get("installed", []) if line.strip())
    entries: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for line in found.get("grub_cfg", []):
        image, separator, rest = line.partition("\t")
        if not separator:
            continue
        text, *maybe = rest.split("\t")
        parameters = _words(text)
        # The recovery entry of a kernel follows its normal one.
        if "single" not in parameters:
            entries.setdefault(image.rsplit("/vmlinuz-", 1)[-1], (parameters, tuple(maybe)))
    newest = installed[-1] if installed else None
    entry = entries.get(newest) if newest else None
    following, variables = entry or (None, ())
    guard = found.get("guard")
    return BootState(
        boot_id=one("boot_id"),
        release=one("release"),
        is_realtime="PREEMPT_RT" in one("version"),
        parameters=_words(one("cmdline")),
        installed=installed,
        next_parameters=following,
        next_variables=variables,
        good=parse_kept(found.get("kept", [])),
        default_is_good=one("default") == "yes" and one("saved_entry") == f"saved_entry={GOOD_ENTRY}",
        trial=parse_trial(found.get("trial", [])),
        evidence=tuple(map(plain, found.get("evidence", ()))),
        guard=plain(" ".join(guard[1:])).strip() or "it does not say why" if guard else None,
    )


def parse_kept(lines: list[str]) -> Kept | None:
    """Build the last known good entry from what KEPT_SCRIPT prints; None when there is no complete one."""
    if len(lines) < 2:
        return None
    return Kept(lines[0].strip(), _words(lines[1]), _words(lines[2]) if len(lines) > 2 else ())


def parse_trial(lines: list[str]) -> Trial | None:
    """Build the last trial from what TRIAL_SCRIPT prints; None when there was none."""
    values = dict(plain(line).partition("=")[::2] for line in lines)
    if "id" not in values or "status" not in values:
        return None
    return Trial(*(values.get(name, "") for name in ("id", "status", "release", "at", "boot", "reason")))


class Boot(SectionsFact[BootState]):
    """State of the boot chain for kernels whose release matches `image_pattern` (a shell pattern)."""

    @override
    def command(self, image_pattern: str) -> StringCommand:
        if not _PATTERN.match(image_pattern):
            raise ValueError(f"{image_pattern!r} is not a pattern of a kernel release")
        return self.asking(
            {
                "boot_id": "cat /proc/sys/kernel/random/boot_id",
                "release": "uname -r",
                "version": "uname -v",
                "cmdline": "cat /proc/cmdline",
                "installed": (
                    f"for k in /boot/vmlinuz-{image_pattern}; do "
                    "case $k in *.old | *.bak | *~ | *.dpkg-*) continue ;; esac; "
                    'test -e "$k" && echo "${k#/boot/vmlinuz-}"; done | sort -V'
                ),
                "grub_cfg": f"{GRUB_READER} lines /boot/grub/grub.cfg /boot/grub/grubenv",
                # Read by GRUB at boot: our menu, and the default from its environment.
                "default": (
                    "grep -q 'set default=\"${saved_entry}\"' /boot/grub/grub.cfg && "
                    "grep -q 'source .*rtinfra.cfg' /boot/grub/grub.cfg && echo yes"
                ),
                "saved_entry": "grep -a '^saved_entry=' /boot/grub/grubenv",
                "kept": KEPT_SCRIPT,
                "trial": TRIAL_SCRIPT,
                "evidence": f"tail -n 40 {_STORE}/evidence",
                "guard": f"test -e {NO_REBOOT_FILE} && echo yes && head -n 3 {NO_REBOOT_FILE}",
            }
        )

    @override
    def process(self, output: list[str]) -> BootState:
        return parse_boot_state(output, self.marker)
