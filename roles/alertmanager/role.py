"""The `alertmanager` role: Alertmanager in a container, the alert log as a plain service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roles.alertmanager.model import ALERTMANAGER, LOG_METRICS_PAGE, STATUS_PAGE, AlertmanagerSettings
from roles.facets import Datasource, Listener, Scrape, Signal
from roles.grafana.model import GRAFANA
from roles.mimir.model import MIMIR
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from rtinfra.facts.http import Request
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, Directory, File, Resource, Unit
from rtinfra.paths import PROJECT
from rtinfra.quadlet import Account, Container, check_command, config_file, secret_file
from rtinfra.render import render

NAME = "alertmanager"
ACCOUNT = Account("rtinfra-alertmanager", 423)
MOUNT = "/etc/alertmanager"
DATA = "/data"
#: Texts of messages, in Alertmanager's own template language.
MESSAGES = PROJECT / "templates" / "alertmanager" / "rtinfra.tmpl"

ALERT_LOG_UNIT = "rtinfra-alert-log.service"
ALERT_LOG_STATE = "rtinfra-alert-log"
RUNBOOKS = "/usr/share/rtinfra/runbooks"
# A folder that Python runs: of its own directory it imports what it needs, also with -I.
_ALERT_LOG = "/usr/local/lib/rtinfra/alert-log"
_PARTS = ("alert_log.py", "kept.py", "pages.py")
_MAIN = b"import sys\n\nfrom alert_log.alert_log import main\n\nmain(sys.argv[1:])\n"


def state(settings: AlertmanagerSettings, view: FleetView) -> RoleState:
    """Return its container, and the alert log with the runbook pages."""
    image = view.store.image(NAME)
    others = [member for member in view.members(ALERTMANAGER) if member.host != view.host]
    config = config_file(
        NAME,
        "alertmanager.yml",
        render(
            "alertmanager/alertmanager.yml.j2",
            settings=settings,
            alert_logs=[member.url(member.settings.log_port, "/alerts") for member in view.members(ALERTMANAGER)],
            mount=MOUNT,
        ),
        validate=check_command(image, MOUNT, "/usr/bin/amtool check-config {path}"),
    )
    messages = config_file(
        NAME,
        MESSAGES.name,
        MESSAGES.read_bytes(),
        validate=check_command(
            image, MOUNT, "/usr/bin/amtool template render --template.glob={path} --template.text=ok"
        ),
    )
    cluster = (
        [
            f"--cluster.listen-address={view.netloc(settings.cluster_port)}",
            f"--cluster.advertise-address={view.netloc(settings.cluster_port)}",
            *(f"--cluster.peer={member.netloc(member.settings.cluster_port)}" for member in others),
        ]
        if others
        # Alone: without the cluster's port, and without waiting for peers at the start.
        else ["--cluster.listen-address="]
    )
    container = Container(
        name=NAME,
        description="Alertmanager, alerts to people",
        image=NAME,
        account=ACCOUNT,
        command=(
            f"--config.file={MOUNT}/alertmanager.yml",
            f"--storage.path={DATA}",
            f"--web.listen-address={view.netloc(settings.port)}",
            f"--web.external-url={view.url(settings.port, '/')}",
            *cluster,
        ),
        config=(config, messages, *_secrets(settings, view)),
        config_mount=MOUNT,
        data={NAME: DATA},
        ready=view.url(settings.port, "/-/ready"),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return RoleState(
        containers=(container,),
        files=tuple(_alert_log(settings, view)),
        units=(Unit(ALERT_LOG_UNIT),),
        ready={ALERT_LOG_UNIT: view.url(settings.log_port, "/-/ready")},
        packages=("python3",),
    )


def _secrets(settings: AlertmanagerSettings, view: FleetView) -> Iterator[File]:
    """One file for each channel that is used; the configuration only names them."""
    names = {
        "teams_url": settings.teams and settings.teams.url_secret,
        "slack_url": settings.slack and settings.slack.url_secret,
        "telegram_token": settings.telegram and settings.telegram.token_secret,
        "webhook_url": settings.webhook and settings.webhook.url_secret,
        "escalation_key": settings.escalation and settings.escalation.key_secret,
    }
    for file, secret in names.items():
        if secret:
            yield secret_file(NAME, file, view.secrets.read(secret), ACCOUNT)


def _alert_log(settings: AlertmanagerSettings, view: FleetView) -> Iterator[Resource]:
    package = Path(__file__).parent / "alert_log"
    # Where it was before it had parts.
    yield Absent(path="/usr/local/lib/rtinfra/alert_log.py")
    yield Directory(path=_ALERT_LOG)
    yield Directory(path=f"{_ALERT_LOG}/alert_log")
    yield File(path=f"{_ALERT_LOG}/__main__.py", content=_MAIN, restarts=(ALERT_LOG_UNIT,))
    for part in _PARTS:
        path = f"{_ALERT_LOG}/alert_log/{part}"
        yield File(path=path, content=(package / part).read_bytes(), restarts=(ALERT_LOG_UNIT,))
    yield File(
        path=f"/etc/systemd/system/{ALERT_LOG_UNIT}",
        content=render(
            f"alertmanager/{ALERT_LOG_UNIT}.j2",
            settings=settings,
            address=view.address,
            program=_ALERT_LOG,
            runbooks=RUNBOOKS,
            state_name=ALERT_LOG_STATE,
        ),
        actions=(DAEMON_RELOAD,),
        restarts=(ALERT_LOG_UNIT,),
    )
    yield Directory(path="/usr/share/rtinfra")
    yield Directory(path=RUNBOOKS)
    # Read at every request: a change restarts nothing.
    for page in sorted((PROJECT / "docs" / "runbooks").glob("*.md")):
        yield File(path=f"{RUNBOOKS}/{page.name}", content=page.read_bytes())


def _reads_back(settings: AlertmanagerSettings, view: FleetView) -> Iterator[Request]:
    yield Request(view.url(settings.port, STATUS_PAGE))
    yield Request(view.url(settings.log_port, LOG_METRICS_PAGE))


ROLE = Role(
    section=ALERTMANAGER,
    state=state,
    tier=Tier.STORES,
    listens=(
        Listener(port=lambda settings: settings.port, peers=(PROMETHEUS, MIMIR, GRAFANA), is_page=True),
        Listener(port=lambda settings: settings.cluster_port, peers=(ALERTMANAGER,), transports=("tcp", "udp")),
        # Every Alertmanager tells every alert log; alerts link to its runbook pages.
        Listener(port=lambda settings: settings.log_port, peers=(ALERTMANAGER, PROMETHEUS), is_page=True),
    ),
    scrapes=(
        Scrape(job="alertmanager", port=lambda settings: settings.port),
        Scrape(job="alert_log", port=lambda settings: settings.log_port),
    ),
    reads_back=_reads_back,
    datasource=Datasource(
        title="Alertmanager",
        type="alertmanager",
        signal=Signal.ALERTS,
        url=lambda member: member.url(member.settings.port),
        options=lambda links: {"implementation": "prometheus"},
    ),
)
