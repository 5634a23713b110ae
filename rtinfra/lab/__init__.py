"""Lab machines: real Debian hosts under QEMU, on this computer, for demonstrations and end-to-end tests."""

from rtinfra.lab.errors import CommandFailed, LabError
from rtinfra.lab.firmware import Firmware
from rtinfra.lab.inventory import inventory_yaml
from rtinfra.lab.machine import DEFAULT_GROUPS, Machine, machines
from rtinfra.lab.spec import MachineSpec
from rtinfra.lab.status import MachineStatus
from rtinfra.lab.tools import ensure_tools
from rtinfra.local.progress import ConsoleReporter, Reporter

__all__ = [
    "DEFAULT_GROUPS",
    "CommandFailed",
    "ConsoleReporter",
    "Firmware",
    "LabError",
    "Machine",
    "MachineSpec",
    "MachineStatus",
    "Reporter",
    "ensure_tools",
    "inventory_yaml",
    "machines",
]
