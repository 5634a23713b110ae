"""Operations of the `rt_kernel` role. docs/trial-boot.md tells how a change of the kernel comes into use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyinfra.api.deploy import deploy

from roles.rt_kernel.model import KernelSource, RtKernelSettings
from rtinfra.cpu import CpuLayout
from rtinfra.deb import LocalPackage
from rtinfra.deb import read as read_deb
from rtinfra.facts.boot import BOOT, BOOT_PROGRAM, DEFAULT_ENTRY_FILE
from rtinfra.operations import boot
from rtinfra.operations import files as file_operations
from rtinfra.operations.managed import DAEMON_RELOAD, Absent, Action, Directory, File, Managed, Unit
from rtinfra.paths import PROJECT
from rtinfra.render import render

#: Proves a trial; notes what became of one.
JUDGE: Final = "rtinfra-boot-judge.service"
SETTLE: Final = "rtinfra-boot-settle.service"
# Longer than any file system of a host takes to be found; then a hang is over.
_FEED_SECONDS = 180

_KEEP = Action("keep-last-known-good", f"{BOOT_PROGRAM} keep")
# The whole path: a shell may remember where it found the program before ours was there.
_UPDATE_GRUB = Action("update-grub", "/usr/local/sbin/update-grub")
# Before the reboot, so that a trial is judged; the units operation comes after it.
_ENABLE = Action("enable-boot-units", f"systemctl enable --quiet {JUDGE} {SETTLE}")


@dataclass(frozen=True)
class Watchdog:
    """The hardware watchdog to arm in the initramfs; `link` is the device's name that systemd is given.

    `module` and `identity` as in the settings of the role that feeds it.
    """

    module: str | None
    identity: str | None
    link: str


def source(settings: RtKernelSettings, distribution: str) -> KernelSource:
    """Return where the kernel of `distribution` (for example "debian-13") comes from.

    Raises:
        KeyError: when the settings name no source for it; the prerequisite checks refuse such a host first.
    """
    return {str(key): value for key, value in settings.sources.items()}[distribution]


def packages(settings: RtKernelSettings, distribution: str) -> list[str]:
    """Debian packages to install; none when local ones are used."""
    return [] if settings.debs else list(source(settings, distribution).packages)


def local_packages(settings: RtKernelSettings) -> list[LocalPackage]:
    """Local kernel packages."""
    return [read_deb(PROJECT / name) for name in settings.debs]


def guard_files(
    settings: RtKernelSettings, layout: CpuLayout, distribution: str, watchdog: Watchdog | None
) -> list[Managed]:
    """What keeps a host on its last known good kernel until another has proven itself.

    Placed before any package: a kernel that is installed must not be booted by the next power cut already.
    """
    pattern = source(settings, distribution).image_pattern
    scripts = {
        BOOT_PROGRAM: "boot.sh",
        "/usr/local/sbin/update-grub": "update-grub.sh",
        "/etc/kernel/prerm.d/rtinfra": "keep-kernel.sh",
        "/etc/grub.d/42_rtinfra": "menu.sh",
    }
    return [
        Directory(path="/etc/rtinfra"),
        Directory(path="/usr/local/lib/rtinfra"),
        File(
            path="/etc/rtinfra/boot.conf",
            content=render(
                "rt_kernel/boot.conf.j2",
                image_pattern=pattern,
                parameters=settings.command_line(layout),
                isolated=layout.isolated_list,
                deadline=settings.trial_seconds,
            ),
            validate="sh -n {path}",
        ),
        *(
            File(
                path=path,
                content=render(f"rt_kernel/{name}"),
                mode="0755",
                validate="sh -n {path}",
                actions=(_KEEP, _UPDATE_GRUB) if path.startswith("/etc/grub.d/") else (),
            )
            for path, name in scripts.items()
        ),
        File(path=DEFAULT_ENTRY_FILE, content=render("rt_kernel/default.cfg"), actions=(_KEEP, _UPDATE_GRUB)),
        *(
            File(
                path=f"/etc/systemd/system/{unit}",
                content=render(f"rt_kernel/{unit}.j2", deadline=settings.trial_seconds),
                actions=(DAEMON_RELOAD, _ENABLE),
            )
            for unit in (JUDGE, SETTLE)
        ),
        *_initramfs(pattern, watchdog),
    ]


def _initramfs(image_pattern: str, watchdog: Watchdog | None) -> list[Managed]:
    """A kernel that hangs before systemd runs is reset too: the initramfs arms the watchdog."""
    paths = {
        "/etc/initramfs-tools/hooks/rtinfra-watchdog": "watchdog-hook.sh.j2",
        "/etc/initramfs-tools/scripts/init-top/rtinfra-watchdog": "watchdog-init.sh.j2",
    }
    # Only of kernels that may be tried: the others stay as they came.
    rebuild = Action(
        "initramfs",
        f"for k in /boot/vmlinuz-{image_pattern}; do "
        '[ ! -e "$k" ] || update-initramfs -u -k "${k#/boot/vmlinuz-}" || exit 1; done',
    )
    if watchdog is None:
        return [Absent(path=path, actions=(rebuild,)) for path in paths]
    values = {
        "module": watchdog.module,
        "identity": watchdog.identity,
        "link": watchdog.link,
        "feed_seconds": _FEED_SECONDS,
    }
    return [
        File(
            path=path,
            content=render(f"rt_kernel/{name}", **values),
            mode="0755",
            validate="sh -n {path}",
            actions=(rebuild,),
        )
        for path, name in paths.items()
    ]


def files(settings: RtKernelSettings, layout: CpuLayout) -> list[Managed]:
    """The GRUB drop-in: our words of the kernel command line, for the entries that a trial is made from."""
    parameters = settings.command_line(layout)
    return [
        File(
            path="/etc/default/grub.d/60-rtinfra.cfg",
            content=render(
                "rt_kernel/grub.cfg.j2",
                parameters=parameters,
                names=[word.partition("=")[0] for word in parameters],
            ),
            validate="sh -n {path}",
            actions=(_UPDATE_GRUB,),
            restarts=(BOOT,),
        )
    ]


def units() -> list[Unit]:
    """Units that run at boot, once."""
    return [Unit(unit, running=None) for unit in (JUDGE, SETTLE)]


@deploy("rt_kernel")
def guard(paths: Sequence[Managed]) -> None:
    """Keep what is running as the last known good, from now on the default. Before anything else is changed."""
    file_operations.sync(name="last known good", paths=paths)


@deploy("rt_kernel")
def configure(paths: Sequence[Managed]) -> None:
    """Write the kernel's command line. Nothing takes effect before `reboot`."""
    file_operations.sync(name="boot loader", paths=paths)


@deploy("rt_kernel")
def reboot(settings: RtKernelSettings, layout: CpuLayout, distribution: str, hosts: int) -> None:
    """Boot the wanted kernel and command line on trial when they are not what runs; `hosts`: real-time ones in all."""
    boot.reboot_when_needed(
        name="reboot when needed",
        image_pattern=source(settings, distribution).image_pattern,
        parameters=settings.command_line(layout),
        minimum_release=settings.minimum_release,
        allowed=settings.reboot == "when-needed",
        timeout_seconds=settings.reboot_timeout_seconds,
        at_once=settings.reboots_of(hosts),
    )
