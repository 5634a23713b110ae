"""A host's roles seen without the host, the store of images and the secrets.

Roles need all three to say what their files hold. Whoever only asks for units, ports, packages and directories
needs none: stand-ins answer in their place with a placeholder, and nothing that holds one is ever sent to a host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from roles.fleet import view_of
from roles.host import HostConfig
from roles.shape import FleetView, ImageStore
from roles.shared import CPU, MIRROR
from rtinfra.config import Fleet, FleetHost
from rtinfra.cpu import stand_in_layout
from rtinfra.deb import LocalPackage
from rtinfra.images.image_catalogue import load_catalogue

#: Stands where a digest or a secret would: 64 digits satisfy whatever a role demands of a secret's form.
PLACEHOLDER: Final = "0" * 64


class StandInStore:
    """Store in which every image and package is a placeholder."""

    def image(self, name: str) -> str:
        """Return a reference that no image has."""
        return f"{name}@sha256:{PLACEHOLDER}"

    def package(self, name: str) -> LocalPackage:
        """Return a package without a file, by the name that dpkg knows it by."""
        image = load_catalogue().images.get(name)
        package = image.go.package if image is not None and image.go is not None else None
        return LocalPackage(Path(name), package or name, PLACEHOLDER)


class StandInSecrets:
    """Secrets that are all the placeholder."""

    def read(self, name: str) -> bytes:
        """Return the placeholder."""
        return PLACEHOLDER.encode()


def stand_in_view(
    fleet: Fleet[HostConfig],
    host: FleetHost[HostConfig],
    distribution: str = "",
    store: ImageStore | None = None,
) -> FleetView:
    """Return the fleet as seen from a host that nobody looked at; a real-time host has a layout that fits its lists."""
    cpu = host.config.get(CPU)
    layout = None if cpu is None else stand_in_layout(cpu.isolated, cpu.housekeeping, cpu.count)
    return view_of(
        fleet,
        host,
        store or StandInStore(),
        StandInSecrets(),
        layout=layout,
        # What a host runs is known once it was looked at.
        distribution=distribution or host.config[MIRROR].distribution,
    )
