"""An image as operators have it, made of Debian packages: what of a vendor's cloud image can be shown without one.

No root login, an ordinary user with sudo that cloud-init makes, netplan, names by systemd-resolved, and a GRUB drop-in
of the vendor's own that hides the menu and sets the console. A real Ubuntu's kernel, archive and subscription are not
in it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rtinfra.lab import Firmware
from rtinfra.lab.guest import KERNEL_PARAMETERS, FileSystems, Guest, GuestFile
from rtinfra.lab.image import Recipe, build, images_directory
from rtinfra.local.archive import Archive, discover
from rtinfra.local.progress import Reporter

_PACKAGES = ("cloud-guest-utils", "cloud-init", "netplan.io", "sudo", "systemd-resolved")
#: Where cloud images set GRUB; it comes before every drop-in of ours.
GRUB_DROP_IN = "etc/default/grub.d/50-cloudimg-settings.cfg"
_GRUB = f"""\
# Cloud image: nobody sits in front of it.
GRUB_RECORDFAIL_TIMEOUT=0
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT="{KERNEL_PARAMETERS}"
GRUB_TERMINAL=console
"""
_SSHD = "PermitRootLogin no\nPasswordAuthentication no\n"
# It looks nowhere else, which on a machine that is in no cloud would take minutes.
_SOURCES_OF_SETTINGS = "datasource_list: [NoCloud, None]\n"
# What only a machine of the lab is made of.
_LABS_OWN = (
    "etc/default/grub.d/10-lab.cfg",
    "etc/ssh/sshd_config.d/10-lab.conf",
    "etc/systemd/network/10-lab.network",
    "etc/systemd/system/lab-identity.service",
    "usr/local/sbin/lab-identity",
)


@dataclass(frozen=True)
class CloudGuest(Guest):
    """A Debian with the habits of cloud images."""

    @property
    def packages(self) -> tuple[str, ...]:
        return (*super().packages, *_PACKAGES)

    def files(self, archive: Archive, uuids: FileSystems) -> list[GuestFile]:
        kept = [file for file in super().files(archive, uuids) if file.path not in _LABS_OWN]
        return [
            # systemd-resolved has its own.
            *(file for file in kept if file.path != "etc/resolv.conf"),
            GuestFile(GRUB_DROP_IN, _GRUB),
            GuestFile("etc/ssh/sshd_config.d/60-cloudimg-settings.conf", _SSHD),
            GuestFile("etc/cloud/cloud.cfg.d/90_dpkg.cfg", _SOURCES_OF_SETTINGS),
        ]

    @property
    def finishing_commands(self) -> tuple[str, ...]:
        commands = [line for line in super().finishing_commands if not line.startswith("systemctl enable")]
        return (*commands, "systemctl enable systemd-networkd.service", "passwd -q -l root")


def operators_image(report: Reporter) -> Path:
    """The image, built when it is not there yet."""
    recipe = Recipe(CloudGuest("trixie", Firmware.UEFI, backports=False), 4, discover())
    path = images_directory() / f"operators-{recipe.key()[:16]}.qcow2"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="operators-", dir=path.parent) as work:
            build(recipe, Path(work), report).rename(path)
    return path
