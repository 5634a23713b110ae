"""What a host has to be given before its roles can work: packages and images of all of them.

Functions of a host's settings alone, so that a deploy and the lock of the mirror never differ in what they ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from roles.drift import deploy as drift
from roles.host import RT_GROUP, HostConfig
from roles.rt_app import deploy as rt_app
from roles.rt_kernel import deploy as rt_kernel
from roles.telemetry import Telemetry
from rtinfra.config import FleetHost
from rtinfra.deb import LocalPackage
from rtinfra.images import LocalStore


def packages(host: FleetHost[HostConfig], distribution: str, telemetry: Telemetry) -> list[str]:
    """Return the Debian packages of all roles of a host that runs `distribution`; `name/suite` names its suite."""
    names = list(host.config.base.packages)
    if host.config.mirror_server is not None:
        names += host.config.mirror_server.packages
    if RT_GROUP in host.groups:
        rt = host.config.rt
        names += rt.rt_tuning.packages
        names += rt_app.packages(rt.rt_app)
        names += rt_kernel.packages(rt.rt_kernel, distribution)
    return [*names, *telemetry.packages, *drift.packages(host.config.drift)]


def local_packages(host: FleetHost[HostConfig], telemetry: Telemetry) -> list[LocalPackage]:
    """Return the packages of all roles of a host that come as files of this computer."""
    found = list(telemetry.local_packages)
    if RT_GROUP in host.groups:
        rt = host.config.rt
        found += [*rt_kernel.local_packages(rt.rt_kernel), *rt_app.local_packages(rt.rt_app)]
    return found


def image_archives(telemetry: Telemetry, store: LocalStore) -> Mapping[str, Path]:
    """Return the container images of all roles of a host: OCI archives of this computer by pinned reference."""
    return {reference: store.archive(name) for name, reference in telemetry.images.items()}
