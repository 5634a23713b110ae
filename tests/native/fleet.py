"""A small fleet with what the roles put on its hosts, as programs of a room. The one place that asks roles.

rt1  192.0.2.1         agent, the application's log files
gw   192.0.2.11, .12   two gateways
obs  192.0.2.20        Jaeger, Prometheus, Alertmanager and its alert log
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roles.catalogue import ROLES
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from rtinfra.quadlet import Container
from tests.native.room import Network, Program, own, put, unpack
from tests.unit.telemetry_site import at, shipped
from tests.unit.telemetry_site import view as fleet

ADDRESSES = ("192.0.2.1", "192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.20")
GATEWAYS = ("192.0.2.11", "192.0.2.12")
BACKENDS = "192.0.2.20"
IMAGES = ("otelcol", "jaeger", "prometheus", "alertmanager")
#: Any account that is not root: systemd gives the agent one by name.
_AGENT = 65534
_AGENT_UNIT = "/etc/systemd/system/rtinfra-otelcol.service"
_HOSTS = {"agents": ("rt1", "192.0.2.1"), "gateways": ("gw", "192.0.2.10")}


def settings(role: str) -> Any:
    """Return the settings of a role: as shipped, but for what a room of seconds needs."""
    changes: dict[str, dict[str, Any]] = {
        "gateways": {"addresses": list(GATEWAYS)},
        "prometheus": {"scrape_interval": "1s", "evaluation_interval": "1s"},
    }
    return shipped(role, **changes.get(role, {}))


def view(role: str) -> FleetView:
    """Return the fleet as the host of a role sees it."""
    roles = ("agents", "gateways", "jaeger", "prometheus", "alertmanager")
    members: dict[str, Any] = {name: at(*_place(name), settings(name)) for name in roles}
    return fleet(*_place(role), rt_app=at(*_place("agents")), **members)


def state(role: str) -> RoleState:
    """Return what a role puts on its host."""
    (found,) = (one.state_in(view(role)) for one in ROLES if one.name == role)
    return found


def containers(role: str) -> dict[str, Container]:
    """Return the containers of a role by name."""
    return {container.name: container for container in state(role).containers}


def files(role: str) -> Iterator[File]:
    """Yield the files that a role puts on its host, those of containers included."""
    found = state(role)
    for item in (*found.files, *(file for container in found.containers for file in container.config)):
        if isinstance(item, File):
            yield item


def in_room(container: Container, network: Network, work: Path) -> Program:
    """Lay out a container's image, files and directories, and return it as a program; it is not started."""
    root = work / container.name
    entrypoint = unpack(container.image, root)
    for file in container.config:
        put(root, container.config_mount + file.path.removeprefix(container.config_dir), file.content)
    for path in container.data.values():
        own(root, path, container.account.uid)
    return Program(
        network,
        root,
        (*entrypoint, *container.command),
        container.environment,
        container.ready,
        container.account.uid,
    )


def agent(network: Network, work: Path) -> Program:
    """Lay out the agent of rt1 as its unit has it started, and return it as a program; it is not started."""
    root = work / "agent"
    (program,) = unpack("otelcol", root)
    placed = {file.path: put(root, file.path, file.content, file.mode) for file in files("agents")}
    unit = placed[_AGENT_UNIT].read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    put(root, command.split()[0], (root / program.lstrip("/")).read_bytes(), "0755")
    for source, target in re.findall(r"^BindReadOnlyPaths=([^:\n]*):(.*)$", unit, re.MULTILINE):
        put(root, target, placed[source].read_bytes())
    (state,) = re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)
    for name in state.split():
        own(root, f"/var/lib/{name}", _AGENT)
    environment = dict(re.findall(r"^Environment=([^=\n]*)=(.*)$", unit, re.MULTILINE))
    (ready,) = re.findall(r"^ExecStartPost=.* (http://\S+) ", unit, re.MULTILINE)
    return Program(network, root, command.split(), environment, ready, _AGENT)


def checked(file: File) -> list[str]:
    """Return the command that a host has a file checked by, without the container around it; `{path}` is the file."""
    assert file.validate is not None
    return re.sub(r"^podman run .* \S+@sha256:\w+ ", "", file.validate).split()


def _place(role: str) -> tuple[str, str]:
    return _HOSTS.get(role, ("obs", BACKENDS))
