"""What the `jaeger` role puts on a host."""

from __future__ import annotations

from roles.jaeger.model import JaegerSettings
from roles.site import Part, Site
from rtinfra.quadlet import Account, Container, check_command, config_file
from rtinfra.render import render

NAME = "jaeger"
IMAGE = "jaeger"
ACCOUNT = Account("rtinfra-jaeger", 421)
CONFIG_MOUNT = "/etc/jaeger"
DATA_MOUNT = "/data"
#: Where the program is in its image.
PROGRAM = "/jaeger"


def part(settings: JaegerSettings, site: Site) -> Part:
    """Return one container."""
    config = config_file(
        NAME,
        "config.yaml",
        render("jaeger/config.yaml.j2", settings=settings, address=site.address, data=DATA_MOUNT),
        validate=check_command(site.store.image(IMAGE), CONFIG_MOUNT, f"{PROGRAM} validate --config=file:{{path}}"),
    )
    return Part(
        containers=(
            Container(
                name=NAME,
                description="Jaeger, traces",
                image=IMAGE,
                account=ACCOUNT,
                command=(f"--config=file:{CONFIG_MOUNT}/config.yaml",),
                config=(config,),
                config_mount=CONFIG_MOUNT,
                data={NAME: DATA_MOUNT},
                environment={"GOMEMLIMIT": f"{settings.memory_max.bytes * 4 // 5}B"},
                ready=f"http://{site.address}:{settings.health_port}/status",
                memory_max=str(settings.memory_max),
                cpu_quota=settings.cpu_quota,
            ),
        ),
    )
