"""Which hosts are verified: from what is written on a command line to typed hosts of the inventory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyinfra.api.exceptions import InventoryError

from roles.host import HostConfig, load_hosts
from rtinfra.config import ConfigError, FleetHost
from rtinfra.inventory import source
from rtinfra.paths import PROJECT, lab_inventory


class VerifyError(Exception):
    """A verification that could not even begin; the text says why."""


def inventory_file(inventory: Path | None) -> Path:
    """Return the YAML file or directory that an inventory given to pyinfra stands for.

    Raises:
        VerifyError: it does not exist, or is a Python inventory other than inventory/lab.py.
    """
    place = PROJECT / (inventory or "inventory")
    if place == PROJECT / "inventory" / "lab.py":
        place = lab_inventory()
    if place.is_dir():
        try:
            return source(place, lab_inventory())
        except InventoryError as error:
            raise VerifyError(str(error)) from error
    if not place.is_file():
        raise VerifyError(f"there is no inventory {place}")
    if place.suffix == ".py":
        raise VerifyError(f"{place} is a Python inventory; give the YAML file with the hosts")
    return place


def selected_hosts(inventory: Path, names: Sequence[str]) -> dict[str, FleetHost[HostConfig]]:
    """Load the named hosts of an inventory, or all of them.

    Raises:
        VerifyError: the configuration is wrong, or a host is not in it.
    """
    try:
        hosts = load_hosts(PROJECT, inventory).hosts
    except (ConfigError, OSError) as error:
        raise VerifyError(str(error)) from error
    if unknown := [name for name in names if name not in hosts]:
        raise VerifyError(f"no host {', '.join(unknown)} in {inventory}; it has {', '.join(hosts)}")
    return {name: host for name, host in hosts.items() if not names or name in names}
