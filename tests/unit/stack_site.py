"""Two hosts with a few programs, for the tests of `rtinfra stack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roles.catalogue import STARTING_ORDER
from rtinfra.quadlet import Account, Container
from rtinfra.stack_programs import Program

INVENTORY = """hosts:
  robot: {groups: [rt_hosts, lab, agents], ssh: {address: 192.0.2.1}}
  backend: {groups: [gateways, jaeger, prometheus], ssh: {address: 192.0.2.2}}
"""


def write_inventory(folder: Path) -> Path:
    """Write the inventory of the two hosts; return its path."""
    path = folder / "hosts.yaml"
    path.write_text(INVENTORY)
    return path


def container(name: str) -> Container:
    return Container(
        name=name,
        description=name,
        image=name,
        account=Account(f"rtinfra-{name}", 421),
        command=("run",),
        config_mount="/etc/x",
        data={name: "/data"},
        ready=f"http://192.0.2.2:1/{name}",
        memory_max="1G",
        cpu_quota="100%",
    )


def program(name: str, role: str = "jaeger", host: str = "backend", **more: Any) -> Program:
    made = container(name)
    (tier,) = (one.tier for one in STARTING_ORDER if one.name == role)
    return Program(host, role, name, f"{name}.service", made, made.ready, tier=tier, **more)
