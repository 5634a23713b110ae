"""The `gateways` role: one collector for each address, each tenant on its way to the backends."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.gateways import role as gateways
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import Directory, File
from tests.unit.telemetry_site import FakeSecrets, at, document, resource, shipped, telemetry, view

CONFIG = "/etc/rtinfra/otel-gateway-1/config.yaml"
TENANTS = ("prod", "staging", "infra-monitoring")


class SecretsWithDollars(FakeSecrets):
    """A dollar begins a reference in the collector's configuration."""

    def read(self, name: str) -> bytes:
        return super().read(name).replace(b"-", b"$")


def backends(**shared: Any) -> FleetView:
    """A gateway's view; every backend runs somewhere."""
    found = view(
        "gw",
        "192.0.2.10",
        shared=telemetry(**shared),
        jaeger=at("j", "192.0.2.21", shipped("jaeger", grpc_port=14317)),
        tempo=at("t", "192.0.2.22", shipped("tempo", otlp_grpc_port=24317)),
        prometheus=at("p", "192.0.2.23", shipped("prometheus", port=9090)),
        mimir=(at("m1", "192.0.2.24"), at("m2", "192.0.2.25")),
        loki=at("l", "192.0.2.26", shipped("loki", port=3100)),
        elasticsearch=(
            at("e1", "192.0.2.27", shipped("elasticsearch", port=9200)),
            at("e2", "192.0.2.28", shipped("elasticsearch", port=9200)),
        ),
    )
    return replace(found, secrets=SecretsWithDollars())


def exporters(changes: dict[str, Any] | None = None, **shared: Any) -> dict[str, Any]:
    part = gateways.state(shipped("gateways", **(changes or {})), backends(**shared))
    return dict(document(part, CONFIG)["exporters"])


@pytest.fixture
def default() -> RoleState:
    return gateways.state(shipped("gateways"), backends())


def test_one_gateway_at_the_hosts_own_address(default: RoleState) -> None:
    (container,) = default.containers
    assert container.name == "otel-gateway-1"
    assert container.ready == "http://192.0.2.10:13134/"
    protocols = document(default, CONFIG)["receivers"]["otlp"]["protocols"]
    assert protocols["grpc"]["endpoint"] == "192.0.2.10:4327"


def test_several_on_one_host_share_ports_and_nothing_else() -> None:
    part = gateways.state(shipped("gateways", addresses=["192.0.2.11", "192.0.2.12"]), backends())
    assert [container.name for container in part.containers] == ["otel-gateway-1", "otel-gateway-2"]
    assert [dict(container.data) for container in part.containers] == [
        {"otel-gateway-1": "/data"},
        {"otel-gateway-2": "/data"},
    ]
    for number, address in ((1, "192.0.2.11"), (2, "192.0.2.12")):
        config = document(part, f"/etc/rtinfra/otel-gateway-{number}/config.yaml")
        grpc, http = (config["receivers"]["otlp"]["protocols"][name]["endpoint"] for name in ("grpc", "http"))
        assert {grpc, http, config["extensions"]["health_check"]["endpoint"]} == {
            f"{address}:4327",
            f"{address}:4328",
            f"{address}:13134",
        }
        (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
        exporter = reader["pull"]["exporter"]["prometheus"]
        assert (exporter["host"], exporter["port"]) == (address, 8889)


def test_the_same_address_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="address twice"):
        shipped("gateways", addresses=["192.0.2.11", "192.0.2.11"])


def test_an_address_is_no_name() -> None:
    with pytest.raises(ValidationError):
        shipped("gateways", addresses=["gateway.example"])


def test_every_tenant_and_signal_has_a_way_of_its_own(default: RoleState) -> None:
    config = document(default, CONFIG)
    pipelines = config["service"]["pipelines"]
    for signal in ("traces", "metrics", "logs"):
        assert pipelines[signal]["exporters"] == [f"routing/{signal}"]
        table = {row["condition"]: row["pipelines"] for row in config["connectors"][f"routing/{signal}"]["table"]}
        assert table == {f'attributes["tenant_id"] == "{tenant}"': [f"{signal}/{tenant}"] for tenant in TENANTS}
        used = [pipelines[f"{signal}/{tenant}"]["exporters"] for tenant in TENANTS]
        assert len({name for (name,) in used}) == len(TENANTS)
        assert all(name in config["exporters"] for (name,) in used)


def test_an_unknown_tenant_is_seen_by_those_who_run_the_stack(default: RoleState) -> None:
    config = document(default, CONFIG)
    for signal in ("traces", "metrics", "logs"):
        assert config["connectors"][f"routing/{signal}"]["default_pipelines"] == [f"{signal}/infra-monitoring"]
        assert "resource/tenant" in config["service"]["pipelines"][signal]["processors"]


def test_the_tenant_of_the_stack_is_there_even_if_nobody_lists_it() -> None:
    base = telemetry()
    only_prod = base.model_copy(update={"tenants": {"prod": base.tenants["prod"]}})
    where = view("gw", "192.0.2.10", shared=only_prod, jaeger=at("j", "192.0.2.21"), prometheus=at("p", "192.0.2.23"))
    config = document(gateways.state(shipped("gateways"), where), CONFIG)
    assert "traces/infra-monitoring" in config["service"]["pipelines"]


def test_nothing_is_acknowledged_before_it_is_on_the_disk(default: RoleState) -> None:
    config = document(default, CONFIG)
    assert config["extensions"]["file_storage/queue"]["fsync"] is True
    for name, exporter in config["exporters"].items():
        if name.startswith("file/"):
            # Without rotation the exporter buffers.
            assert exporter["rotation"]["max_megabytes"] == 100
            continue
        queue = exporter["sending_queue"]
        assert queue["storage"] == "file_storage/queue"
        assert queue["block_on_overflow"] is True
        assert "max_size" not in queue["batch"]
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    for name, pipeline in config["service"]["pipelines"].items():
        if "/" not in name:
            assert pipeline["processors"][0] == "memory_limiter"
        assert not any(processor.startswith("batch") for processor in pipeline.get("processors", ()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_sets_the_attribute_as_the_account(default: RoleState) -> None:
    """For real: the account's own folder gets it, what a folder of root's in its place would have been does not."""
    directory = resource(default, "/var/lib/rtinfra-data/otel-gateway-1/logs")
    (action,) = directory.actions
    account = 64_999
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        for folder, owner in (("own", account), ("roots", 0)):
            (place / folder).mkdir()
            os.chown(place / folder, owner, owner)
            command = action.command.replace("rtinfra-gateways", str(account)).replace(
                directory.path, str(place / folder)
            )
            assert str(account) in command
            done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
            flags = subprocess.run(["lsattr", "-d", place / folder], capture_output=True, text=True, check=True).stdout
            assert ("S" in flags.split()[0]) == (folder == "own"), done.stderr


def test_log_files_are_written_through_and_kept_as_long_as_the_tenant_says(default: RoleState) -> None:
    directory = resource(default, "/var/lib/rtinfra-data/otel-gateway-1/logs")
    assert isinstance(directory, Directory)
    (action,) = directory.actions
    assert action.command.endswith(f" chattr +S {directory.path}")
    assert document(default, CONFIG)["exporters"]["file/logs-prod"] == {
        "path": "/data/logs/prod.jsonl",
        "create_directory": True,
        "rotation": {"max_megabytes": 100, "max_backups": 50, "max_days": 7},
    }


def test_metrics_get_host_and_tenant_as_labels(default: RoleState) -> None:
    config = document(default, CONFIG)
    (group,) = config["processors"]["transform/labels"]["metric_statements"]
    labels = [statement.split('"')[1] for statement in group["statements"]]
    assert labels == ["host", "environment", "tenant"]
    for tenant in TENANTS:
        assert config["service"]["pipelines"][f"metrics/{tenant}"]["processors"] == ["transform/labels"]


def test_traces_to_jaeger_metrics_to_prometheus() -> None:
    found = exporters()
    assert found["otlp_grpc/traces-prod"]["endpoint"] == "192.0.2.21:14317"
    assert found["otlp_http/metrics-prod"]["endpoint"] == "http://192.0.2.23:9090/api/v1/otlp"
    assert "headers" not in found["otlp_grpc/traces-prod"]
    assert "headers" not in found["otlp_http/metrics-prod"]


def test_backends_that_know_tenants_are_told() -> None:
    found = exporters(traces="tempo", metrics="mimir", logs="loki")
    for tenant in TENANTS:
        header = {"X-Scope-OrgID": tenant}
        traces, metrics, logs = (
            found[f"{kind}-{tenant}"] for kind in ("otlp_grpc/traces", "otlp_http/metrics", "otlp_http/logs")
        )
        assert traces["headers"] == metrics["headers"] == logs["headers"] == header
        assert traces["endpoint"] == "192.0.2.22:24317"
        assert metrics["endpoint"] == "http://192.0.2.24:9009/otlp"
        assert logs["endpoint"] == "http://192.0.2.26:3100/otlp"


def test_logs_to_elasticsearch() -> None:
    part = gateways.state(shipped("gateways"), backends(logs="elasticsearch"))
    config = document(part, CONFIG)
    exporter = config["exporters"]["elasticsearch/logs-prod"]
    assert exporter["endpoints"] == ["http://192.0.2.27:9200", "http://192.0.2.28:9200"]
    assert exporter["logs_index"] == "mxrc-logs-prod"
    # The collector reads $$ as $.
    assert (exporter["user"], exporter["password"]) == ("rtinfra-gateways", "value$$of$$elastic_writer_password")
    assert exporter["timeout"] == "0s"
    assert {401, 429, 503} <= set(exporter["retry"]["retry_on_status"])
    assert config["service"]["pipelines"]["logs/prod"]["processors"] == ["transform/document"]
    file = resource(part, CONFIG)
    assert isinstance(file, File)
    assert (file.mode, file.owner, file.secret) == ("0600", "rtinfra-gateways", True)
    assert file.validate is not None


def test_traces_to_elastic_apm() -> None:
    changes = {"elastic_apm_endpoint": "192.0.2.40:8200", "elastic_apm_token_secret": "apm"}
    exporter = exporters(changes, traces="elastic_apm")["otlp_grpc/traces-prod"]
    assert exporter["endpoint"] == "192.0.2.40:8200"
    assert exporter["headers"] == {"Authorization": "Bearer value$$of$$apm"}


def test_elastic_apm_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="elastic_apm_endpoint is not set"):
        exporters(traces="elastic_apm")


def test_the_configuration_is_checked_by_the_image_before_it_goes_live(default: RoleState) -> None:
    file = resource(default, CONFIG)
    assert isinstance(file, File)
    assert file.validate is not None
    assert "/otelcol validate --config=file:" in file.validate
    assert "--network=none" in file.validate
    assert file.restarts == ("otel-gateway-1.service",)
    assert not file.secret


def test_a_limit_beyond_the_containers_memory_is_refused() -> None:
    with pytest.raises(ValidationError, match="memory_limit_mb is 700, and memory_max only 512M"):
        shipped("gateways", memory_max="512M")
