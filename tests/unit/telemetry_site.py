"""A small made-up fleet for tests of telemetry roles: what a role gets to see, without an inventory or a store.

    view()                                          host rt1 alone, nobody else runs anything
    view(gateways=here())                           rt1 itself is a gateway, with the shipped settings
    view(gateways=(at("gw1", "192.0.2.11", ...),))  others are

`shipped("jaeger", retention="3d")` gives the settings of group_data/jaeger.yaml with changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from roles.catalogue import ROLES, SECTIONS
from roles.facets import Member
from roles.rt_app.model import RtAppSettings
from roles.shape import FleetView, RoleState
from roles.shared import BackendsSettings, TelemetrySettings
from rtinfra.config.sections import EVERY_HOST
from rtinfra.cpu import CpuLayout, Topology
from rtinfra.deb import LocalPackage
from rtinfra.operations.resources import File, Resource
from rtinfra.paths import PROJECT


class FakeStore:
    """Every image and package is there."""

    def image(self, name: str) -> str:
        return f"example.invalid/{name}@sha256:{'0' * 64}"

    def package(self, name: str) -> LocalPackage:
        return LocalPackage(Path(f"/store/{name}.deb"), name, "1.0")


class FakeSecrets:
    """Every secret is defined; its value says which one it is."""

    def read(self, name: str) -> bytes:
        return f"value-of-{name}".encode()


def _section(group: str, section: str) -> dict[str, Any]:
    document = yaml.safe_load((PROJECT / "group_data" / f"{group}.yaml").read_text(encoding="utf-8"))
    return dict(document[section])


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, mappings key by key, as the layers of an inventory are merged."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def shipped(role: str, **changes: Any) -> Any:
    """Return the settings of a telemetry role as shipped, with changes."""
    (section,) = (section for section in SECTIONS if section.name == role)
    file = "all" if section.group == EVERY_HOST else section.group
    return section.model.model_validate(merged(_section(file, role), changes))


def rt_app(**changes: Any) -> Any:
    """Return the settings of the application as shipped, with changes: those of a real-time host."""
    return RtAppSettings.model_validate(merged(_section("rt_hosts", "rt_app"), changes))


def telemetry(**changes: Any) -> TelemetrySettings:
    """Return the shared telemetry settings as shipped, with changes."""
    return TelemetrySettings.model_validate(merged(_section("all", "telemetry"), changes))


@dataclass(frozen=True)
class Here:
    """Stands for the site's own host among the members of a role."""

    settings: Any


def here(settings: Any = None) -> Here:
    """Return a member that is the site's own host; shipped settings unless told."""
    return Here(settings)


def at(host: str, address: str, settings: Any = None, tenant: str = "prod") -> Member[Any]:
    """Return a member that is another host; shipped settings unless told."""
    return Member(host, address, settings, tenant)


def layout(isolated: int = 2) -> CpuLayout:
    """Return the layout of a host with four CPUs, the last ones isolated."""
    topology = Topology.flat(4)
    own = frozenset(range(4 - isolated, 4))
    return CpuLayout(own, topology.online - own, topology)


def view(
    host: str = "rt1",
    address: str = "192.0.2.1",
    *,
    shared: TelemetrySettings | None = None,
    is_rt: bool = False,
    **members: Member[Any] | Here | Sequence[Member[Any] | Here],
) -> FleetView:
    """Return the fleet as seen from `host`; `members` are those of each role."""

    def member(role: str, given: Member[Any] | Here) -> Member[Any]:
        settings = given.settings
        if settings is None:
            settings = rt_app() if role == "rt_app" else shipped(role)
        if isinstance(given, Here):
            return Member(host, address, settings, shared.tenant if shared else telemetry().tenant)
        return Member(given.host, given.address, settings, given.tenant)

    return FleetView(
        host=host,
        address=address,
        telemetry=shared or telemetry(),
        backends=BackendsSettings.model_validate(_section("all", "backends")),
        by_section={
            role: tuple(member(role, one) for one in ((given,) if isinstance(given, (Member, Here)) else given))
            for role, given in members.items()
        },
        roles=ROLES,
        secrets=FakeSecrets(),
        store=FakeStore(),
        distribution="debian-13",
        layout=layout() if is_rt else None,
    )


def resource(state: RoleState, path: str) -> Resource:
    """Return what a part puts at a path of the host, containers' files included."""
    everything = [*state.files, *(file for container in state.containers for file in container.config)]
    (found,) = [item for item in everything if item.path == path]
    return found


def text(state: RoleState, path: str) -> str:
    """Return the content of a file of a part."""
    file = resource(state, path)
    assert isinstance(file, File)
    return file.content.decode()


def document(state: RoleState, path: str) -> Any:
    """Return the content of a YAML file of a part."""
    return yaml.safe_load(text(state, path))
