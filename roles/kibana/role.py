"""The `kibana` role: the log store's user interface."""

from __future__ import annotations

import json
from typing import Any

from roles.elasticsearch.model import ELASTICSEARCH, LOG_INDEX
from roles.facets import Listener
from roles.kibana.model import KIBANA, KibanaSettings
from roles.shape import FleetView, Role, RoleState, Tier
from rtinfra import quadlet
from rtinfra.operations.resources import Absent
from rtinfra.quadlet import Account, Container, config_dir, config_file, secret_file, setup_secret_path
from rtinfra.render import render

NAME = "kibana"
ACCOUNT = Account("rtinfra-kibana", 430)
MOUNT = "/etc/kibana"
DATA = "/usr/share/kibana/data"
#: The data view of the application's logs (OB-3); the id is fixed, links contain it.
DATA_VIEW = {
    "id": LOG_INDEX,
    "title": f"{LOG_INDEX}-*",
    "name": "MXRC logs",
    "timeFieldName": "@timestamp",
}


def state(settings: KibanaSettings, view: FleetView) -> RoleState:
    """Return its container and its data view.

    Raises:
        ValueError: no host runs Elasticsearch.
    """
    members = view.members(ELASTICSEARCH)
    if not members:
        raise ValueError(f"needs a host of the group {ELASTICSEARCH.group}")
    yml = render(
        "kibana/kibana.yml.j2",
        settings=settings,
        view=view,
        urls=[member.url(member.settings.port) for member in members],
    )
    container = Container(
        name=NAME,
        description="Kibana, view of the logs",
        image=NAME,
        account=ACCOUNT,
        # The second file is merged into the first. Not the environment: the image's script makes arguments of it.
        command=("/usr/local/bin/kibana-docker", f"-c={MOUNT}/kibana.yml", f"-c={MOUNT}/secrets.yml"),
        config=(
            config_file(NAME, "kibana.yml", yml),
            secret_file(NAME, "secrets.yml", _secrets(settings, view), ACCOUNT),
        ),
        config_mount=MOUNT,
        data={NAME: DATA},
        # Anybody may read the short form of the status: 200 when everything works, 503 before.
        ready=view.url(settings.port, "/api/status"),
        ready_seconds=300,
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
        # In the image everything belongs to group 0, so that it runs under any number that is a member of it.
        writable_root=True,
        group=0,
        # Its user's password is set there; without it Kibana never becomes ready.
        after=(quadlet.setup_unit(ELASTICSEARCH.name).name,) if members[0].host == view.host else (),
    )
    return RoleState(
        containers=(container,),
        files=(
            *quadlet.setup(
                NAME,
                "Data view of the logs",
                document(settings, view),
                {"elastic": view.secrets.read(members[0].settings.password_secret)},
            ),
            # Where the container saw it before.
            Absent(path=f"{config_dir(NAME)}/elastic"),
        ),
        units=(quadlet.setup_unit(NAME),),
        packages=("python3",),
    )


def _secrets(settings: KibanaSettings, view: FleetView) -> bytes:
    """Return the part of the configuration that nobody else may read."""
    key = view.secrets.read(settings.encryption_key_secret).decode()
    values = {
        "elasticsearch.password": view.secrets.read(settings.password_secret).decode(),
        "xpack.security.encryptionKey": key,
        "xpack.encryptedSavedObjects.encryptionKey": key,
        "xpack.reporting.encryptionKey": key,
    }
    # A JSON string is a YAML string, whatever is in it.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()).encode()


def document(settings: KibanaSettings, view: FleetView) -> dict[str, Any]:
    """Return what the setup makes so."""
    return {
        "url": view.url(settings.port),
        "user": "elastic",
        "password_file": setup_secret_path(NAME, "elastic"),
        "data_view": DATA_VIEW,
    }


ROLE = Role(
    section=KIBANA,
    state=state,
    tier=Tier.SHOWS,
    listens=(Listener(port=lambda settings: settings.port, is_page=True),),
)
