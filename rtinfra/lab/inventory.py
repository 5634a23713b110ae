"""The lab's inventory file: the machines that are up, in the format of the operator's own inventory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from ruamel.yaml import YAML


class Reachable(Protocol):
    """What the inventory needs to know of a machine."""

    @property
    def name(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def key_path(self) -> Path: ...
    @property
    def known_hosts_path(self) -> Path: ...
    @property
    def console_path(self) -> Path: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def lan_addresses(self) -> tuple[str, ...]: ...


def inventory_yaml(machines: Iterable[Reachable]) -> str:
    """The inventory with these machines, by name."""
    hosts = {
        machine.name: {
            "groups": list(machine.groups),
            "ssh": {
                "address": "127.0.0.1",
                "port": machine.port,
                "user": machine.user,
                # As it is for an ordinary user; the lab's own are made by cloud-init.
                **({} if machine.user == "root" else {"become": True}),
                "key": str(machine.key_path),
                "known_hosts": str(machine.known_hosts_path),
                "console_log": str(machine.console_path),
            },
            "settings": _settings(machine),
        }
        for machine in sorted(machines, key=lambda machine: machine.name)
    }
    buffer = io.StringIO()
    buffer.write("# Written by `rtinfra lab`: the lab machines that are up. Changes here are overwritten.\n")
    YAML().dump({"hosts": hosts}, buffer)
    return buffer.getvalue()


def _settings(machine: Reachable) -> dict[str, Any]:
    """What only the lab knows: by which addresses its machines reach each other."""
    addresses = list(machine.lan_addresses)
    if not addresses:
        return {}
    settings: dict[str, Any] = {"telemetry": {"address": addresses[0]}}
    if "gateways" in machine.groups:
        # One for each address: two gateways fit on one machine.
        settings["gateways"] = {"addresses": addresses}
    return settings
