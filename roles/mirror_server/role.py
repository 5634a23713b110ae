"""The `mirror_server` role: serves the live release of the offline mirror."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from ipaddress import IPv6Address

from roles.facets import Bound, Listener
from roles.mirror_client.model import MIRROR_CLIENT
from roles.mirror_place import MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER, REGISTRY_UNIT, WEB_UNIT, MirrorServerSettings
from roles.shape import FleetView, Phase, Role, RoleState
from rtinfra.facts.mirror import CERTIFICATES, Index
from rtinfra.operations import files as file_operations
from rtinfra.operations import mirror as mirror_operations
from rtinfra.operations import packages as package_operations
from rtinfra.operations import units as unit_operations
from rtinfra.operations.resources import DAEMON_RELOAD, File, Resource, Unit
from rtinfra.render import render

#: The source this host takes nginx and the registry from; apt is told of it for that alone.
OWN_SOURCE = f"{CERTIFICATES}/own.sources"

_UNITS = "/etc/systemd/system"


def state(settings: MirrorServerSettings, view: FleetView) -> RoleState:
    """Return files, packages, units, and the step that serves them before any client of the mirror is worked on.

    Certificates are not among the files: they are made on the host.
    """
    if view.mirror is None:
        raise ValueError(view.mirror_problem)
    place = view.mirror.place
    # Without a release there is nothing to serve, and such a host is refused.
    own = source(place, view.mirror.live.index) if view.mirror.live else []
    paths = files(settings, place)
    return RoleState(
        files=(*own, *paths),
        units=tuple(units()),
        packages=settings.packages,
        steps={Phase.SERVE: partial(serve, settings, place, own, paths)},
    )


def source(place: MirrorPlace, index: Index) -> list[Resource]:
    """Return the apt source of this host's own packages: a folder of its own disk."""
    return [
        File(
            path=OWN_SOURCE,
            content=render(
                "mirror_server/own.sources.j2",
                uri=f"file:{place.live}/apt",
                index=index,
                key=f"{place.live}/key.asc",
            ),
        )
    ]


def files(settings: MirrorServerSettings, place: MirrorPlace) -> list[Resource]:
    """Every path this role manages besides certificates and source."""
    return [
        # Whole files: those that Debian ships serve a page over plain HTTP, and take pushed images from everywhere.
        File(
            path="/etc/nginx/nginx.conf",
            content=render(
                "mirror_server/nginx.conf.j2",
                settings=settings,
                root=place.live,
                certificates=CERTIFICATES,
                listen=listeners(place),
            ),
            validate="nginx -t -q -c {path}",
            restarts=(WEB_UNIT,),
        ),
        File(
            path="/etc/docker/registry/config.yml",
            content=render("mirror_server/registry.yml.j2", settings=settings, root=f"{place.live}/registry"),
            restarts=(REGISTRY_UNIT,),
        ),
        *(
            File(
                path=f"{_UNITS}/{unit}.d/60-rtinfra.conf",
                content=render(f"mirror_server/{unit}.conf.j2"),
                actions=(DAEMON_RELOAD,),
                restarts=(unit,),
            )
            for unit in (WEB_UNIT, REGISTRY_UNIT)
        ),
    ]


def listeners(place: MirrorPlace) -> list[str]:
    """Return what nginx listens on: every IPv4 address, and every IPv6 address where clients use one."""
    return [f"{place.port}", *([f"[::]:{place.port}"] if isinstance(place.ip, IPv6Address) else [])]


def names(settings: MirrorServerSettings, place: MirrorPlace) -> list[str]:
    """Return what the certificate is for."""
    return [place.address, place.host, *settings.certificate.names]


def units() -> list[Unit]:
    """Every unit this role has a say in."""
    return [Unit(REGISTRY_UNIT), Unit(WEB_UNIT)]


def serve(
    settings: MirrorServerSettings, place: MirrorPlace, own_source: Sequence[Resource], paths: Sequence[Resource]
) -> None:
    """Serve the live release; all of it before any client of the mirror is worked on.

    `own_source` are the paths of `source`, `paths` those of `files`.
    """
    file_operations.sync(name="source", paths=own_source)
    package_operations.installed(name="packages", names=settings.packages, sources=OWN_SOURCE)
    mirror_operations.certificates(
        name="certificates",
        directory=place.directory,
        names=names(settings, place),
        ca_days=settings.certificate.ca_days,
        server_days=settings.certificate.server_days,
        renew_days=settings.certificate.renew_days,
        unit=WEB_UNIT,
    )
    file_operations.sync(name="files", paths=paths)
    unit_operations.ensure(name="units", units=units())


ROLE = Role(
    section=MIRROR_SERVER,
    state=state,
    listens=(
        Listener(port=lambda settings: settings.port, peers=(MIRROR_CLIENT,), bound=Bound.EVERYWHERE),
        Listener(port=lambda settings: settings.registry_port, bound=Bound.LOOPBACK),
    ),
    supplies=True,
)
