"""Operations of the `rt_kernel` role."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra.api.deploy import deploy

from roles.rt_kernel.model import KernelSource, RtKernelSettings
from rtinfra.cpu import CpuLayout
from rtinfra.deb import LocalPackage
from rtinfra.deb import read as read_deb
from rtinfra.facts.boot import BOOT_MARKER
from rtinfra.operations import boot
from rtinfra.operations import files as file_operations
from rtinfra.operations.managed import Action, File, Managed
from rtinfra.paths import PROJECT
from rtinfra.render import render

_UPDATE_GRUB = Action("update-grub", "update-grub")


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


def files(settings: RtKernelSettings, layout: CpuLayout, distribution: str) -> list[Managed]:
    """The GRUB drop-in: kernel command line, and the RT kernel as the default entry."""
    image_pattern = source(settings, distribution).image_pattern
    return [
        File(
            path="/etc/default/grub.d/60-rtinfra.cfg",
            content=render(
                "rt_kernel/grub.cfg.j2",
                parameters=settings.command_line(layout),
                names=[word.partition("=")[0] for word in settings.command_line(layout)],
                image_pattern=image_pattern,
            ),
            validate="sh -n {path}",
            actions=(_UPDATE_GRUB,),
            restarts=(BOOT_MARKER.removeprefix("restart@"),),
        )
    ]


@deploy("rt_kernel")
def configure(paths: Sequence[Managed]) -> None:
    """Write the kernel's command line. Nothing takes effect before `reboot`."""
    file_operations.sync(name="boot loader", paths=paths)


@deploy("rt_kernel")
def reboot(settings: RtKernelSettings, layout: CpuLayout, distribution: str) -> None:
    """Reboot when the booted kernel or command line differs from the wanted one."""
    boot.reboot_when_needed(
        name="reboot when needed",
        image_pattern=source(settings, distribution).image_pattern,
        parameters=settings.command_line(layout),
        minimum_release=settings.minimum_release,
        allowed=settings.reboot == "when-needed",
        timeout_seconds=settings.reboot_timeout_seconds,
    )
