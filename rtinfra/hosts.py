"""Which hosts a command works on: from what is written on a command line to typed hosts of the inventory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyinfra.api.exceptions import InventoryError

from roles.fleet import load_hosts
from roles.host import HostConfig
from rtinfra.config import ConfigError, Fleet, FleetHost
from rtinfra.inventory import source
from rtinfra.paths import PROJECT, lab_inventory


class HostsError(Exception):
    """There are no hosts to work on; the text says why."""


def inventory_file(inventory: Path | None) -> Path:
    """Return the YAML file or directory that an inventory given to pyinfra stands for.

    Raises:
        HostsError: it does not exist, or is a Python inventory other than inventory/lab.py.
    """
    place = PROJECT / (inventory or "inventory")
    if place == PROJECT / "inventory" / "lab.py":
        place = lab_inventory()
    if place.is_dir():
        try:
            return source(place, lab_inventory())
        except InventoryError as error:
            raise HostsError(str(error)) from error
    if not place.is_file():
        raise HostsError(f"there is no inventory {place}")
    if place.suffix == ".py":
        raise HostsError(f"{place} is a Python inventory; give the YAML file with the hosts")
    return place


def fleet_in(inventory: Path) -> Fleet[HostConfig]:
    """Load every host of an inventory.

    Raises:
        HostsError: the configuration is wrong.
    """
    try:
        return load_hosts(PROJECT, inventory)
    except (ConfigError, OSError) as error:
        raise HostsError(str(error)) from error


def selected(fleet: Fleet[HostConfig], names: Sequence[str]) -> dict[str, FleetHost[HostConfig]]:
    """Return the named hosts of a fleet, or all of them.

    Raises:
        HostsError: a host is not in it.
    """
    if unknown := [name for name in names if name not in fleet.hosts]:
        raise HostsError(f"no host {', '.join(unknown)} in the inventory; it has {', '.join(fleet.hosts)}")
    return {name: host for name, host in fleet.hosts.items() if not names or name in names}
