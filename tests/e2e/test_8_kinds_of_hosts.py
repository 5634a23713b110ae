"""Hosts as people have them, each from bare to proven: deploy, trial boot, a second deploy, every control.

The scenarios before this one tell what a host does; these tell that it does so on every kind of it. One by one they are
`rtinfra prove`. What an operator's image with LVM, RAID or btrfs does is in `test_8_root_file_systems.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from rich.console import Console

from rtinfra import prove
from rtinfra.lab import DEFAULT_GROUPS, ConsoleReporter, Firmware, Machine, MachineSpec
from tests.e2e.conftest import LAB
from tests.e2e.operators_image import GRUB_DROP_IN, operators_image

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3600)]

#: What each one is, and in which groups beside those of every lab machine.
KINDS = {
    "BIOS": (MachineSpec(firmware=Firmware.BIOS), ()),
    "secure boot": (MachineSpec(firmware=Firmware.SECURE_BOOT), ()),
    "Debian 13, backports' kernel": (MachineSpec(backports=True), (prove.BACKPORTS_KERNEL,)),
    "Debian 12": (MachineSpec(suite="bookworm", backports=True), ()),
}


@pytest.fixture
def made() -> Iterator[list[Machine]]:
    """The machine of a scenario; switched off and thrown away at its end."""
    found: list[Machine] = []
    yield found
    for machine in found:
        machine.down()
        machine.disk_path.unlink(missing_ok=True)


def proven(made: list[Machine], spec: MachineSpec, groups: Sequence[str]) -> Machine:
    """Take a machine through all of it; fails at what does not hold."""
    machine = Machine("kind", spec=spec, root=LAB / "kinds", report=ConsoleReporter())
    made.append(machine)
    machine.join(*DEFAULT_GROUPS, *groups)
    proof = prove.of(machine, Console(width=160))
    assert proof.ok, proof.steps
    print(proof.steps)
    return machine


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_host_is_proven(name: str, made: list[Machine]) -> None:
    spec, groups = KINDS[name]
    machine = proven(made, spec, groups)
    firmware = machine.run("[ -d /sys/firmware/efi ] && mokutil --sb-state || echo BIOS", check=False).stdout.strip()
    expected = {
        Firmware.BIOS: "BIOS",
        Firmware.UEFI: "SecureBoot disabled",
        Firmware.SECURE_BOOT: "SecureBoot enabled",
    }
    assert firmware.splitlines()[0] == expected[spec.firmware]


def test_an_operators_own_image_is_proven(made: list[Machine]) -> None:
    """Driven as an ordinary user; the vendor's own settings are as they were."""
    image = operators_image(ConsoleReporter())
    with image.open("rb") as file:
        before = file.read(2**20)
    machine = proven(made, MachineSpec(image=str(image)), ())
    assert machine.user != "root"
    refused = machine.run("grep -rhs '^PermitRootLogin' /etc/ssh/sshd_config.d").stdout
    assert refused.strip() == "PermitRootLogin no"
    assert "GRUB_TIMEOUT=0" in machine.run(f"cat /{GRUB_DROP_IN}").stdout
    with image.open("rb") as file:
        assert file.read(2**20) == before, "the operator's file was written to"
