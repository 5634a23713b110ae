"""The `garage` role: S3 object storage on our own disks."""

from __future__ import annotations

from typing import Any

from roles.facets import Listener, Member, ObjectStore
from roles.garage.model import GARAGE, GarageSettings
from roles.loki.model import LOKI
from roles.mimir.model import MIMIR
from roles.shape import FleetView, Role, RoleState, Tier
from roles.tempo.model import TEMPO
from rtinfra import quadlet
from rtinfra.operations.resources import Absent
from rtinfra.quadlet import Account, Container, config_dir, config_file, secret_file, setup_secret_path
from rtinfra.render import render

NAME = "garage"
ACCOUNT = Account("rtinfra-garage", 431)
MOUNT = "/etc/garage"
META = "/var/lib/garage/meta"
DATA = "/var/lib/garage/data"


def replication_factor(members: int) -> int:
    """Return how often data is kept: three times where there are nodes for it, otherwise once.

    Three is what Garage recommends; two nodes with two copies would stop writing when one is away.
    """
    return 3 if members >= 3 else 1


def state(settings: GarageSettings, view: FleetView) -> RoleState:
    """Return its container; on the first host also what makes the cluster, its buckets and its key."""
    members = view.members(GARAGE)
    toml = render(
        "garage/garage.toml.j2",
        settings=settings,
        address=view.address,
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
            secret_file(NAME, "rpc_secret", view.secrets.read(settings.rpc_secret), ACCOUNT),
            secret_file(NAME, "admin_token", view.secrets.read(settings.admin_token_secret), ACCOUNT),
        ),
        config_mount=MOUNT,
        data={"garage-meta": META, "garage-data": DATA},
        # 503 until the cluster has a layout, which only the setup gives it: that one waits for 200.
        ready=view.url(settings.admin_port, "/health"),
        ready_status=(200, 503),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
        limit_nofile=65536,
    )
    if members and members[0].host != view.host:
        return RoleState(containers=(container,))
    return RoleState(
        containers=(container,),
        files=(
            *quadlet.setup(
                NAME,
                "Cluster layout, buckets and key",
                document(settings, view),
                {
                    name: view.secrets.read(secret)
                    for name, secret in (
                        ("admin_token", settings.admin_token_secret),
                        ("s3_key_id", settings.s3_key_id_secret),
                        ("s3_key", settings.s3_key_secret),
                    )
                },
            ),
            # Where the container saw them before.
            *(Absent(path=f"{config_dir(NAME)}/{name}") for name in ("s3_key_id", "s3_key")),
        ),
        units=(quadlet.setup_unit(NAME),),
        packages=("python3",),
    )


def document(settings: GarageSettings, view: FleetView) -> dict[str, Any]:
    """Return what the setup makes so."""
    return {
        "token_file": setup_secret_path(NAME, "admin_token"),
        "key_id_file": setup_secret_path(NAME, "s3_key_id"),
        "key_file": setup_secret_path(NAME, "s3_key"),
        # This node first: the setup runs on it.
        "nodes": [
            {
                "zone": member.host,
                "admin": member.url(member.settings.admin_port),
                "rpc": member.netloc(member.settings.rpc_port),
                "capacity": member.settings.capacity.bytes,
            }
            for member in view.members(GARAGE)
        ],
        # Of every role that keeps its data here, by its name.
        "buckets": [role.name for role in view.roles if role.keeps_objects],
    }


def _object_store(member: Member[GarageSettings], view: FleetView) -> ObjectStore:
    settings = member.settings
    is_made_here = view.members(GARAGE)[0].host == view.host
    return ObjectStore(
        endpoint=member.netloc(settings.s3_port),
        region=settings.region,
        key_id=view.secrets.read(settings.s3_key_id_secret).decode(),
        key=view.secrets.read(settings.s3_key_secret).decode(),
        setup=quadlet.setup_unit(NAME).name if is_made_here else None,
    )


ROLE = Role(
    section=GARAGE,
    state=state,
    tier=Tier.OBJECTS,
    listens=(
        Listener(port=lambda settings: settings.s3_port, peers=(LOKI, TEMPO, MIMIR)),
        Listener(port=lambda settings: settings.rpc_port, peers=(GARAGE,)),
        # The setup, on the first host, asks all of them.
        Listener(port=lambda settings: settings.admin_port, peers=(GARAGE,)),
    ),
    object_store=_object_store,
)
