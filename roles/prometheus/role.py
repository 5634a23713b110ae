"""The `prometheus` role: metrics and rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from roles.alertmanager.model import ALERTMANAGER
from roles.alloy.model import ALLOY
from roles.datasources import metrics_options
from roles.facets import Datasource, Listener, Scrape, Signal, Store
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.prometheus.model import (
    CONFIG_PAGE,
    FLAGS_PAGE,
    HOSTS_SEEN,
    LOOPS_SEEN,
    PROMETHEUS,
    RULES_PAGE,
    TARGETS_PAGE,
    PrometheusSettings,
    query,
)
from roles.shape import FleetView, Role, RoleState, Tier
from roles.shared import INFRA_TENANT
from roles.tempo.model import TEMPO
from rtinfra.facts.http import Request
from rtinfra.limits import Limits, filled, project_limits
from rtinfra.operations.resources import File
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


def state(settings: PrometheusSettings, view: FleetView) -> RoleState:
    """Return its container."""
    image = view.store.image(NAME)
    config = config_file(
        NAME,
        "prometheus.yml",
        render(
            "prometheus/prometheus.yml.j2",
            settings=settings,
            jobs=view.jobs(),
            alertmanagers=[member.netloc(member.settings.port) for member in view.members(ALERTMANAGER)],
            environment=view.telemetry.environment,
            long_term=_long_term(view),
            tenants=view.telemetry.tenants,
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
            f"--web.listen-address={view.netloc(settings.port)}",
            f"--web.external-url={view.url(settings.port, '/')}",
            "--web.enable-remote-write-receiver",
            "--web.enable-otlp-receiver",
            "--enable-feature=exemplar-storage",
        ),
        config=(config, *_rules(view, image)),
        config_mount=MOUNT,
        data={NAME: DATA},
        ready=view.url(settings.port, "/-/ready"),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
    )
    return RoleState(containers=(container,))


def runbooks(view: FleetView) -> str:
    """Return where runbook pages are: served by the first alert log, without one in this project."""
    pages = (member.url(member.settings.log_port, "/runbooks") for member in view.members(ALERTMANAGER))
    return next(pages, "docs/runbooks")


def _long_term(view: FleetView) -> str | None:
    """Return where samples are written for the long term: the chosen store, when that is another one.

    All members of a cluster take them: one is enough.
    """
    chosen = view.chosen(Signal.METRICS)
    return chosen.remote_write if chosen and chosen.by_tenant else None


def rule_files(limits: Limits) -> dict[Path, str]:
    """Return the rule files with limits in them, by the template of each; `RUNBOOKS/` is still in them."""
    return {path: filled(path.read_text(encoding="utf-8"), limits) for path in sorted(RULES.glob("*.rules.yml"))}


def _rules(view: FleetView, image: str) -> Iterator[File]:
    for path, text in rule_files(project_limits()).items():
        content = text.replace(_RUNBOOKS, f"{runbooks(view)}/")
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


def _reads_back(settings: PrometheusSettings, view: FleetView) -> Iterator[Request]:
    for page in (FLAGS_PAGE, CONFIG_PAGE, TARGETS_PAGE, RULES_PAGE, query(HOSTS_SEEN), query(LOOPS_SEEN)):
        yield Request(view.url(settings.port, page))


ROLE = Role(
    section=PROMETHEUS,
    state=state,
    tier=Tier.STORES,
    listens=(
        # Grafana asks, the others write; several scrape each other.
        Listener(
            port=lambda settings: settings.port, peers=(GRAFANA, GATEWAYS, ALLOY, TEMPO, PROMETHEUS), is_page=True
        ),
    ),
    scrapes=(Scrape(job="prometheus", port=lambda settings: settings.port),),
    reads_back=_reads_back,
    store=Store(
        signal=Signal.METRICS,
        exporter="otlp_http",
        ingest=lambda member: member.url(member.settings.port, "/api/v1/otlp"),
        otlp_http=lambda member: member.url(member.settings.port, "/api/v1/otlp"),
        remote_write=lambda member: member.url(member.settings.port, "/api/v1/write"),
    ),
    datasource=Datasource(
        title="Prometheus",
        type="prometheus",
        signal=Signal.METRICS,
        url=lambda member: member.url(member.settings.port),
        options=partial(metrics_options, "Prometheus"),
        is_default=True,
    ),
)
