"""What the `prometheus` role puts on a host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roles.prometheus.model import PrometheusSettings
from roles.site import INFRA_TENANT, Member, Part, Site
from rtinfra.limits import Limits, filled, project_limits
from rtinfra.operations.managed import File
from rtinfra.paths import PROJECT
from rtinfra.quadlet import Account, Container, check_command, config_file
from rtinfra.render import render

NAME = "prometheus"
ACCOUNT = Account("rtinfra-prometheus", 422)
MOUNT = "/etc/prometheus"
DATA = "/data"
#: The second program of the image.
PROMTOOL = "/promtool"
#: Rule files as Prometheus reads them, but for the limits and the address of the runbook pages.
RULES = PROJECT / "templates" / "prometheus" / "rules"
_RUNBOOKS = "RUNBOOKS/"
#: One page for each alert.
PAGES = PROJECT / "docs" / "runbooks"
_ALERT = re.compile(r"^\s*- alert: (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """Where one program of a host shows its metrics."""

    address: str
    host: str
    tenant: str


@dataclass(frozen=True)
class Job:
    """Programs of one kind, scraped alike. `role` is the group their hosts are in."""

    name: str
    role: str
    targets: tuple[Target, ...]


def part(settings: PrometheusSettings, site: Site) -> Part:
    """Return containers, files, units and packages."""
    image = site.store.image(NAME)
    config = config_file(
        NAME,
        "prometheus.yml",
        render(
            "prometheus/prometheus.yml.j2",
            settings=settings,
            jobs=jobs(site),
            alertmanagers=[_at(member, "port") for member in site.members("alertmanager")],
            environment=site.telemetry.environment,
            mimir=_mimir(site),
            tenants=site.telemetry.tenants,
            infra_tenant=INFRA_TENANT,
            mount=MOUNT,
        ),
        # The rule files are staged beside it and checked by themselves.
        validate=check_command(image, MOUNT, f"{PROMTOOL} check config --syntax-only {{path}}"),
    )
    container = Container(
        name=NAME,
        description="Prometheus, metrics and rules",
        image=NAME,
        account=ACCOUNT,
        command=(
            f"--config.file={MOUNT}/prometheus.yml",
            f"--storage.tsdb.path={DATA}",
            f"--storage.tsdb.retention.time={settings.retention.microseconds // 1_000_000}s",
            f"--web.listen-address={site.address}:{settings.port}",
            f"--web.external-url=http://{site.address}:{settings.port}/",
            "--web.enable-remote-write-receiver",
            "--web.enable-otlp-receiver",
            "--enable-feature=exemplar-storage",
        ),
        config=(config, *_rules(site, image)),
        config_mount=MOUNT,
        data={NAME: DATA},
        ready=f"http://{site.address}:{settings.port}/-/ready",
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return Part(containers=(container,))


def runbooks(site: Site) -> str:
    """Return where runbook pages are: served by the first alert log, without one in this project."""
    return next(iter(f"{url}/runbooks" for url in site.urls("alertmanager", "log_port")), "docs/runbooks")


def jobs(site: Site) -> list[Job]:
    """Return what is scraped: every program of the fleet that has metrics, grouped by kind."""
    found = [
        _job(site, "rt_process", "rt_hosts", "rt_process.metrics_port", own_tenant=True),
        _job(site, "non_rt_process", "rt_hosts", "non_rt_process.metrics_port", own_tenant=True),
        _job(site, "node", "agents", "node_exporter.port", own_tenant=True),
        _job(site, "agents", "agents", "collector.metrics_port"),
        Job("gateways", "gateways", tuple(_gateways(site.members("gateways")))),
        _job(site, "jaeger", "jaeger", "metrics_port"),
        _job(site, "prometheus", "prometheus", "port"),
        _job(site, "alertmanager", "alertmanager", "port"),
        _job(site, "alert_log", "alertmanager", "log_port"),
        _job(site, "loki", "loki", "port"),
        _job(site, "tempo", "tempo", "port"),
        _job(site, "mimir", "mimir", "port"),
        _job(site, "alloy", "alloy", "ui_port"),
        _job(site, "grafana", "grafana", "port"),
    ]
    return [job for job in found if job.targets]


def _job(site: Site, name: str, role: str, port: str, own_tenant: bool = False) -> Job:
    members = site.members(role)
    return Job(
        name,
        role,
        tuple(
            Target(_at(member, port), member.host, member.tenant if own_tenant else INFRA_TENANT) for member in members
        ),
    )


def _gateways(members: Sequence[Member]) -> Iterator[Target]:
    """A host may run several gateways, each at an address of its own."""
    for member in members:
        for address in member.settings.addresses or (member.address,):
            yield Target(f"{address}:{member.settings.metrics_port}", member.host, INFRA_TENANT)


def _at(member: Member, port: str) -> str:
    """Return `address:port` of a member; `port` names the setting, dots lead into sections."""
    value = member.settings
    for name in port.split("."):
        value = getattr(value, name)
    return f"{member.address}:{value}"


def _mimir(site: Site) -> str | None:
    """Return where samples are written for the long term. All members of a cluster take them: one is enough."""
    return next(iter(site.urls("mimir")), None) if site.telemetry.metrics == "mimir" else None


def rule_files(limits: Limits) -> dict[Path, str]:
    """Return the rule files with limits in them, by the template of each; `RUNBOOKS/` is still in them."""
    return {path: filled(path.read_text(encoding="utf-8"), limits) for path in sorted(RULES.glob("*.rules.yml"))}


def _rules(site: Site, image: str) -> Iterator[File]:
    for path, text in rule_files(project_limits()).items():
        content = text.replace(_RUNBOOKS, f"{runbooks(site)}/")
        _require_pages(path, content)
        yield config_file(
            NAME,
            f"rules/{path.name}",
            content.encode(),
            validate=check_command(image, MOUNT, f"{PROMTOOL} check rules {{path}}"),
        )


def _require_pages(path: Path, content: str) -> None:
    """Refuse an alert that leads nowhere: whoever it wakes up needs the page that says what to do."""
    for name in _ALERT.findall(content):
        page = PAGES / f"{name}.md"
        if not page.is_file():
            raise ValueError(
                f"the alert {name} in {path.relative_to(PROJECT)} has no runbook: write {page.relative_to(PROJECT)}"
            )
