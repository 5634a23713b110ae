"""A small made-up fleet for tests of telemetry roles: what a role gets to see, without an inventory or a store.

    site()                                          host rt1 alone, nobody else runs anything
    site(gateways=here())                           rt1 itself is a gateway, with the shipped settings
    site(gateways=(at("gw1", "192.0.2.11", ...),))  others are

`shipped("jaeger", retention="3d")` gives the settings of group_data/jaeger.yaml with changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from roles.site import Member, Part, Site, TelemetrySettings
from rtinfra.deb import LocalPackage
from rtinfra.operations.managed import File, Managed
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
    model = getattr(import_module(f"roles.{role}.model"), f"{role.title()}Settings")
    return model.model_validate(merged(_section(role, role), changes))


def rt_app(**changes: Any) -> Any:
    """Return the settings of the application as shipped, with changes: those of a member of `rt_hosts`."""
    from roles.rt_app.model import RtAppSettings

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


def at(host: str, address: str, settings: Any = None, tenant: str = "prod") -> Member:
    """Return a member that is another host; shipped settings unless told."""
    return Member(host, address, settings, tenant)


def site(
    host: str = "rt1",
    address: str = "192.0.2.1",
    *,
    shared: TelemetrySettings | None = None,
    housekeeping: str | None = None,
    **members: Member | Here | Sequence[Member | Here],
) -> Site:
    """Return the fleet as seen from `host`; `members` are those of each role."""

    def member(role: str, given: Member | Here) -> Member:
        settings = given.settings
        if settings is None:
            settings = rt_app() if role == "rt_hosts" else shipped(role)
        if isinstance(given, Here):
            return Member(host, address, settings, shared.tenant if shared else telemetry().tenant)
        return Member(given.host, given.address, settings, given.tenant)

    roles = {
        role: tuple(member(role, one) for one in ((given,) if isinstance(given, (Member, Here)) else given))
        for role, given in members.items()
    }
    return Site(
        host=host,
        address=address,
        telemetry=shared or telemetry(),
        roles=roles,
        secrets=FakeSecrets(),
        store=FakeStore(),
        housekeeping=housekeeping,
    )


def managed(part: Part, path: str) -> Managed:
    """Return what a part puts at a path of the host, containers' files included."""
    everything = [*part.paths, *(file for container in part.containers for file in container.config)]
    (found,) = [item for item in everything if item.path == path]
    return found


def text(part: Part, path: str) -> str:
    """Return the content of a file of a part."""
    file = managed(part, path)
    assert isinstance(file, File)
    return file.content.decode()


def document(part: Part, path: str) -> Any:
    """Return the content of a YAML file of a part."""
    return yaml.safe_load(text(part, path))
