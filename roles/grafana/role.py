"""The `grafana` role: dashboards and datasources."""

from __future__ import annotations

from roles.facets import Listener, Scrape
from roles.grafana.dashboards import dashboards
from roles.grafana.datasource_file import PASSWORDS, provisioning
from roles.grafana.model import GRAFANA, GrafanaSettings
from roles.grafana.panels import to_json
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from rtinfra.operations.resources import File
from rtinfra.quadlet import Account, Container, config_file, secret_file
from rtinfra.render import render, render_json

NAME = "grafana"
ACCOUNT = Account("rtinfra-grafana", 424)
MOUNT = PASSWORDS
DATA = "/var/lib/grafana"
HOME = "rtinfra-overview"


def state(settings: GrafanaSettings, view: FleetView) -> RoleState:
    """Return its container."""
    boards = dashboards(view)
    config = (
        config_file(
            NAME,
            "grafana.ini",
            render(
                "grafana/grafana.ini.j2",
                settings=settings,
                address=view.address,
                mount=MOUNT,
                home=HOME if boards else None,
            ),
        ),
        secret_file(NAME, "admin_password", view.secrets.read(settings.admin_password_secret), ACCOUNT),
        *_reader_passwords(view),
        # JSON is YAML.
        config_file(NAME, "provisioning/datasources/rtinfra.yaml", render_json(provisioning(view))),
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
        ready=view.url(settings.port, "/api/health"),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return RoleState(containers=(container,))


def _reader_passwords(view: FleetView) -> tuple[File, ...]:
    """The password of each store that asks who reads."""
    return tuple(
        secret_file(NAME, file, view.secrets.read(secret), ACCOUNT)
        for source in view.datasources()
        if source.reader is not None
        for _, file, secret in (source.reader,)
    )


ROLE = Role(
    section=GRAFANA,
    state=state,
    tier=Tier.SHOWS,
    listens=(Listener(port=lambda settings: settings.port, peers=(PROMETHEUS,), is_page=True),),
    scrapes=(Scrape(job="grafana", port=lambda settings: settings.port),),
)
