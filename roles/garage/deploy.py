"""What the `garage` role puts on a host."""

from __future__ import annotations

from typing import Any

from roles.garage.model import GarageSettings
from roles.site import Part, Site
from rtinfra import quadlet
from rtinfra.quadlet import Account, Container, config_dir, config_file, secret_file
from rtinfra.render import render

NAME = "garage"
ACCOUNT = Account("rtinfra-garage", 431)
MOUNT = "/etc/garage"
META = "/var/lib/garage/meta"
DATA = "/var/lib/garage/data"
#: Roles that keep their data here when there is a Garage; the bucket has the role's name.
BUCKETS = ("loki", "tempo", "mimir")


def replication_factor(members: int) -> int:
    """Return how often data is kept: three times where there are nodes for it, otherwise once.

    Three is what Garage recommends; two nodes with two copies would stop writing when one is away.
    """
    return 3 if members >= 3 else 1


def part(settings: GarageSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    members = site.members(NAME)
    toml = render(
        "garage/garage.toml.j2",
        settings=settings,
        address=site.address,
        replication_factor=replication_factor(len(members)),
        mount=MOUNT,
        meta=META,
        data=DATA,
    )
    container = Container(
        name=NAME,
        description="Garage, object storage",
        image=NAME,
        account=ACCOUNT,
        # The image is one program and nothing else, not even an entry point.
        command=("/garage", "-c", f"{MOUNT}/garage.toml", "server"),
        config=(
            config_file(NAME, "garage.toml", toml),
            secret_file(NAME, "rpc_secret", site.secrets.read(settings.rpc_secret), ACCOUNT),
            secret_file(NAME, "admin_token", site.secrets.read(settings.admin_token_secret), ACCOUNT),
            secret_file(NAME, "s3_key_id", site.secrets.read(settings.s3_key_id_secret), ACCOUNT),
            secret_file(NAME, "s3_key", site.secrets.read(settings.s3_key_secret), ACCOUNT),
        ),
        config_mount=MOUNT,
        data={"garage-meta": META, "garage-data": DATA},
        # 503 until the cluster has a layout, which only the setup gives it: that one waits for 200.
        ready=f"http://{site.address}:{settings.admin_port}/health",
        ready_status=(200, 503),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
        limit_nofile=65536,
    )
    if members and members[0].host != site.host:
        return Part(containers=(container,))
    return Part(
        containers=(container,),
        paths=tuple(quadlet.setup(NAME, "Cluster layout, buckets and key", document(settings, site))),
        units=(quadlet.setup_unit(NAME),),
        packages=("python3",),
    )


def document(settings: GarageSettings, site: Site) -> dict[str, Any]:
    """Return what the setup makes so."""
    directory = config_dir(NAME)
    return {
        "token_file": f"{directory}/admin_token",
        "key_id_file": f"{directory}/s3_key_id",
        "key_file": f"{directory}/s3_key",
        # This node first: the setup runs on it.
        "nodes": [
            {
                "zone": member.host,
                "admin": f"http://{member.address}:{member.settings.admin_port}",
                "rpc": f"{member.address}:{member.settings.rpc_port}",
                "capacity": member.settings.capacity.bytes,
            }
            for member in site.members(NAME)
        ],
        "buckets": list(BUCKETS),
    }
