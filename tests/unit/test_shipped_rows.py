"""Each value that a row of the requirements fixes, as hosts get it with the settings as shipped; once, by its row.

The right-hand sides are copied from the requirements and derive from nothing. What is compared is what reaches a host,
through the real loader and the roles: a file, the command line of a container, or the settings where no file has the
value. RT-4 to RT-8 stand in test_shipped_values.py, metrics of OB-16 in test_dashboards.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from roles.composition import compose
from roles.fleet import load_hosts
from roles.grafana.dashboards import dashboards
from roles.grafana.model import GRAFANA
from roles.host import HostConfig
from roles.jaeger import role as jaeger
from roles.jaeger.model import JAEGER
from roles.prometheus.role import rule_files
from roles.rt_app.model import RT_APP
from roles.rt_kernel.model import RT_KERNEL
from roles.shape import FleetView
from roles.shared import CPU, PREREQUISITES, TELEMETRY, TelemetrySettings
from roles.stand_ins import stand_in_view
from rtinfra.config import Fleet
from rtinfra.cpu import Topology, resolve_layout
from rtinfra.limits import project_limits
from rtinfra.operations.resources import File
from rtinfra.paths import PROJECT
from rtinfra.preflight.counts import Counts, exposition

# What is chosen here is what has no shipped value: who receives alerts, and what of two backends is used.
INVENTORY = """hosts:
  robot:
    groups: [rt_hosts, agents, preflight]
    ssh: {address: 192.0.2.1}
    settings:
      agents: {logs: filebeat, filebeat: {password_secret: filebeat_password}}
  backend:
    groups: [gateways, jaeger, prometheus, alertmanager, loki, tempo, mimir, elasticsearch, kibana, grafana]
    ssh: {address: 192.0.2.2}
    settings:
      telemetry: {traces: tempo, metrics: mimir, logs: loki}
      alertmanager: {webhook: {url_secret: webhook_url}}
  entrance:
    groups: [alloy]
    ssh: {address: 192.0.2.3}
    settings: {telemetry: {traces: tempo, metrics: mimir, logs: loki}}
"""
ETC = "/etc/rtinfra"


@dataclass(frozen=True)
class Shipped:
    """The hosts of the inventory, as a deploy would make them."""

    fleet: Fleet[HostConfig]
    files: Mapping[str, Mapping[str, str]]

    def config(self, host: str) -> HostConfig:
        return self.fleet.hosts[host].config

    @property
    def rt(self) -> HostConfig:
        return self.config("robot")

    @property
    def telemetry(self) -> TelemetrySettings:
        return self.config("backend")[TELEMETRY]

    def view(self, host: str) -> FleetView:
        """What roles of a host know of the others."""
        return stand_in_view(self.fleet, self.fleet.hosts[host])

    def text(self, host: str, path: str) -> str:
        """Content of a file that the roles put on a host."""
        return self.files[host][path]

    def data(self, path: str, host: str = "backend") -> Any:
        """The same of a file of YAML or JSON."""
        return yaml.safe_load(self.text(host, path))

    def command(self, container: str, host: str = "backend") -> str:
        """What a container runs."""
        return self.text(host, f"/etc/containers/systemd/{container}.container")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yaml"
    inventory.write_text(INVENTORY)
    fleet = load_hosts(PROJECT, inventory)
    composed = {name: compose(stand_in_view(fleet, host)) for name, host in fleet.hosts.items()}
    return Shipped(
        fleet,
        {
            name: {
                item.path: item.content.decode()
                for item in found.paths
                if isinstance(item, File) and not item.path.endswith(".pyz")
            }
            for name, found in composed.items()
        },
    )


def kernel_words(shipped: Shipped) -> dict[str, str]:
    """The kernel command line of the host of the requirements: cores 2 and 3 isolated."""
    layout, findings = resolve_layout(shipped.rt[CPU].isolated, shipped.rt[CPU].housekeeping, Topology.flat(4))
    assert layout is not None, findings
    words = (word.partition("=") for word in shipped.rt[RT_KERNEL].command_line(layout))
    return {name: value for name, _, value in words}


def template(shipped: Shipped) -> dict[str, str]:
    """Fields of Elasticsearch's index template `mxrc-logs` with their types."""
    put = shipped.data(f"{ETC}/elasticsearch/setup.json")["put"]
    fields = put["/_index_template/mxrc-logs"]["template"]["mappings"]["properties"]
    return {name: field["type"] for name, field in fields.items()}


def alloy(shipped: Shipped, pattern: str) -> set[str]:
    """Values in Alloy's configuration."""
    return set(re.findall(pattern, shipped.text("entrance", f"{ETC}/alloy/config.alloy")))


def overrides(shipped: Shipped, role: str) -> dict[str, Any]:
    found = shipped.data(f"{ETC}/{role}/overrides.yaml")["overrides"]
    assert isinstance(found, dict)
    return found


def mimir(shipped: Shipped, tenant: str) -> tuple[object, ...]:
    """Samples a second, series, retention of a tenant."""
    its = overrides(shipped, "mimir")[tenant]
    return its["ingestion_rate"], its["max_global_series_per_user"], its["compactor_blocks_retention_period"]


def alert(name: str) -> tuple[str, str, str]:
    """Expression, `for`, severity of an alert."""
    for text in rule_files(project_limits()).values():
        for group in yaml.safe_load(text)["groups"]:
            for rule in group["rules"]:
                if rule.get("alert") == name:
                    return rule["expr"], rule.get("for", ""), rule["labels"]["severity"]
    raise KeyError(name)


def route(shipped: Shipped, receiver: str) -> dict[str, str]:
    """Alertmanager's route to a receiver of people."""
    (found,) = [
        one
        for one in shipped.data(f"{ETC}/alertmanager/alertmanager.yml")["route"]["routes"]
        if one["receiver"] == receiver
    ]
    assert isinstance(found, dict)
    return found


def sources(shipped: Shipped) -> set[str]:
    """Uids of Grafana's datasources of the backends that know tenants."""
    found = shipped.data(f"{ETC}/grafana/provisioning/datasources/rtinfra.yaml")["datasources"]
    return {source["uid"] for source in found if source["uid"].startswith(("loki-", "tempo-", "mimir-"))}


def jobs(shipped: Shipped) -> set[str]:
    return {job["job_name"] for job in shipped.data(f"{ETC}/prometheus/prometheus.yml")["scrape_configs"]}


def preflight_metrics(shipped: Shipped) -> set[str]:
    """What a preflight leaves for node_exporter, with the types."""
    preflight = shipped.config("robot").preflight
    assert preflight is not None
    return set(re.findall(r"^# TYPE (\S+ \w+)$", exposition(Counts(), preflight.namespace), re.MULTILINE))


Look = Callable[[Shipped], object]

#: The row, what it is about, where it is, and what the row says.
ROWS: tuple[tuple[str, str, Look, object], ...] = (
    ("RT-1", "cores", lambda s: s.rt[PREREQUISITES].cores, 4),
    ("RT-1", "kernel", lambda s: s.rt[RT_KERNEL].minimum_release, "6.6"),
    ("RT-2", "Debian 13", lambda s: s.rt[RT_KERNEL].sources["debian-13"].packages, ("linux-image-rt-amd64",)),
    (
        "RT-2",
        "Debian 12",
        lambda s: s.rt[RT_KERNEL].sources["debian-12"].packages,
        ("linux-image-rt-amd64/bookworm-backports",),
    ),
    ("RT-2", "Ubuntu", lambda s: "realtime" in s.rt[RT_KERNEL].sources["ubuntu-24.04"].packages[0], True),
    ("RT-3", "nohz_full", lambda s: kernel_words(s)["nohz_full"], "2-3"),
    ("RT-3", "rcu_nocbs", lambda s: kernel_words(s)["rcu_nocbs"], "2-3"),
    ("RT-3", "isolcpus", lambda s: kernel_words(s)["isolcpus"].rpartition(",")[2], "2-3"),
    ("RT-9", "reference workload", lambda s: s.rt[RT_APP].application.kind, "reference"),
    ("section 6", "1 kHz", lambda s: s.rt[RT_APP].reference.cycle_us, 1000),
    ("section 6", "/health", lambda s: s.rt[RT_APP].rt_process.health_port, 8080),
    ("section 6", "/metrics", lambda s: s.rt[RT_APP].rt_process.metrics_port, 9090),
    ("RT-10", "local share > 95 %", lambda s: project_limits().numa_local_percent, 95),
    ("RT-11", "misses < 0.01 %", lambda s: project_limits().deadline_miss_ratio, 0.0001),
    ("RT-11", "jitter down >= 50 %", lambda s: project_limits().jitter_left_ratio, 0.5),
    ("RT-12", "running again < 5 s", lambda s: project_limits().recovery.seconds, 5),
    ("RT-12", "health < 500 ms", lambda s: project_limits().health_answer.milliseconds, 500),
    ("RT-12", "checkpoints", lambda s: f"{s.rt[RT_APP].state_dir}/checkpoints", "/var/mxrc/checkpoints"),
    (
        "OB-1",
        "log files",
        lambda s: s.data("/etc/filebeat/filebeat.yml", "robot")["filebeat.inputs"][0]["paths"][0],
        "/var/log/mxrc/*.log",
    ),
    (
        "OB-1",
        "index",
        lambda s: s.data("/etc/filebeat/filebeat.yml", "robot")["output.elasticsearch"]["index"],
        "mxrc-logs-%{+yyyy.MM.dd}",
    ),
    ("OB-1", "< 1 s", lambda s: project_limits().log_delay.seconds, 1),
    ("OB-1", "> 5000 msg/s", lambda s: project_limits().log_lines_per_second, 5000),
    (
        "OB-2",
        "fields",
        template,
        {
            "@timestamp": "date",
            "log.level": "keyword",
            "process.name": "keyword",
            "message": "text",
            "trace.id": "keyword",
            "mxrc.task_id": "keyword",
        },
    ),
    ("OB-3", "view", lambda s: s.data(f"{ETC}/kibana/setup.json")["data_view"]["title"], "mxrc-logs-*"),
    ("OB-3", "time field", lambda s: s.data(f"{ETC}/kibana/setup.json")["data_view"]["timeFieldName"], "@timestamp"),
    ("OB-4", "UI", lambda s: [one.settings.ui_port for one in s.view("backend").members(JAEGER)], [16686]),
    (
        "OB-4",
        "found within 10 s",
        lambda s: jaeger.ROLE.store and jaeger.ROLE.store.trace_search and jaeger.ROLE.store.trace_search.seconds,
        10,
    ),
    ("OB-4", "tracing costs < 5 %", lambda s: project_limits().tracing_cost_ratio, 0.05),
    (
        "OB-5",
        "OTLP",
        lambda s: {
            name: one["endpoint"].rpartition(":")[2]
            for name, one in s.data("/etc/otelcol/config.yaml", "robot")["receivers"]["otlp"]["protocols"].items()
        },
        {"grpc": "4317", "http": "4318"},
    ),
    ("OB-6", "two gateways", lambda s: project_limits().gateways, 2),
    ("OB-7", "OTLP", lambda s: alloy(s, r'endpoint = "0\.0\.0\.0:(\d+)"'), {"4317", "4318"}),
    ("OB-7", "UI", lambda s: set(re.findall(r"listen-addr=[0-9.]+:(\d+)", s.command("alloy", "entrance"))), {"12345"}),
    ("OB-7", "memory limit", lambda s: alloy(s, r'[^_]limit +(?:= )"(\w+)"'), {"512MiB"}),
    ("OB-7", "20 % spike", lambda s: alloy(s, r'spike_limit +(?:= )"(\w+)"'), {f"{512 * 1024 * 20 // 100}KiB"}),
    ("OB-7", "retry from", lambda s: alloy(s, r'initial_interval = "(\w+)"'), {"1s"}),
    ("OB-7", "retry to", lambda s: alloy(s, r'max_interval +(?:= )"(\w+)"'), {"30s"}),
    ("OB-7", "retry for", lambda s: alloy(s, r'max_elapsed_time = "(\w+)"'), {"5m"}),
    ("OB-7", "header", lambda s: alloy(s, r'"(X-[\w-]+)" = '), {"X-Scope-OrgID"}),
    (
        "OB-8",
        "schema",
        lambda s: [
            (one["schema"], one["store"]) for one in s.data(f"{ETC}/loki/loki.yaml")["schema_config"]["configs"]
        ],
        [("v13", "tsdb")],
    ),
    ("OB-8", "retention", lambda s: {one["retention_period"] for one in overrides(s, "loki").values()}, {"168h"}),
    (
        "OB-8",
        "structured metadata",
        lambda s: s.data(f"{ETC}/loki/loki.yaml")["limits_config"]["allow_structured_metadata"],
        True,
    ),
    ("OB-8", "pattern ingester", lambda s: s.data(f"{ETC}/loki/loki.yaml")["pattern_ingester"]["enabled"], True),
    ("OB-8", "port", lambda s: s.data(f"{ETC}/loki/loki.yaml")["server"]["http_listen_port"], 3100),
    ("OB-9", "port", lambda s: s.data(f"{ETC}/tempo/tempo.yaml")["server"]["http_listen_port"], 3200),
    (
        "OB-9",
        "generator",
        lambda s: set(overrides(s, "tempo")["prod"]["metrics_generator"]["processors"]),
        {"service-graphs", "span-metrics"},
    ),
    (
        "OB-9",
        "into Mimir",
        lambda s: [
            one["url"] for one in s.data(f"{ETC}/tempo/tempo.yaml")["metrics_generator"]["storage"]["remote_write"]
        ],
        ["http://192.0.2.2:9009/api/v1/push"],
    ),
    ("OB-9", "prod 14 d", lambda s: overrides(s, "tempo")["prod"]["compaction"]["block_retention"], "336h"),
    ("OB-9", "staging 7 d", lambda s: overrides(s, "tempo")["staging"]["compaction"]["block_retention"], "168h"),
    ("OB-10", "port", lambda s: s.data(f"{ETC}/mimir/mimir.yaml")["server"]["http_listen_port"], 9009),
    ("OB-10", "target", lambda s: s.data(f"{ETC}/mimir/mimir.yaml")["target"], "all,alertmanager"),
    ("OB-10", "ruler", lambda s: s.data(f"{ETC}/mimir/mimir.yaml")["ruler"]["evaluation_interval"], "1m"),
    ("OB-10", "prod", lambda s: mimir(s, "prod"), (10000, 50000, "360h")),
    ("OB-10", "staging", lambda s: mimir(s, "staging"), (5000, 20000, "168h")),
    ("OB-11", "tenants", lambda s: set(s.telemetry.tenants), {"prod", "staging", "infra-monitoring"}),
    *(
        ("OB-11", role, lambda s, role=role: set(overrides(s, role)), {"prod", "staging", "infra-monitoring"})
        for role in ("loki", "tempo", "mimir")
    ),
    (
        "OB-13",
        "retention",
        lambda s: set(re.findall(r"retention\.time=(\w+)", s.command("prometheus"))),
        {f"{7 * 86400}s"},
    ),
    ("OB-13", "remote write in", lambda s: "--web.enable-remote-write-receiver" in s.command("prometheus"), True),
    (
        "OB-13",
        "remote write out",
        lambda s: {one["url"] for one in s.data(f"{ETC}/prometheus/prometheus.yml")["remote_write"]},
        {"http://192.0.2.2:9009/api/v1/push"},
    ),
    ("OB-13", "application, hosts", lambda s: jobs(s) >= {"rt_process", "non_rt_process", "node", "agents"}, True),
    ("OB-13", "backends", lambda s: jobs(s) >= {"loki", "tempo", "mimir", "alloy", "jaeger", "grafana"}, True),
    ("OB-14", "port", lambda s: [one.settings.port for one in s.view("backend").members(GRAFANA)], [3000]),
    (
        "OB-14",
        "uids of prod and staging",
        lambda s: {one for one in sources(s) if not one.endswith("-infra-monitoring")},
        {"loki-prod", "loki-staging", "tempo-prod", "tempo-staging", "mimir-prod", "mimir-staging"},
    ),
    (
        "OB-14",
        "dashboards",
        lambda s: {board.written.title for board in dashboards(s.view("backend"))},
        {"RT host", "System overview", "Telemetry pipeline", "Preflight and compliance"},
    ),
    ("AL-2", "no metrics for 2 min", lambda s: alert("ServiceDown")[1:], ("2m", "critical")),
    ("AL-2", "a backend's, for 2 min", lambda s: alert("BackendDown")[1:], ("2m", "critical")),
    ("AL-2", "pushed ones, for 2 min", lambda s: "[2m]" in alert("PushedServiceSilent")[0], True),
    ("AL-2", "5xx > 5 %", lambda s: alert("HttpErrorsHigh")[0].rpartition(" > ")[2].strip(), "0.05"),
    ("AL-2", "over 5 min", lambda s: set(re.findall(r"\[(\w+)\]", alert("HttpErrorsHigh")[0])), {"5m"}),
    ("AL-2", "is a warning", lambda s: alert("HttpErrorsHigh")[2], "warning"),
    *(
        ("AL-2", name, lambda s, name=name: bool(alert(name)[0]), True)
        for name in (
            *("DeadlineMissed", "JitterHigh", "WatchdogRestart", "NumaLocalityLow"),
            *("CollectorQueueFilling", "DiskSpaceLow", "ClockNotSynchronised", "ClockWrong", "Watchdog"),
        )
    ),
    ("AL-3", "P0 at once", lambda s: s.data(f"{ETC}/alertmanager/alertmanager.yml")["route"]["group_wait"], "0s"),
    ("AL-3", "P0 is not grouped", lambda s: "group_interval" in route(s, "urgent"), False),
    ("AL-3", "P1 every 5 minutes", lambda s: route(s, "warnings")["group_interval"], "5m"),
    ("AL-3", "P1 in one message", lambda s: route(s, "warnings")["group_by"], ["priority"]),
    (
        "PF-2",
        "seven metrics",
        preflight_metrics,
        {
            "rtinfra_preflight_runs_total counter",
            "rtinfra_preflight_last_success gauge",
            "rtinfra_preflight_duration_seconds histogram",
            "rtinfra_preflight_checks_total counter",
            "rtinfra_preflight_realcheck_redis_latency_seconds histogram",
            "rtinfra_preflight_realcheck_postgres_latency_seconds histogram",
            "rtinfra_preflight_ready_for_live gauge",
        },
    ),
    (
        "PF-3",
        "P1 every 5 minutes",
        lambda s: json.loads(s.text("robot", "/etc/rtinfra/preflight/settings.json"))["notify"]["p1_interval"],
        "5min",
    ),
    (
        "PF-5",
        "every 10 minutes",
        lambda s: re.findall(
            r"^OnUnitInactiveSec=(.+)$",
            s.text("robot", "/etc/systemd/system/rtinfra-preflight.timer"),
            re.MULTILINE,
        ),
        ["10min"],
    ),
    (
        "OF-3",
        "environments",
        lambda s: set(TelemetrySettings.model_fields["environment"].annotation.__args__),  # type: ignore[union-attr]
        {"dev", "staging", "prod"},
    ),
)


@pytest.mark.parametrize(
    ("look", "required"), [row[2:] for row in ROWS], ids=[f"{row}: {what}" for row, what, _, _ in ROWS]
)
def test_a_shipped_value_is_that_of_its_row(shipped: Shipped, look: Look, required: object) -> None:
    assert look(shipped) == required


def test_each_value_is_here_once() -> None:
    names = [(row, what) for row, what, _, _ in ROWS]
    assert len(names) == len(set(names))
