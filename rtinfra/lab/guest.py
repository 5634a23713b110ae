"""What a lab machine is made of: its packages and the few files that differ from a plain Debian.

The result is a bare Debian server as the installer leaves it: kernel, systemd, ssh, GRUB on the disk.
Everything here is part of the recipe: a change here makes a new base image.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

from rtinfra.lab.firmware import Firmware
from rtinfra.local.archive import Archive, guest_keyring, guest_options, guest_sources

PACKAGES = (
    "ca-certificates",
    "dbus",
    "init",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "linux-image-amd64",
    "logrotate",
    "netbase",
    "openssh-server",
    "procps",
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "zstd",
)

# As Debian's installer leaves them; those that Microsoft's key vouches for start with and without secure boot.
_LOADER_PACKAGES = ("grub-pc",)
_UEFI_LOADER_PACKAGES = ("dosfstools", "efibootmgr", "grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed")

# The disk of every guest: virtio, GPT, partition 1 for the boot loader, partition 2 the root.
DISK = "/dev/vda"
LOADER_PARTITION = f"{DISK}1"
ROOT_PARTITION = f"{DISK}2"
SEAL_PROGRAM = "/usr/local/sbin/lab-seal"
SEAL_DONE = "LAB-SEAL-DONE"
SEAL_FAILED = "LAB-SEAL-FAILED"


@dataclass(frozen=True)
class GuestFile:
    """A file of the guest, owned by root."""

    path: str
    content: str | bytes
    mode: int = 0o644


_NETWORK = """\
# User-mode network of QEMU: one card, addresses by DHCP.
[Match]
Type=ether

[Network]
DHCP=yes
"""

# The kernel counts timer interrupts against a busy loop and panics ("IO-APIC + timer doesn't work") when few
# arrive; on a busy host an emulated machine is given too little time for them. Linux skips this check by itself
# under hypervisors it knows, but not under QEMU's software emulation.
KERNEL_PARAMETERS = "console=ttyS0,115200 no_timer_check"

_GRUB = f"""\
# Lab machine: no waiting, and the boot loader, the kernel and systemd talk on the serial console, which is
# logged on the host (`rtinfra lab log`).
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {KERNEL_PARAMETERS}"
GRUB_TERMINAL="serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
"""

_UNSAFE_IO = """\
# Lab speed only, never on a real host: dpkg does not wait for the disk after every file. A power cut in the
# middle of an installation may cost files here.
force-unsafe-io
"""

_INITRAMFS = """\
# Lab speed only: an initramfs with the drivers of this one machine is written and loaded several times
# faster under software emulation. A real host keeps MODULES=most and may change its hardware.
MODULES=dep
# The default of 9 takes seven times as long to save a seventh (initramfs.conf(5)).
COMPRESSLEVEL=1
"""

_SSHD = """\
# root logs in with the lab's key only.
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
"""

# The base image is shared; what makes a machine itself comes in from the host as systemd credentials
# (systemd.system-credentials(7)): root's authorized key is put in place by systemd, these two by this unit.
_IDENTITY_UNIT = """\
[Unit]
Description=Lab machine: name and ssh host key given by the host
ConditionCredential=lab.host_key
Before=ssh.service

[Service]
Type=oneshot
LoadCredential=lab.host_key
LoadCredential=lab.hostname
ExecStart=/usr/local/sbin/lab-identity

[Install]
WantedBy=multi-user.target
"""

_IDENTITY = """\
#!/bin/sh
# Give this machine the name and the ssh host key that the host chose for it.
set -eu
key=/etc/ssh/ssh_host_ed25519_key
if ! cmp -s "$CREDENTIALS_DIRECTORY/lab.host_key" "$key"; then
    install -m 0600 "$CREDENTIALS_DIRECTORY/lab.host_key" "$key"
    ssh-keygen -y -f "$key" > "$key.pub"
fi
name=$(cat "$CREDENTIALS_DIRECTORY/lab.hostname")
if [ "$(cat /etc/hostname)" != "$name" ]; then
    printf '%s\\n' "$name" > /etc/hostname
    printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$name" > /etc/hosts
fi
cat /etc/hostname > /proc/sys/kernel/hostname
"""

# Also to the place where firmware looks that was never told of an operating system, as in every new machine.
_INSTALL_FOR_UEFI = (
    f"mount -t vfat {LOADER_PARTITION} /boot/efi && grub-install --target=x86_64-efi --efi-directory=/boot/efi"
    " --no-nvram --force-extra-removable"
)
_INSTALL_FOR_BIOS = f"grub-install --target=i386-pc {DISK}"

# Runs once as process 1, in the machine the image is for: GRUB finds its disk and the initramfs its drivers.
_SEAL = f"""\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs run /run 2>/dev/null
if update-initramfs -u && @INSTALL@ && update-grub; then
    rm -f {SEAL_PROGRAM} /var/lib/dbus/machine-id /var/log/*.log
    : > /etc/machine-id
    umount /boot/efi 2>/dev/null
    sync
    mount -o remount,ro /
    echo {SEAL_DONE}
else
    echo {SEAL_FAILED}
fi
echo o > /proc/sysrq-trigger
sleep 60
"""

# Background work at random moments would make scenarios differ from run to run.
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer")
_ENABLED = ("systemd-networkd.service", "lab-identity.service")


@dataclass(frozen=True)
class FileSystems:
    """Serial numbers of a guest's file systems: UUID of the root, and of the EFI system partition, if it has one."""

    root: str
    efi: str


@dataclass(frozen=True)
class Guest:
    """What a lab machine is made of."""

    suite: str
    firmware: Firmware
    """UEFI for machines with secure boot too: they start from the same disk."""
    backports: bool

    @property
    def packages(self) -> tuple[str, ...]:
        """What is installed."""
        return (*PACKAGES, *(_UEFI_LOADER_PACKAGES if self.firmware.is_uefi else _LOADER_PACKAGES))

    def files(self, archive: Archive, uuids: FileSystems) -> list[GuestFile]:
        """The files laid over the packages."""
        fstab = f"UUID={uuids.root} / ext4 errors=remount-ro 0 1\n"
        if self.firmware.is_uefi:
            # On a busy computer an emulated machine may find it after systemd's 90 s, which end in emergency mode.
            fstab += f"UUID={uuids.efi} /boot/efi vfat umask=0077,x-systemd.device-timeout=300 0 1\n"
        seal = _SEAL.replace("@INSTALL@", _INSTALL_FOR_UEFI if self.firmware.is_uefi else _INSTALL_FOR_BIOS)
        found = [
            GuestFile("etc/fstab", fstab),
            GuestFile("etc/hostname", "debian\n"),
            GuestFile("etc/hosts", "127.0.0.1 localhost\n"),
            # QEMU's user-mode network answers names at this address.
            GuestFile("etc/resolv.conf", "nameserver 10.0.2.3\n"),
            GuestFile("etc/systemd/network/10-lab.network", _NETWORK),
            GuestFile(
                "etc/apt/sources.list.d/debian.sources", guest_sources(archive, self.suite, backports=self.backports)
            ),
            GuestFile("etc/apt/apt.conf.d/90lab", 'Acquire::Languages "none";\n' + guest_options(archive)),
            GuestFile("etc/default/grub.d/10-lab.cfg", _GRUB),
            GuestFile("etc/dpkg/dpkg.cfg.d/lab-unsafe-io", _UNSAFE_IO),
            GuestFile("etc/initramfs-tools/conf.d/lab-modules", _INITRAMFS),
            GuestFile("etc/ssh/sshd_config.d/10-lab.conf", _SSHD),
            GuestFile("etc/systemd/system/lab-identity.service", _IDENTITY_UNIT),
            GuestFile("usr/local/sbin/lab-identity", _IDENTITY, 0o755),
            GuestFile(SEAL_PROGRAM.lstrip("/"), seal, 0o755),
        ]
        key = str(guest_keyring(archive))
        if key != str(archive.keyring):
            found.append(GuestFile(key.lstrip("/"), archive.keyring.read_bytes()))
        return found

    @property
    def finishing_commands(self) -> tuple[str, ...]:
        """Shell commands run in the guest's tree after its packages and files are in place."""
        # So that a later upgrade of GRUB knows its disk, or writes where firmware looks first.
        if self.firmware.is_uefi:
            loader = "grub-efi-amd64 grub2/force_efi_extra_removable boolean true"
        else:
            loader = f"grub-pc grub-pc/install_devices multiselect {DISK}"
        return (
            # Each machine gets its own.
            "rm -f /etc/ssh/ssh_host_*",
            # mmdebstrap's own list of sources, replaced by debian.sources.
            "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/0000*",
            f"systemctl enable {' '.join(_ENABLED)}",
            f"systemctl mask {' '.join(_MASKED)}",
            # Where the boot loader's partition is mounted.
            *(("mkdir -p /boot/efi",) if self.firmware.is_uefi else ()),
            f"echo {loader} | debconf-set-selections",
        )


def overlay(found: list[GuestFile]) -> bytes:
    """The files as a tar archive, the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in found:
            content = file.content.encode() if isinstance(file.content, str) else file.content
            entry = tarfile.TarInfo(file.path)
            entry.size = len(content)
            entry.mode = file.mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
