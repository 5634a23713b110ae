"""The lab's inventory file: the machines that are up, in the format of the operator's own inventory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ruamel.yaml import YAML


class Reachable(Protocol):
    """What the inventory needs to know of a machine."""

    @property
    def name(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def key_path(self) -> Path: ...
    @property
    def known_hosts_path(self) -> Path: ...


def inventory_yaml(machines: Iterable[Reachable]) -> str:
    """The inventory with these machines, by name."""
    hosts = {
        machine.name: {
            "groups": ["rt_hosts", "lab"],
            "ssh": {
                "address": "127.0.0.1",
                "port": machine.port,
                "user": "root",
                "key": str(machine.key_path),
                "known_hosts": str(machine.known_hosts_path),
            },
            "settings": {},
        }
        for machine in sorted(machines, key=lambda machine: machine.name)
    }
    buffer = io.StringIO()
    buffer.write("# Written by `rtinfra lab`: the lab machines that are up. Changes here are overwritten.\n")
    YAML().dump({"hosts": hosts}, buffer)
    return buffer.getvalue()
