"""Controls about telemetry, on hosts that answer as healthy ones do, and on hosts that do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.agents.model import AGENTS
from roles.alertmanager import model as alertmanager_model
from roles.alertmanager.model import ALERTMANAGER
from roles.alloy import model as alloy_model
from roles.alloy.model import ALLOY
from roles.fleet import load_hosts
from roles.gateways.model import GATEWAYS, addresses_of
from roles.host import HostConfig
from roles.jaeger import model as jaeger_model
from roles.jaeger.model import JAEGER
from roles.loki import model as loki_model
from roles.loki.model import LOKI
from roles.mimir import model as mimir_model
from roles.mimir.model import MIMIR
from roles.mirror_server.model import MIRROR_SERVER
from roles.prometheus import model as prometheus_model
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView
from roles.shared import AGENTS_SLICE, BACKENDS, TELEMETRY
from roles.stand_ins import stand_in_view
from roles.tempo import model as tempo_model
from roles.tempo.model import TEMPO
from rtinfra.config import Fleet
from rtinfra.config.types import ByteSize
from rtinfra.images import LocalStore
from rtinfra.paths import PROJECT
from rtinfra.quadlet import SLICE
from rtinfra.stack_programs import Program, programs_of
from rtinfra.verify import Report, Status, run
from rtinfra.verify.plugin import questions_of
from rtinfra.verify.verification import TESTS, pytest_arguments
from tests.record_looks import ANSWERING, rt_host
from tests.unit.mirror_fleet import client_answer, server_answer, server_units

CLOCK_LINE = "@@clock\n"
SAMPLE = rt_host()
CLOCK = int(SAMPLE.partition(CLOCK_LINE)[2].splitlines()[0])
DIGEST = "sha256:" + "ab" * 32
INVENTORY = """hosts:
  robot: {groups: [rt_hosts, lab, agents, preflight], ssh: {address: 192.0.2.1}}
  backend:
    groups: [gateways, jaeger, prometheus, alertmanager, loki, mimir, alloy]
    ssh: {address: 192.0.2.2}
    settings: {gateways: {addresses: [192.0.2.2, 192.0.2.3]}, telemetry: {logs: loki}}
  second: {groups: [tempo, mirror_client], ssh: {address: 192.0.2.4}}
  mirror: {groups: [mirror_server, mirror_client], ssh: {address: 192.0.2.5}}
"""
PREFLIGHT_METRICS = (
    "node_time_seconds 1000\n"
    'node_textfile_mtime_seconds{file="/var/lib/prometheus/node-exporter/rtinfra_preflight.prom"} 700\n'
    'rtinfra_preflight_ready_for_live{env="prod"} 1\n'
    'rtinfra_preflight_checks_total{env="prod",check="redis",status="pass"} 3\n'
) + "".join(
    f'rtinfra_preflight_{name}{{env="prod"}} 3\n'
    for name in (
        *("runs_total", "last_success", "duration_seconds_count"),
        *("realcheck_redis_latency_seconds_count", "realcheck_postgres_latency_seconds_count"),
    )
)
PREFLIGHT_UNITS = (
    "Id=rtinfra-preflight.timer\nActiveState=active\nUnitFileState=enabled\n",
    "Id=rtinfra-preflight.service\nSlice=agents.slice\nAllowedCPUs=0-1\n",
)
PREFLIGHT_FILES = (
    "/etc/rtinfra/preflight 750 root",
    "/etc/rtinfra/preflight/settings.json 600 rtinfra-preflight",
    "/etc/rtinfra/preflight/secrets 750 root",
    "/var/lib/rtinfra-preflight/evidence/20261120T120000.000000Z-prod-1.json 640 rtinfra-preflight",
)
# Controls that ask by themselves or do something; the snapshot is not what they look at.
ACTIVE = {"OB-4.1", "OB-15.1", "AL-1.3", "AL-2.4"}
CONTROLS = sorted(
    {
        name
        for path in TESTS.glob("test_*.py")
        for name in re.findall(r'id="((?:OB|AL|OF|PF)-\d+\.\d+)"', path.read_text(encoding="utf-8"))
    }
    - ACTIVE
)


@cache
def rules() -> list[dict[str, Any]]:
    files = (PROJECT / "templates" / "prometheus" / "rules").glob("*.yml")
    return [
        {
            "name": rule["alert"],
            "type": "alerting",
            "health": "ok",
            "labels": rule["labels"],
            "annotations": {"runbook_url": f"http://192.0.2.2:9095/runbooks/{rule['alert']}"},
        }
        for path in files
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


def collector(capacity: float) -> str:
    return "\n".join(
        [
            f'otelcol_exporter_queue_capacity{{exporter="otlp_grpc"}} {capacity}',
            'otelcol_exporter_queue_size{exporter="otlp_grpc"} 0',
            'otelcol_exporter_send_failed_spans_total{exporter="otlp_grpc"} 0',
            'otelcol_receiver_accepted_log_records_total{receiver="file_log/application"} 9',
        ]
    )


def bodies(fleet: Fleet[HostConfig], name: str) -> dict[str, object]:
    """What the programs of a host answer when all is well."""
    host = fleet.hosts[name]
    view, config = stand_in_view(fleet, host), host.config
    if name == "robot":
        agents = config[AGENTS]
        assert agents is not None
        node = 'node_uname_info{nodename="robot"} 1\nnode_cpu_seconds_total{cpu="0"} 1\nnode_textfile_scrape_error 0\n'
        node += PREFLIGHT_METRICS
        return {
            view.url(agents.collector.metrics_port, "/metrics"): collector(2.0**30),
            f"http://192.0.2.1:{agents.node_exporter.port}/metrics": node,
        }
    if name == "mirror":
        return {}
    return _second(view, config) if name == "second" else _backend(view, config)


def _second(view: FleetView, config: HostConfig) -> dict[str, object]:
    tenants = config[TELEMETRY].tenants
    url = view.url(config[TEMPO].port)
    overrides = {
        tenant: {
            "compaction": {"block_retention": f"{int(limits.traces_retention.seconds)}s"},
            "metrics_generator": {"processors": ["service-graphs", "span-metrics"]},
        }
        for tenant, limits in tenants.items()
    }
    generator = {"storage": {"remote_write": [{"url": "http://192.0.2.2:9009/api/v1/push"}]}}
    return {
        f"{url}{tempo_model.CONFIG_PAGE}": yaml.safe_dump(
            {"multitenancy_enabled": True, "metrics_generator": generator}
        ),
        f"{url}{tempo_model.OVERRIDES_PAGE}": "---\n" + yaml.safe_dump({"overrides": overrides}),
    }


def alloy_components(tenants: Iterable[str]) -> list[dict[str, object]]:
    """What a whole pipeline of Alloy has, for each tenant."""
    return [
        {"localID": name_, "name": name_.rpartition(".")[0], "health": {"state": "healthy"}}
        for name_ in (
            *("otelcol.receiver.otlp.default", "otelcol.processor.memory_limiter.default"),
            *(
                f"otelcol.{kind}"
                for tenant in tenants
                for label in (tenant.replace("-", "_"),)
                for kind in (f"processor.filter.{label}", f"processor.batch.{label}", f"exporter.otlphttp.{label}_logs")
            ),
        )
    ]


def _backend(view: FleetView, config: HostConfig) -> dict[str, object]:
    tenants = config[TELEMETRY].tenants
    prometheus, gateways, mimir = config[PROMETHEUS], config[GATEWAYS], config[MIMIR]
    assert prometheus is not None and gateways is not None and mimir is not None
    base = {
        "prometheus": view.url(config[PROMETHEUS].port),
        "alertmanager": view.url(config[ALERTMANAGER].port),
        "loki": view.url(config[LOKI].port),
        "mimir": view.url(config[MIMIR].port),
    }
    effective = {
        "global": {
            "scrape_interval": str(prometheus.scrape_interval),
            "evaluation_interval": str(prometheus.evaluation_interval),
        },
        "storage": {"tsdb": {"out_of_order_time_window": str(prometheus.out_of_order_window)}},
    }
    flags = {
        "storage.tsdb.retention.time": f"{int(prometheus.retention.seconds)}s",
        "web.enable-remote-write-receiver": "true",
        "enable-feature": "otlp-write-receiver,exemplar-storage",
    }
    one = {"data": {"result": [{"value": [0, "1"]}]}}
    routing = {"receivers": [{"name": "alert-log", "webhook_configs": [{"url": "http://192.0.2.2:9095/alerts"}]}]}
    routing["route"] = {"receiver": "alert-log"}  # type: ignore[assignment]
    limits = {
        tenant: {
            "ingestion_rate": its.samples_per_second,
            "max_global_series_per_user": its.series,
            "compactor_blocks_retention_period": f"{int(its.metrics_retention.seconds)}s",
        }
        for tenant, its in tenants.items()
    }
    return {
        **{
            f"http://{address}:{gateways.metrics_port}/metrics": collector(2.0**40)
            for address in addresses_of(gateways, view.address)
        },
        f"{view.url(config[JAEGER].ui_port)}{jaeger_model.operations('mxrc-rt')}": {
            "data": ["rt.cycle", "task.execute"]
        },
        f"{base['prometheus']}{prometheus_model.FLAGS_PAGE}": {"data": flags},
        f"{base['prometheus']}{prometheus_model.CONFIG_PAGE}": {"data": {"yaml": yaml.safe_dump(effective)}},
        f"{base['prometheus']}{prometheus_model.TARGETS_PAGE}": {
            "data": {"activeTargets": [{"scrapeUrl": "http://192.0.2.1:9100", "health": "up", "lastError": ""}]}
        },
        f"{base['prometheus']}{prometheus_model.RULES_PAGE}": {"data": {"groups": [{"rules": rules()}]}},
        f"{base['prometheus']}{prometheus_model.query(prometheus_model.HOSTS_SEEN)}": one,
        f"{base['prometheus']}{prometheus_model.query(prometheus_model.LOOPS_SEEN)}": one,
        f"{base['alertmanager']}{alertmanager_model.STATUS_PAGE}": {
            "config": {"original": yaml.safe_dump(routing)},
            "cluster": {"status": "disabled"},
        },
        f"{view.url(config[ALERTMANAGER].log_port)}/metrics": (
            "rtinfra_alert_log_watchdog_timestamp_seconds 1.7e9\nrtinfra_alert_log_watchdog_missing 0"
        ),
        f"{base['loki']}{loki_model.CONFIG_PAGE}": yaml.safe_dump(
            {
                "auth_enabled": True,
                "schema_config": {"configs": [{"schema": "v13", "store": "tsdb"}]},
                "limits_config": {"allow_structured_metadata": True},
                "pattern_ingester": {"enabled": True},
                "compactor": {"retention_enabled": True, "delete_request_store": "filesystem"},
            }
        ),
        **{
            view.url(config[LOKI].port, f"{loki_model.LIMITS_PAGE}?tenant={tenant}"): (
                f"retention_period: {int(its.logs_retention.seconds)}s"
            )
            for tenant, its in tenants.items()
        },
        f"{base['mimir']}{loki_model.CONFIG_PAGE}": yaml.safe_dump(
            {
                "target": "all,alertmanager",
                "multitenancy_enabled": True,
                "ruler": {"evaluation_interval": str(mimir.ruler_interval)},
            }
        ),
        f"{base['mimir']}{mimir_model.RUNTIME_CONFIG_PAGE}": yaml.safe_dump({"overrides": limits}),
        f"{view.url(config[ALLOY].ui_port)}{alloy_model.COMPONENTS_PAGE}": alloy_components(tenants),
        f"{view.url(config[ALLOY].ui_port)}{alloy_model.METRICS_PAGE}": collector(2.0**30),
    }


def unit(program: Program) -> str:
    group = f"/{SLICE if program.container else AGENTS_SLICE}/{program.unit}"
    return (
        f"Id={program.unit}\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=0\n"
        f"ActiveEnterTimestampMonotonic=1000000\nControlGroup={group}\n"
    )


def values(fleet: Fleet[HostConfig], name: str, own: Sequence[Program]) -> Iterator[str]:
    config = fleet.hosts[name].config
    if config.get(AGENTS) is not None:
        yield f"/sys/fs/cgroup/{AGENTS_SLICE}/memory.max\0{config[AGENTS].slice.memory_max.bytes}"
        yield f"/sys/fs/cgroup/{AGENTS_SLICE}/cpuset.cpus.effective\x000-1"
    memory = next(int(line) for line in SAMPLE.partition("@@memory_kb\n")[2].splitlines()) * 1024
    yield f"/sys/fs/cgroup/{SLICE}/memory.max\0{memory * int(config[BACKENDS].memory_max.rstrip('%')) // 100}"
    for one in own:
        if one.container is not None:
            quota = int(one.container.cpu_quota.rstrip("%")) * 1000
            yield f"/sys/fs/cgroup/{SLICE}/{one.unit}/memory.max\0{ByteSize.parse(one.container.memory_max).bytes}"
            yield f"/sys/fs/cgroup/{SLICE}/{one.unit}/cpu.max\0{quota} 100000"


def threads(own: Sequence[Program]) -> tuple[list[str], list[str], list[str]]:
    """One thread for each agent, on core 0: stat, status and control group."""
    stat, status, groups = [], [], []
    for pid, one in enumerate((one for one in own if one.role == "agents"), 90001):
        fields = " ".join(["0"] * 35)
        stat.append(f"/proc/{pid}/task/{pid}/stat\0{pid} ({one.name[:15]}) S {fields} 0 0 0")
        status.append(f"/proc/{pid}/task/{pid}/status\0Cpus_allowed_list:\t0-1")
        groups.append(f"/proc/{pid}/cgroup\x000::/{AGENTS_SLICE}/{one.unit}")
    return stat, status, groups


def answer_of(fleet: Fleet[HostConfig], name: str, is_silent: bool) -> str:
    """The recorded host, with telemetry programs; silent ones run and do not answer."""
    host = fleet.hosts[name]
    view, own = stand_in_view(fleet, host), programs_of(fleet, host)
    said = bodies(fleet, name)
    stat, status, groups = threads(own)
    place, clock = view.mirror.place if view.mirror else None, datetime.fromtimestamp(CLOCK, UTC)
    serves = host.config.get(MIRROR_SERVER) is not None
    text = SAMPLE.rstrip("\n")
    for section, lines in (
        ("units", [*(unit(one) for one in own), *PREFLIGHT_UNITS, *(server_units() if serves else ())]),
        ("exposure", ["Overall exposure level for rtinfra-preflight.service: 2.0 OK"]),
        ("slice_values", list(values(fleet, name, own))),
        ("thread_stat", stat),
        ("thread_status", status),
        ("cgroups", groups),
        ("packages", [f"{package} installed 1" for one in own for package in one.packages]),
        ("packages", ["python3-venv installed 1", "git installed 1"]),
    ):
        text = text.replace(f"@@{section}\n", "\n".join([f"@@{section}", *lines, ""]), 1)
    containers = [one for one in own if one.container is not None]
    more = ["@@containers", *(f"{one.name} {'12' * 32} running" for one in containers)]
    more += ["@@images", f"sha256:{'12' * 32} localhost/any@{DIGEST}", "@@directories"]
    for one in containers:
        assert one.container is not None
        account = one.container.account.name
        more += [f"{path} 750 {account} {account}" for path in one.directories]
    more += ["@@data_files", *(f"1 {path}/block" for one in containers for path in one.directories)]
    more += ["@@private_files", *PREFLIGHT_FILES, "@@http_telemetry"]
    for request in questions_of(fleet, host).requests:
        body = "" if is_silent else said.get(request.url, "")
        code = 0 if is_silent else next((one.ready_status[0] for one in own if one.ready == request.url), 200)
        shown = body if isinstance(body, str) else json.dumps(body)
        more += [f"@http GET {request.url} {code} 3 {1 + shown.count(chr(10))}", shown, ""]
    if place is not None and not is_silent:
        more += client_answer(place, host.config, clock)
        more += server_answer(place, host.config, clock) if serves else ()
    return "\n".join([text, *more, ""])


@pytest.fixture
def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Verify the fleet after replacing words in what its hosts answer."""
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(INVENTORY)
    fleet = load_hosts(PROJECT, inventory)
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *"-O exit"*) exit 0 ;; esac\n'
        f'for word; do [ -f {tmp_path}/"$word" ] && answer={tmp_path}/$word; done\n{ANSWERING}"$answer"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(LocalStore, "image", lambda _self, name: f"localhost/{name}@{DIGEST}")

    def run_pytest(tests: Path, arguments: Sequence[str], log: Path, tell: Callable[[str], None]) -> None:
        with log.open("w") as sink, redirect_stdout(sink), redirect_stderr(sink):
            # What looks for errors in destructors collects garbage of the whole process, which takes longer than a run.
            pytest.main([*pytest_arguments(tests), "-s", "-p", "no:unraisableexception", *arguments])

    monkeypatch.setattr("rtinfra.verify.verification._run_pytest", run_pytest)

    def verified(*changes: tuple[str, str], controls: Sequence[str] = CONTROLS, is_silent: bool = False) -> Report:
        for name in fleet.hosts:
            text = answer_of(fleet, name, is_silent)
            for old, new in changes:
                text = text.replace(old, new)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return run(inventory, tests=TESTS, output=tmp_path / "reports", controls=controls)

    return verified


def failures(report: Report) -> dict[str, str]:
    return {
        one.control: f"{one.note}: {one.expected} / {one.actual}" for one in report.results if one.status is Status.FAIL
    }


def test_healthy_hosts_pass(verify: Callable[..., Report]) -> None:
    report = verify()
    assert failures(report) == {}
    assert report.problems == ()
    on = {(one.host, one.control) for one in report.results}
    assert ("robot", "OB-5.12") in on
    assert ("backend", "OB-6.3") in on
    assert ("second", "OB-11.20") in on
    assert ("second", "OF-1.1") in on
    assert ("mirror", "OF-1.20") in on
    assert ("second", "OF-1.20") not in on
    assert not [host for host, control in on if host != "robot" and control.startswith("OB-5")]
    assert len([one for one in report.results if one.status is Status.PASS]) > 50


@pytest.mark.parametrize(
    ("old", "new", "control"),
    [
        ("Cpus_allowed_list:\t0-1\n/proc/90002", "Cpus_allowed_list:\t0-3\n/proc/90002", "OB-5.12"),
        ("memory.max\x00", "memory.max\x001", "OF-3.4"),
        (DIGEST, "sha256:" + "cd" * 32, "OF-3.7"),
        (" 750 rtinfra-jaeger", " 755 rtinfra-jaeger", "OF-3.8"),
        ("retention_period: ", "retention_period: 1", "OB-11.10"),
        ("block_retention: ", "block_retention: 1", "OB-11.20"),
        ("max_global_series_per_user: ", "max_global_series_per_user: 1", "OB-11.31"),
        ("out_of_order_time_window: ", "out_of_order_time_window: 1", "OB-13.3"),
        ('"storage.tsdb.retention.time": "', '"storage.tsdb.retention.time": "1', "OB-13.1"),
        ('"health": "up"', '"health": "down"', "OB-13.2"),
        ('send_failed_spans_total{exporter="otlp_grpc"} 0', 'send_failed_spans_total{exporter="x"} 1', "OB-6.5"),
        ("node_textfile_scrape_error 0", "node_textfile_scrape_error 1", "OB-5.21"),
        ('"rt.cycle", "task.execute"', '"task.execute"', "OB-4.10"),
        ("otelcol.processor.batch.staging", "otelcol.processor.batch.other", "OB-7.2"),
        ("otelcol.exporter.otlphttp.prod_logs", "otelcol.exporter.otlphttp.other", "OB-7.2"),
        ("http://192.0.2.2:9095/alerts", "http://192.0.2.9:9095/alerts", "AL-1.2"),
        ("watchdog_missing 0", "watchdog_missing 1", "AL-2.1"),
        ('ready_for_live{env="prod"} 1', 'ready_for_live{env="prod"} 0', "PF-1.1"),
        ("rtinfra_preflight_last_success", "other_last_success", "PF-2.1"),
        ('runs_total{env="prod"}', 'runs_total{env="Environment.PROD"}', "PF-2.2"),
        ("-prod-1.json 640", "-prod-1.tmp 640", "PF-4.1"),
        (
            "Id=rtinfra-preflight.timer\nActiveState=active",
            "Id=rtinfra-preflight.timer\nActiveState=inactive",
            "PF-5.1",
        ),
        ("node_time_seconds 1000", "node_time_seconds 9000", "PF-5.2"),
        ("rtinfra-preflight.service: 2.0", "rtinfra-preflight.service: 9.0", "PF-5.3"),
        ("Slice=agents.slice\nAllowedCPUs", "Slice=system.slice\nAllowedCPUs", "PF-5.4"),
        ("AllowedCPUs=0-1", "AllowedCPUs=", "PF-5.5"),
        ("settings.json 600", "settings.json 644", "OF-2.1"),
        ("/otel-gateway-2/block", "/other/block", "OB-6.4"),
        ("rtinfra.sources\n", "rtinfra.sources\n/etc/apt/sources.list.d/vendor.list\n", "OF-1.1"),
        ("@@mirror_targets\n", "@@mirror_targets\nhttp://192.0.2.99/debian/ /usr/share/keyrings/x.gpg\n", "OF-1.1"),
        ("@@mirror_key\n", "@@mirror_key\nanother ", "OF-1.2"),
        ("@@mirror_update\nstatus 0", "@@mirror_update\nE: Release file is expired\nstatus 100", "OF-1.3"),
        ("Valid-Until: ", "Expired: ", "OF-1.4"),
        ('Check-Date "true"', 'Check-Date "false"', "OF-1.6"),
        ("@@mirror_pip\n", "@@mirror_pip\nextra-index-url = http://192.0.2.99/\n", "OF-1.7"),
        ('"default": [{"type": "reject"}]', '"default": [{"type": "insecureAcceptAnything"}]', "OF-1.8"),
        ("@@mirror_registries\n{", '@@mirror_registries\n{"search": ["192.0.2.99"], ', "OF-1.8"),
        ("@@mirror_versions\n", "@@mirror_versions\nInst chrony [4.6] (4.7 rtinfra:trixie [amd64])\n", "OF-1.9"),
        ("@@mirror_recorded\n", "@@mirror_recorded\nolder-", "OF-1.9"),
        ("@@mirror_release\nHTTP/1.1 200 OK", "@@mirror_release\nHTTP/1.1 404 Not Found", "OF-1.20"),
        ("IP Address:192.0.2.5", "IP Address:192.0.2.6", "OF-1.21"),
        ("0.0.0.0:22", "0.0.0.0:80", "OF-1.22"),
        ("127.0.0.1:5000\n", "0.0.0.0:5000\n", "OF-1.22"),
        ("HTTP/1.1 405 Not Allowed", "HTTP/1.1 202 Accepted", "OF-1.23"),
        ("600 root /etc/rtinfra", "644 root /etc/rtinfra", "OF-1.24"),
        ("2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "OF-1.25"),
    ],
)
def test_what_is_wrong_is_found(verify: Callable[..., Report], old: str, new: str, control: str) -> None:
    report = verify((old, new), controls=[control])
    (found,) = failures(report).items()
    assert found[0] == control
    assert "the check itself failed" not in found[1]


@pytest.mark.slow
def test_silence_is_a_failure_with_its_reason_and_no_mistake_of_the_control(verify: Callable[..., Report]) -> None:
    found = failures(verify(is_silent=True))
    assert {"OB-5.2", "OB-6.2", "OB-13.1", "OB-11.10", "OF-3.2", "AL-1.1", "OF-1.3", "OF-1.20"} <= found.keys()
    assert {control: said for control, said in found.items() if "the check itself failed" in said} == {}
