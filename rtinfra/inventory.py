"""From the operator's YAML, or a lab machine that is up, to the hosts pyinfra connects to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import InventoryError
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.inventory import Inventory

from rtinfra.config import Fleet, FleetHost

#: Host data under this key holds the host's FleetHost.
HOST_DATA_KEY = "rtinfra"
#: And under this one the fleet it belongs to.
FLEET_DATA_KEY = "rtinfra_fleet"
EXAMPLE = "hosts.example.yaml"

Groups = dict[str, list[tuple[str, dict[str, Any]]]]


def source(directory: Path, lab: Path) -> Path:
    """Return where the hosts of an inventory directory come from.

    The operator's own files win over the lab machine, so that a lab left running never hides real hosts.

    Raises:
        InventoryError: when there is neither, saying what to create.
    """
    if any(not path.name.endswith(".example.yaml") for path in directory.glob("*.yaml")):
        return directory
    if lab.is_file():
        return lab
    raise InventoryError(
        f"there are no hosts yet. Copy {directory.name}/{EXAMPLE} to {directory.name}/hosts.yaml and put your "
        "hosts there, or start a lab machine with `make demo` (or `rtinfra lab up`)."
    )


def groups(fleet: Fleet[Any]) -> Groups:
    """Return a fleet the way a pyinfra inventory file would: hosts with data, by group."""
    found: Groups = {}
    for host in fleet.hosts.values():
        entry = (host.name, {**host.ssh.connector_data(), HOST_DATA_KEY: host, FLEET_DATA_KEY: fleet})
        for group in host.groups or ("ungrouped",):
            found.setdefault(group, []).append(entry)
    return found


def make_inventory(fleet: Fleet[Any], override_data: dict[str, Any] | None = None) -> Inventory:
    """Return the pyinfra inventory of a fleet."""
    every = list({name: (name, data) for hosts in groups(fleet).values() for name, data in hosts}.values())
    named: dict[str, tuple[list[str], dict[str, Any]]] = {
        group: ([name for name, _ in hosts], {}) for group, hosts in groups(fleet).items()
    }
    return Inventory((every, {}), override_data=override_data, **named)  # type: ignore[no-untyped-call]


def fleet_host_of(host: PyinfraHost) -> FleetHost[Any]:
    """Return the settings of the host that pyinfra works on.

    Raises:
        InventoryError: when the host came from elsewhere than this project's inventory.
    """
    found = host.host_data.get(HOST_DATA_KEY)
    if not isinstance(found, FleetHost):
        raise InventoryError(
            f"{host.name} has no settings: list it in inventory/hosts.yaml (see inventory/{EXAMPLE}) and run "
            "`pyinfra inventory deploy.py`"
        )
    return found


def fleet_of(host: PyinfraHost) -> Fleet[Any]:
    """Return the fleet that the host pyinfra works on belongs to; call fleet_host_of first."""
    fleet: Fleet[Any] = host.host_data[FLEET_DATA_KEY]
    return fleet
