"""The `agents` role: what a host's collector, node_exporter and Filebeat are told."""

from __future__ import annotations

import configparser
import os
import shlex
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from roles.agents import role as agents
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from rtinfra.paths import PROJECT
from tests.unit.telemetry_site import at, document, here, resource, rt_app, shipped, telemetry, text, view

CONFIG = "/etc/otelcol/config.yaml"
UNIT = "/etc/systemd/system/rtinfra-otelcol.service"
FILEBEAT = "/etc/filebeat/filebeat.yml"


def two_gateways(**members: Any) -> FleetView:
    pair = shipped("gateways", addresses=["192.0.2.11", "192.0.2.12"])
    return view(is_rt=True, gateways=at("gw", "192.0.2.10", pair), **members)


@pytest.fixture
def rt_part() -> RoleState:
    """A real-time host with the application."""
    return agents.state(shipped("agents"), two_gateways(rt_app=here()))


@pytest.fixture
def plain_part() -> RoleState:
    """A host without application and without isolated cores; somebody else runs the application."""
    where = view(gateways=at("gw", "192.0.2.10"), rt_app=at("rt9", "192.0.2.9"))
    return agents.state(shipped("agents"), where)


def directives(part: RoleState, path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text(part, path).splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_nothing_of_the_agents_may_use_an_isolated_core(rt_part: RoleState) -> None:
    assert directives(rt_part, "/etc/systemd/system/agents.slice")["AllowedCPUs"] == ["0-1"]
    for path in (UNIT, "/etc/systemd/system/prometheus-node-exporter.service.d/60-rtinfra.conf"):
        found = directives(rt_part, path)
        assert found["Slice"] == ["agents.slice"]
        assert found["CPUAffinity"] == ["0-1"]
        assert "GOMAXPROCS=2" in found["Environment"]


def test_a_host_without_isolated_cores_is_not_confined(plain_part: RoleState) -> None:
    assert "AllowedCPUs" not in directives(plain_part, "/etc/systemd/system/agents.slice")
    assert "CPUAffinity" not in directives(plain_part, UNIT)


def test_all_agents_together_are_bounded(rt_part: RoleState) -> None:
    found = directives(rt_part, "/etc/systemd/system/agents.slice")
    assert found["MemoryMax"] == ["768M"]
    assert found["CPUWeight"] == ["50"]


def test_every_gateway_of_the_fleet_has_the_one_name(rt_part: RoleState) -> None:
    lines = [line.split() for line in text(rt_part, "/etc/otelcol/hosts").splitlines() if not line.startswith("#")]
    assert [address for address, name in lines if name == "otel-gateways"] == ["192.0.2.11", "192.0.2.12"]
    assert document(rt_part, CONFIG)["exporters"]["otlp_grpc"]["endpoint"] == "dns:///otel-gateways:4327"
    assert directives(rt_part, UNIT)["BindReadOnlyPaths"] == ["/etc/otelcol/hosts:/etc/hosts"]


def test_gateways_at_different_ports_are_refused() -> None:
    pair = (at("a", "192.0.2.11"), at("b", "192.0.2.12", shipped("gateways", grpc_port=5000)))
    with pytest.raises(ValueError, match=r"gateways\.grpc_port is \[4327, 5000\]"):
        agents.state(shipped("agents"), view(gateways=pair))


def test_telemetry_is_taken_on_loopback_only(rt_part: RoleState) -> None:
    protocols = document(rt_part, CONFIG)["receivers"]["otlp"]["protocols"]
    assert protocols["grpc"]["endpoint"] == "127.0.0.1:4317"
    assert protocols["http"]["endpoint"] == "127.0.0.1:4318"


def test_nothing_is_acknowledged_before_it_is_on_the_disk(rt_part: RoleState) -> None:
    config = document(rt_part, CONFIG)
    exporter = config["exporters"]["otlp_grpc"]
    queue = exporter["sending_queue"]
    assert config["extensions"][queue["storage"]]["fsync"] is True
    assert queue["storage"] in config["service"]["extensions"]
    assert queue["block_on_overflow"] is True
    assert queue["queue_size"] == 2048 * 2**20
    assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    # Splitting a batch drops what is larger than its bound.
    assert "max_size" not in queue["batch"]
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert not any(name.startswith("batch") for name in pipeline["processors"])


def test_every_record_says_where_it_is_from(rt_part: RoleState) -> None:
    config = document(rt_part, CONFIG)
    attributes = {entry["key"]: entry["value"] for entry in config["processors"]["resource"]["attributes"]}
    assert attributes == {"host.name": "rt1", "deployment.environment": "prod", "tenant_id": "prod"}
    assert all("resource" in pipeline["processors"] for pipeline in config["service"]["pipelines"].values())


def test_log_files_of_the_application_are_followed(rt_part: RoleState) -> None:
    config = document(rt_part, CONFIG)
    receiver = config["receivers"]["file_log/application"]
    assert receiver["include"] == ["/var/log/mxrc/*.log", "/var/log/mxrc/*.log.*"]
    assert receiver["start_at"] == "beginning"
    assert receiver["storage"] in config["service"]["extensions"]
    assert receiver["retry_on_failure"] == {"enabled": True, "max_elapsed_time": "0s"}
    assert config["service"]["pipelines"]["logs"]["receivers"] == ["otlp", "file_log/application"]
    # Log lines are queued before their place in the file is remembered.
    (start,) = directives(rt_part, UNIT)["ExecStart"]
    assert "--feature-gates=stanza.synchronousLogEmitter" in start
    assert directives(rt_part, UNIT)["SupplementaryGroups"] == ["mxrc"]


def test_log_directory_and_group_are_the_applications_own() -> None:
    where = two_gateways(rt_app=here(rt_app(log_dir="/srv/log", user="robot")))
    part = agents.state(shipped("agents"), where)
    assert document(part, CONFIG)["receivers"]["file_log/application"]["include"][0] == "/srv/log/*.log"
    assert directives(part, UNIT)["SupplementaryGroups"] == ["robot"]


def test_a_host_without_application_reads_no_log_files(plain_part: RoleState) -> None:
    config = document(plain_part, CONFIG)
    assert list(config["receivers"]) == ["otlp"]
    assert config["service"]["pipelines"]["logs"]["receivers"] == ["otlp"]
    assert "SupplementaryGroups" not in directives(plain_part, UNIT)


def test_prometheus_reaches_the_metrics_of_collector_and_host(rt_part: RoleState) -> None:
    (reader,) = document(rt_part, CONFIG)["service"]["telemetry"]["metrics"]["readers"]
    exporter = reader["pull"]["exporter"]["prometheus"]
    assert (exporter["host"], exporter["port"]) == ("192.0.2.1", 8888)
    # Rules and dashboards use the full names, with _total and units.
    assert exporter["without_type_suffix"] is exporter["without_units"] is False
    assert "--web.listen-address=192.0.2.1:9100" in arguments(rt_part)


def arguments(part: RoleState) -> list[str]:
    """Arguments of node_exporter, as systemd and a shell read the file."""
    (line,) = [line for line in text(part, "/etc/default/prometheus-node-exporter").splitlines() if line[0] != "#"]
    (assignment,) = shlex.split(line)
    return assignment.removeprefix("ARGS=").split()


def test_sensors_that_interrupt_isolated_cores_are_not_read(rt_part: RoleState, plain_part: RoleState) -> None:
    left_out = {"--no-collector.cpufreq", "--no-collector.hwmon", "--no-collector.rapl", "--no-collector.thermal_zone"}
    assert left_out <= set(arguments(rt_part))
    assert not left_out & set(arguments(plain_part))


def test_the_configuration_is_checked_before_it_goes_live(rt_part: RoleState) -> None:
    file = resource(rt_part, CONFIG)
    assert isinstance(file, File)
    assert file.validate == "otelcol validate --config=file:{path}"
    assert file.restarts == ("rtinfra-otelcol.service",)


def test_a_stop_counts_no_line_as_read_that_was_not_queued(rt_part: RoleState) -> None:
    found = directives(rt_part, UNIT)
    assert found["KillSignal"] == found["SuccessExitStatus"] == ["SIGKILL"]


def test_the_gateways_are_found_without_a_name_server(rt_part: RoleState) -> None:
    environment = directives(rt_part, UNIT)["Environment"]
    assert {"GODEBUG=netdns=go", "GRPC_ENABLE_TXT_SERVICE_CONFIG=false"} <= set(environment)


def test_packages_and_units(rt_part: RoleState) -> None:
    assert rt_part.packages == ("prometheus-node-exporter",)
    assert [package.name for package in rt_part.local_packages] == ["otelcol"]
    assert [unit.name for unit in rt_part.units] == ["rtinfra-otelcol.service", "prometheus-node-exporter.service"]


def test_units_are_well_formed(rt_part: RoleState) -> None:
    for path in (UNIT, "/etc/systemd/system/agents.slice"):
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(text(rt_part, path))
        assert parser.has_section("Unit")


# ---- Filebeat ---------------------------------------------------------------------------------------------


@pytest.fixture
def filebeat_part() -> RoleState:
    settings = shipped("agents", logs="filebeat", filebeat={"password_secret": "elastic"})
    store = (at("es1", "192.0.2.31", shipped_elasticsearch()), at("es2", "192.0.2.32", shipped_elasticsearch()))
    return agents.state(settings, two_gateways(rt_app=here(), elasticsearch=store))


def shipped_elasticsearch() -> Any:
    class Settings:
        port = 9200

    return Settings()


def test_filebeat_ships_instead_of_the_collector(filebeat_part: RoleState) -> None:
    assert list(document(filebeat_part, CONFIG)["receivers"]) == ["otlp"]
    config = document(filebeat_part, FILEBEAT)
    (entry,) = config["filebeat.inputs"]
    assert entry["type"] == "filestream"
    assert entry["paths"] == ["/var/log/mxrc/*.log", "/var/log/mxrc/*.log.*"]
    output = config["output.elasticsearch"]
    assert output["hosts"] == ["http://192.0.2.31:9200", "http://192.0.2.32:9200"]
    assert output["index"] == "mxrc-logs-%{+yyyy.MM.dd}"
    # A named preset would throw the queue settings away.
    assert output["preset"] == "custom"
    assert "filebeat.service" in [unit.name for unit in filebeat_part.units]
    assert "filebeat" in [package.name for package in filebeat_part.local_packages]
    drop_in = directives(filebeat_part, "/etc/systemd/system/filebeat.service.d/60-rtinfra.conf")
    assert drop_in["Slice"] == ["agents.slice"]


def test_the_password_is_in_one_file_that_only_root_reads(filebeat_part: RoleState) -> None:
    holders = [path for path in filebeat_part.files if isinstance(path, File) and b"value-of-elastic" in path.content]
    assert [(file.path, file.mode, file.secret) for file in holders] == [(FILEBEAT, "0600", True)]


def test_filebeat_needs_log_files_to_ship() -> None:
    settings = shipped("agents", logs="filebeat", filebeat={"password_secret": "elastic"})
    part = agents.state(settings, two_gateways())
    assert "filebeat.service" not in [unit.name for unit in part.units]


def test_filebeat_without_a_password_is_refused() -> None:
    with pytest.raises(ValidationError, match="password_secret names no secret"):
        shipped("agents", logs="filebeat")


def test_a_collector_larger_than_all_agents_is_refused() -> None:
    with pytest.raises(ValidationError, match="for all agents together, only 64M"):
        shipped("agents", slice={"memory_max": "64M"})


def test_a_name_with_odd_characters_stays_a_text() -> None:
    where = view("yes", gateways=at("gw", "192.0.2.10"), shared=telemetry(tenant="staging"))
    config = yaml.safe_load(text(agents.state(shipped("agents"), where), CONFIG))
    assert config["processors"]["resource"]["attributes"][0]["value"] == "yes"


# ---- set-aside-broken -------------------------------------------------------------------------------------

SCRIPT = PROJECT / "templates/agents/set-aside-broken.sh"
PAGE = os.sysconf("SC_PAGE_SIZE")


def head_page(magic: int = 0xED0CDAED) -> bytes:
    return (bytes(16) + struct.pack("=I", magic)).ljust(PAGE, b"\0")


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        pytest.param(b"", True, id="empty"),
        pytest.param(head_page() * 2 + b"data", True, id="sound"),
        pytest.param(head_page(0) + head_page(), True, id="second head page is sound"),
        pytest.param(head_page() + head_page(0), True, id="first head page is sound"),
        pytest.param(head_page(0) * 3, False, id="no head page"),
        pytest.param(head_page(), False, id="cut off"),
        pytest.param(b"\0" * 100, False, id="only the beginning"),
    ],
)
def test_a_queue_file_that_cannot_be_opened_is_set_aside(tmp_path: Path, content: bytes, kept: bool) -> None:
    queue = tmp_path / "exporter_otlp_grpc__logs"
    queue.write_bytes(content)
    done = subprocess.run(["sh", SCRIPT, tmp_path, tmp_path / "missing"], capture_output=True, text=True, check=True)
    assert queue.exists() is kept
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == content
    assert bool(done.stderr) is not kept
    # Once is enough: what was set aside is left alone.
    subprocess.run(["sh", SCRIPT, tmp_path], check=True)
    assert [left] == list(tmp_path.iterdir())
