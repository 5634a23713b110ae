"""What the role prometheus puts on a host."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.prometheus import role
from roles.shape import FleetView, RoleState
from rtinfra.images import LocalStore
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import at, document, here, resource, shipped, telemetry, text, view

CONFIG = "/etc/rtinfra/prometheus/prometheus.yml"
EVERYTHING = ("jaeger", "loki", "tempo", "mimir", "alloy", "grafana")


def everything(**shared: Any) -> FleetView:
    """A fleet in which every role runs somewhere."""
    return view(
        host="b1",
        address="192.0.2.1",
        shared=telemetry(**shared),
        prometheus=here(),
        alertmanager=(here(), at("b2", "192.0.2.2")),
        gateways=(
            at("g1", "192.0.2.11"),
            at("g2", "192.0.2.12", shipped("gateways", addresses=["10.0.0.1", "10.0.0.2"])),
        ),
        agents=(at("r1", "192.0.2.21"),),
        rt_app=(at("r1", "192.0.2.21"),),
        **{role: at("b3", "192.0.2.3") for role in EVERYTHING},
    )


def state(fleet: FleetView, **changes: Any) -> RoleState:
    return role.state(shipped("prometheus", **changes), fleet)


def targets(fleet: FleetView) -> dict[str, list[tuple[str, str]]]:
    """Address and host of what is scraped, by job."""
    return {
        job["job_name"]: [(one["targets"][0], one["labels"]["host"]) for one in job["static_configs"]]
        for job in document(state(fleet), CONFIG)["scrape_configs"]
    }


def test_every_program_of_the_fleet_is_scraped_where_its_settings_say() -> None:
    found = targets(everything())
    assert found["rt_process"] == [("192.0.2.21:9090", "r1")]
    assert found["non_rt_process"] == [("192.0.2.21:9091", "r1")]
    agents = shipped("agents")
    assert found["node"] == [(f"192.0.2.21:{agents.node_exporter.port}", "r1")]
    assert found["agents"] == [(f"192.0.2.21:{agents.collector.metrics_port}", "r1")]
    port = shipped("gateways").metrics_port
    assert found["gateways"] == [(f"192.0.2.11:{port}", "g1"), (f"10.0.0.1:{port}", "g2"), (f"10.0.0.2:{port}", "g2")]
    assert found["alertmanager"] == [("192.0.2.1:9093", "b1"), ("192.0.2.2:9093", "b2")]
    assert found["alert_log"] == [("192.0.2.1:9095", "b1"), ("192.0.2.2:9095", "b2")]
    assert found.keys() >= {*EVERYTHING, "prometheus"}


def test_what_does_not_run_is_not_scraped() -> None:
    assert targets(view(prometheus=here())).keys() == {"prometheus"}


def test_labels_say_where_a_metric_comes_from() -> None:
    jobs = document(state(everything(tenant="staging", environment="staging")), CONFIG)["scrape_configs"]
    labels = {job["job_name"]: job["static_configs"][0]["labels"] for job in jobs}
    # The tenant of the host itself, not that of the host Prometheus is on.
    assert labels["node"] == {"host": "r1", "role": "agents", "tenant": "prod", "environment": "staging"}
    assert labels["gateways"]["tenant"] == "infra-monitoring"
    assert labels["rt_process"]["role"] == "rt_hosts"


def test_alerts_go_to_all_alertmanagers() -> None:
    (alertmanagers,) = document(state(everything()), CONFIG)["alerting"]["alertmanagers"]
    assert alertmanagers["static_configs"] == [{"targets": ["192.0.2.1:9093", "192.0.2.2:9093"]}]
    assert "alerting" not in document(state(view(prometheus=here())), CONFIG)


def test_settings_reach_the_program() -> None:
    found = state(everything(), retention="30d", out_of_order_window="90min", scrape_interval="5s")
    (container,) = found.containers
    assert "--storage.tsdb.retention.time=2592000s" in container.command
    configuration = document(found, CONFIG)
    assert configuration["storage"] == {"tsdb": {"out_of_order_time_window": "90m"}}
    assert configuration["global"]["scrape_interval"] == "5s"


def test_it_takes_metrics_of_collectors_and_listens_only_at_its_address() -> None:
    (container,) = state(everything()).containers
    assert "--web.listen-address=192.0.2.1:9090" in container.command
    assert "--web.enable-otlp-receiver" in container.command
    assert "--web.enable-remote-write-receiver" in container.command
    assert container.ready == "http://192.0.2.1:9090/-/ready"


def test_each_tenant_is_written_to_its_own_place_in_mimir() -> None:
    written = document(state(everything(metrics="mimir")), CONFIG)["remote_write"]
    port = shipped("mimir").port
    assert {one["url"] for one in written} == {f"http://192.0.2.3:{port}/api/v1/push"}
    kept = {one["headers"]["X-Scope-OrgID"]: one["write_relabel_configs"][0]["regex"] for one in written}
    # What belongs to nobody, such as alerts, belongs to the monitoring.
    assert kept == {"prod": "prod", "staging": "staging", "infra-monitoring": "|infra-monitoring"}


def test_nothing_is_written_elsewhere_unless_metrics_live_in_mimir() -> None:
    assert "remote_write" not in document(state(everything()), CONFIG)


def test_every_link_leads_to_the_first_alert_log() -> None:
    found = state(everything())
    for path in role.RULES.glob("*.rules.yml"):
        rules = text(found, f"/etc/rtinfra/prometheus/rules/{path.name}")
        assert "http://192.0.2.1:9095/runbooks/" in rules
        assert "RUNBOOKS/" not in rules


def test_links_without_an_alert_log_lead_to_the_project() -> None:
    assert "runbook_url: docs/runbooks/HostDown" in text(
        state(view(prometheus=here())), "/etc/rtinfra/prometheus/rules/hosts.rules.yml"
    )


def test_each_file_is_checked_by_the_image_that_runs_it() -> None:
    found = state(everything())
    (container,) = found.containers
    for file in container.config:
        assert file.validate is not None
        assert " /promtool check " in file.validate
        assert file.restarts == ("prometheus.service",)


def test_what_gateways_send_is_named_as_what_is_scraped() -> None:
    """The names of metrics/catalogue.yaml: rules and dashboards know no others."""
    assert document(state(everything()), CONFIG)["otlp"] == {"translation_strategy": "UnderscoreEscapingWithSuffixes"}


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the image that hosts run; Debian's is too old to know the section `otlp`."""
    store = LocalStore()
    if (state := store.state("prometheus")) != "ready":
        pytest.skip(f"the image prometheus is {state}: rtinfra images build prometheus")
    directory = tmp_path_factory.mktemp("image")
    with tarfile.open(store.archive("prometheus")) as archive:
        layer = max(archive, key=lambda member: member.size)
        with tarfile.open(fileobj=archive.extractfile(layer)) as tar:
            tar.extract(role.PROMTOOL.lstrip("/"), directory, filter="data")
    return directory / role.PROMTOOL.lstrip("/")


@pytest.mark.slow
@pytest.mark.parametrize("metrics", ["prometheus", "mimir"])
def test_prometheus_takes_the_configuration(promtool: Path, tmp_path: Path, metrics: str) -> None:
    file = resource(state(everything(metrics=metrics)), CONFIG)
    assert isinstance(file, File)
    path = tmp_path / "prometheus.yml"
    path.write_bytes(file.content)
    result = subprocess.run([promtool, "check", "config", "--syntax-only", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert yaml.safe_load(file.content)["rule_files"] == ["/etc/prometheus/rules/*.rules.yml"]


@pytest.mark.slow
def test_the_prometheus_that_hosts_run_takes_the_rules(promtool: Path, tmp_path: Path) -> None:
    """What they do is tested in test_alert_rules.py, with Debian's older promtool."""
    rules = [tmp_path / path.name for path in role.RULES.glob("*.rules.yml")]
    for path in rules:
        path.write_text(text(state(everything()), f"/etc/rtinfra/prometheus/rules/{path.name}"), encoding="utf-8")
    result = subprocess.run([promtool, "check", "rules", "--lint-fatal", *rules], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_alert_without_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "PAGES", role.PROJECT / "docs" / "ko")
    with pytest.raises(ValueError, match=r"the alert \w+ in templates/prometheus/rules/.* has no runbook: write docs/"):
        state(view(prometheus=here()))
