"""Operations of the `rt_kernel` role."""

from __future__ import annotations

from pathlib import Path

from pyinfra.api.deploy import deploy

from roles.rt_kernel.model import KernelSource, RtKernelSettings
from rtinfra.cpu import CpuLayout
from rtinfra.deb import package_name
from rtinfra.facts.boot import BOOT_MARKER
from rtinfra.operations import boot, packages
from rtinfra.operations import files as file_operations
from rtinfra.operations.managed import Action, File, Managed
from rtinfra.paths import PROJECT
from rtinfra.render import render

_UPDATE_GRUB = Action("update-grub", "update-grub")
_DEB_DIR = "/var/cache/rtinfra"


def source(settings: RtKernelSettings, distribution: str) -> KernelSource:
    """Return where the kernel of `distribution` (for example "debian-13") comes from.

    Raises:
        KeyError: when the settings name no source for it; the prerequisite checks refuse such a host first.
    """
    return {str(key): value for key, value in settings.sources.items()}[distribution]


def kernel_debs(settings: RtKernelSettings) -> dict[str, File]:
    """Local kernel packages, by Debian package name, as files on the host."""
    debs = {}
    for name in settings.debs:
        local = PROJECT / name
        target = f"{_DEB_DIR}/{Path(name).name}"
        debs[package_name(local)] = File(path=target, content=local.read_bytes())
    return debs


def boot_files(settings: RtKernelSettings, layout: CpuLayout, image_pattern: str) -> list[Managed]:
    """The GRUB drop-in: kernel command line, and the RT kernel as the default entry."""
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
def configure(settings: RtKernelSettings, layout: CpuLayout, distribution: str) -> None:
    """Install the kernel and write its command line. Nothing takes effect before `reboot`."""
    origin = source(settings, distribution)
    debs = kernel_debs(settings)
    file_operations.sync(
        name="boot loader and local packages",
        paths=[*boot_files(settings, layout, origin.image_pattern), *debs.values()],
    )
    # After the drop-in: the package's own hook runs update-grub, which then sees the final settings.
    packages.installed(
        name="kernel",
        names=() if debs else origin.packages,
        local=[f"{name}={file.path}" for name, file in debs.items()],
        target_release=origin.target_release,
    )


@deploy("rt_kernel")
def reboot(settings: RtKernelSettings, layout: CpuLayout, distribution: str) -> None:
    """Reboot when the booted kernel or command line differs from the wanted one."""
    boot.reboot_when_needed(
        name="reboot when needed",
        image_pattern=source(settings, distribution).image_pattern,
        parameters=settings.command_line(layout),
        allowed=settings.reboot == "when-needed",
        timeout_seconds=settings.reboot_timeout_seconds,
    )
