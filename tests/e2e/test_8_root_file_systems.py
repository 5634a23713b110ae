"""Root file systems as installers make them: what GRUB can write its environment to works, all else is refused first.

Each host is a real one: a lab machine whose Debian moves to a new file system in the free end of its disk, and starts
from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rtinfra.lab import DEFAULT_GROUPS, ConsoleReporter, Machine, MachineSpec
from rtinfra.local import programs
from rtinfra.runner import deploy
from tests.e2e.conftest import LAB, fingerprint

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3600)]

# GiB: the Debian that moves away, and the disk once it has room for another one.
_BEFORE, _AFTER = 4, 16


@dataclass(frozen=True)
class Layout:
    """A root file system in partition 4, with /boot in partition 3 or in it."""

    packages: str
    modules: str
    make: str
    """Commands that make `$root`, the device of the new root, out of /dev/vda4."""
    kind: str
    options: str = "defaults"
    boot_apart: bool = False


LAYOUTS = {
    "LVM, /boot apart": Layout(
        "lvm2",
        "dm-mod",
        "vgcreate -y vg /dev/vda4; lvcreate -y -q -l 90%FREE -n root vg; root=/dev/vg/root; mkfs.ext4 -q $root",
        "ext4",
        boot_apart=True,
    ),
    "LVM": Layout(
        "lvm2",
        "dm-mod",
        "vgcreate -y vg /dev/vda4; lvcreate -y -q -l 90%FREE -n root vg; root=/dev/vg/root; mkfs.ext4 -q $root",
        "ext4",
    ),
    "RAID 1": Layout(
        "mdadm",
        "raid1",
        # The second disk is missing, as after it failed.
        "mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 /dev/vda4 missing;"
        " mdadm --detail --scan >>/etc/mdadm/mdadm.conf; root=/dev/md0; mkfs.ext4 -q $root",
        "ext4",
    ),
    "btrfs": Layout("btrfs-progs", "btrfs", "root=/dev/vda4; mkfs.btrfs -q -f $root", "btrfs"),
}


def move(layout: Layout) -> str:
    """Return the script that moves a machine's Debian to another root file system."""
    boot = "mkdir -p /mnt/boot; mount /dev/vda3 /mnt/boot;" if layout.boot_apart else ""
    boot_line = 'echo "UUID=$(blkid -s UUID -o value /dev/vda3) /boot ext4 defaults 0 2";' if layout.boot_apart else ""
    return f"""set -eux
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends {layout.packages}
sfdisk --relocate gpt-bak-std /dev/vda
printf 'size=800M\\n+\\n' | sfdisk --append --no-reread --force /dev/vda
partx --update /dev/vda
udevadm settle
mkfs.ext4 -q /dev/vda3
for module in {layout.modules}; do modprobe $module; echo $module >>/etc/initramfs-tools/modules; done
{layout.make}
mount $root /mnt
{boot}
cp -ax /. /mnt/
cp -ax /boot/. /mnt/boot/
for place in dev proc sys run; do mount --rbind /$place /mnt/$place; done
mount /dev/vda1 /mnt/boot/efi
{{ echo "UUID=$(blkid -s UUID -o value $root) / {layout.kind} {layout.options} 0 1"; {boot_line}
  grep /boot/efi /etc/fstab; }} >/mnt/etc/fstab
chroot /mnt update-initramfs -u
chroot /mnt grub-install --target=x86_64-efi --efi-directory=/boot/efi --no-nvram --force-extra-removable
chroot /mnt update-grub
sync
"""


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A bare machine that starts from the layout that is asked for."""
    layout = LAYOUTS[request.param]
    machine = Machine("disks", spec=MachineSpec(disk_gb=_BEFORE), root=LAB / "disks", report=ConsoleReporter())
    machine.join(*DEFAULT_GROUPS)
    machine.reset()
    machine.down()
    programs.execute(["qemu-img", "resize", "-q", machine.disk_path, f"{_AFTER}G"], timeout=60)
    machine.boot()
    print(machine.run(move(layout), timeout=1800).stdout[-1000:])
    before = machine.boot_id()
    machine.run("systemctl reboot", check=False)
    machine.wait_for_new_boot(before)
    yield machine
    machine.down()
    machine.disk_path.unlink()


@pytest.mark.parametrize("host", ["LVM, /boot apart"], indirect=True)
def test_a_root_on_lvm_works_when_boot_is_apart(host: Machine) -> None:
    assert "/dev/mapper/vg-root" in host.run("findmnt -n -o SOURCE /").stdout
    first = deploy(str(host.root), say=print)
    assert first.ok, first.log
    assert "PREEMPT_RT" in host.run("uname -v").stdout
    assert "promoted" in host.run("cat /boot/rtinfra/state").stdout
    second = deploy(str(host.root), say=print)
    assert second.ok, second.log
    assert second.changed == 0, second.changed_operations


@pytest.mark.parametrize(
    ("host", "source", "said"),
    [
        ("LVM", "/dev/mapper/vg-root", "has /boot/grub on ext4 on lvm"),
        ("RAID 1", "/dev/md0", "has /boot/grub on ext4 on raid1"),
        ("btrfs", "/dev/vda4", "has /boot/grub on btrfs"),
    ],
    indirect=["host"],
)
def test_where_grub_cannot_write_nothing_is_changed(host: Machine, source: str, said: str) -> None:
    assert source in host.run("findmnt -n -v -o SOURCE /").stdout
    before = fingerprint(host)
    result = deploy(str(host.root), say=print)
    assert not result.ok
    assert said in result.log, result.log
    assert "where GRUB cannot write" in result.log
    assert fingerprint(host) == before
