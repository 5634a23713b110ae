"""What the `alertmanager` role puts on a host: Alertmanager in a container, the alert log as a plain service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from roles.alertmanager.model import AlertmanagerSettings
from roles.site import Part, Site
from rtinfra.operations.managed import DAEMON_RELOAD, Directory, File, Managed, Unit
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
_ALERT_LOG = "/usr/local/lib/rtinfra/alert_log.py"


def part(settings: AlertmanagerSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    image = site.store.image(NAME)
    others = [member for member in site.members(NAME) if member.host != site.host]
    config = config_file(
        NAME,
        "alertmanager.yml",
        render(
            "alertmanager/alertmanager.yml.j2",
            settings=settings,
            alert_logs=[f"{url}/alerts" for url in site.urls(NAME, "log_port")],
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
            f"--cluster.listen-address={site.address}:{settings.cluster_port}",
            f"--cluster.advertise-address={site.address}:{settings.cluster_port}",
            *(f"--cluster.peer={member.address}:{member.settings.cluster_port}" for member in others),
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
            f"--web.listen-address={site.address}:{settings.port}",
            f"--web.external-url=http://{site.address}:{settings.port}/",
            *cluster,
        ),
        config=(config, messages, *_secrets(settings, site)),
        config_mount=MOUNT,
        data={NAME: DATA},
        ready=f"http://{site.address}:{settings.port}/-/ready",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return Part(
        containers=(container,),
        paths=tuple(_alert_log(settings, site)),
        units=(Unit(ALERT_LOG_UNIT),),
        packages=("python3",),
    )


def _secrets(settings: AlertmanagerSettings, site: Site) -> Iterator[File]:
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
            yield secret_file(NAME, file, site.secrets.read(secret), ACCOUNT)


def _alert_log(settings: AlertmanagerSettings, site: Site) -> Iterator[Managed]:
    program = Path(__file__).parent / "alert_log" / "alert_log.py"
    yield File(path=_ALERT_LOG, content=program.read_bytes(), restarts=(ALERT_LOG_UNIT,))
    yield File(
        path=f"/etc/systemd/system/{ALERT_LOG_UNIT}",
        content=render(
            f"alertmanager/{ALERT_LOG_UNIT}.j2",
            settings=settings,
            address=site.address,
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
