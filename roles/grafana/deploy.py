"""What the `grafana` role puts on a host."""

from __future__ import annotations

from roles.grafana.dashboards import dashboards
from roles.grafana.datasources import READER_PASSWORD, provisioning
from roles.grafana.model import GrafanaSettings
from roles.grafana.panels import to_json
from roles.site import Part, Site
from rtinfra.operations.managed import File
from rtinfra.quadlet import Account, Container, config_file, secret_file
from rtinfra.render import render, render_json

NAME = "grafana"
ACCOUNT = Account("rtinfra-grafana", 424)
MOUNT = "/etc/grafana"
DATA = "/var/lib/grafana"
HOME = "rtinfra-overview"


def part(settings: GrafanaSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    boards = dashboards(site)
    config = (
        config_file(
            NAME,
            "grafana.ini",
            render(
                "grafana/grafana.ini.j2",
                settings=settings,
                address=site.address,
                mount=MOUNT,
                home=HOME if boards else None,
            ),
        ),
        secret_file(NAME, "admin_password", site.secrets.read(settings.admin_password_secret), ACCOUNT),
        *_reader_password(site),
        # JSON is YAML.
        config_file(NAME, "provisioning/datasources/rtinfra.yaml", render_json(provisioning(site))),
        config_file(NAME, "provisioning/dashboards/rtinfra.yaml", render("grafana/dashboards.yaml.j2", mount=MOUNT)),
        *(config_file(NAME, f"dashboards/{board.uid}.json", render_json(to_json(board))) for board in boards),
    )
    container = Container(
        name=NAME,
        description="Grafana, dashboards",
        image=NAME,
        account=ACCOUNT,
        # Added to what the image's script calls the program with.
        command=("cfg:default.log.mode=console",),
        config=config,
        config_mount=MOUNT,
        data={NAME: DATA},
        environment={
            "GF_PATHS_CONFIG": f"{MOUNT}/grafana.ini",
            "GF_PATHS_DATA": DATA,
            "GF_PATHS_PLUGINS": f"{DATA}/plugins",
            "GF_PATHS_PROVISIONING": f"{MOUNT}/provisioning",
        },
        ready=f"http://{site.address}:{settings.port}/api/health",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return Part(containers=(container,))


def _reader_password(site: Site) -> tuple[File, ...]:
    """The password of Elasticsearch's reader, when there is an Elasticsearch."""
    name = READER_PASSWORD.removeprefix(f"{MOUNT}/")
    return tuple(
        secret_file(NAME, name, site.secrets.read(member.settings.reader_password_secret), ACCOUNT)
        for member in site.members("elasticsearch")[:1]
    )
