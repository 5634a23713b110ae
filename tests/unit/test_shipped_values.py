"""The settings as shipped give the values of the requirements, RT-4 to RT-8, to the letter.

The compliance controls hold a host against its own settings, whatever they are. Here is what the settings are before
anybody changes them: the right-hand sides are copied from the requirements and derive from nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from roles.fleet import load_hosts
from roles.host import HostConfig
from roles.rt_app import role
from roles.rt_app.model import RT_APP
from roles.shared import CPU
from rtinfra.cpu import CpuLayout, Topology, resolve_layout
from rtinfra.operations.resources import File
from rtinfra.paths import PROJECT
from tests.unit.telemetry_site import here, view

RT_4 = {
    "rt_process": {
        "cpu_cores": [2, 3],
        "isolation_mode": "HYBRID",
        "is_exclusive": True,
        "priority": 90,
        "policy": "SCHED_FIFO",
    },
    "non_rt_process": {
        "cpu_cores": [0, 1],
        "isolation_mode": "NONE",
        "is_exclusive": False,
        "priority": 0,
        "policy": "SCHED_OTHER",
    },
}
RT_5 = {
    "rt_process": {
        "numa_node": 0,
        "memory_policy": "LOCAL",
        "strict_binding": True,
        "migrate_pages": False,
        "cpu_cores_hint": [2, 3],
    },
    "non_rt_process": {
        "numa_node": 1,
        "memory_policy": "PREFERRED",
        "strict_binding": False,
        "migrate_pages": False,
        "cpu_cores_hint": [0, 1],
    },
}
RT_6 = {
    "rt_process": {
        "health_check_interval_ms": 1000,
        "health_check_timeout_ms": 500,
        "failure_threshold": 3,
        "restart_delay_ms": 100,
        "max_restart_count": 5,
        "restart_window_sec": 60,
        "enable_state_recovery": True,
        "checkpoint_interval_sec": 60,
        "enable_leader_election": False,
    }
}
RT_7 = {
    "service_name": "mxrc-rt",
    "sampling_rate": 0.1,
    "exporter": {"type": "OTLP", "protocol": "http", "endpoint": "http://localhost:4318"},
    "propagator": "W3C",
    "instrumentation": {"eventbus": True, "task_executor": True, "rt_cycle": True},
}
DOCUMENTS = {"cpu_affinity": RT_4, "numa_binding": RT_5, "failover_policy": RT_6, "tracing_config": RT_7}
RT_8 = {
    "Unit.StartLimitBurst": ["5"],
    "Unit.StartLimitIntervalSec": ["60"],
    "Service.Type": ["notify"],
    "Service.NotifyAccess": ["main"],
    "Service.ExecStart": [
        "/usr/local/bin/rt_process --config /etc/mxrc/cpu_affinity.json --numa-config /etc/mxrc/numa_binding.json "
        "--failover-config /etc/mxrc/failover_policy.json --tracing-config /etc/mxrc/tracing_config.json"
    ],
    "Service.Restart": ["on-failure"],
    "Service.RestartSec": ["1s"],
    "Service.WatchdogSec": ["10s"],
    "Service.StandardOutput": ["journal"],
    "Service.StandardError": ["journal"],
    "Service.CPUSchedulingPolicy": ["fifo"],
    "Service.CPUSchedulingPriority": ["90"],
    "Service.CPUAffinity": ["2-3"],
    "Service.NUMAPolicy": ["bind"],
    "Service.NUMAMask": ["0"],
    "Service.LimitMEMLOCK": ["infinity"],
    "Service.NoNewPrivileges": ["yes"],
    "Service.ProtectSystem": ["strict"],
}
# The host of the requirements: four cores, of which 2 and 3 are on node 0.
TOPOLOGY = Topology(
    online=frozenset(range(4)),
    siblings={cpu: frozenset({cpu}) for cpu in range(4)},
    nodes={0: frozenset({2, 3}), 1: frozenset({0, 1})},
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> HostConfig:
    """A real-time host without a setting of its own."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yaml"
    inventory.write_text("hosts: {robot: {groups: [rt_hosts], ssh: {address: 192.0.2.1}}}\n")
    return load_hosts(PROJECT, inventory).hosts["robot"].config


@pytest.fixture(scope="module")
def layout(config: HostConfig) -> CpuLayout:
    layout, findings = resolve_layout(config[CPU].isolated, config[CPU].housekeeping, TOPOLOGY)
    assert layout is not None, findings
    return layout


@pytest.fixture(scope="module")
def files(config: HostConfig, layout: CpuLayout) -> dict[str, str]:
    """What the role puts on such a host, by path."""
    found = view(is_rt=True, rt_app=here(config[RT_APP]), base=here())
    placed = role.state(config[RT_APP], replace(found, layout=layout)).files
    texts = [item for item in placed if isinstance(item, File) and not item.path.endswith(".pyz")]
    return {item.path: item.content.decode() for item in texts}


def directives(unit: str) -> dict[str, list[str]]:
    """The values of a unit by `Section.Name`, systemd.syntax(7). Ours have no continued lines."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in filter(None, map(str.strip, unit.splitlines())):
        if line.startswith("["):
            section = line.strip("[]")
        elif not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found.setdefault(f"{section}.{name}", []).append(value)
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str, config: HostConfig, layout: CpuLayout) -> None:
    assert role.documents(config[RT_APP], layout)[name] == DOCUMENTS[name]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files(name: str, files: dict[str, str]) -> None:
    assert json.loads(files[f"/etc/mxrc/{name}.json"]) == DOCUMENTS[name]


def test_there_is_no_document_beyond_the_four(config: HostConfig, layout: CpuLayout) -> None:
    assert role.documents(config[RT_APP], layout).keys() == DOCUMENTS.keys()


def test_unit(files: dict[str, str]) -> None:
    found = directives(files["/etc/systemd/system/mxrc-rt.service"])
    assert {name: found.get(name) for name in RT_8} == RT_8


def test_a_second_unit_runs_the_other_process(files: dict[str, str]) -> None:
    found = directives(files["/etc/systemd/system/mxrc-non-rt.service"])
    (command,) = found["Service.ExecStart"]
    assert command.startswith("/usr/local/bin/non_rt_process --config /etc/mxrc/cpu_affinity.json ")
    assert found["Service.CPUAffinity"] == ["0-1"]
    assert "Service.CPUSchedulingPolicy" not in found


def test_a_lab_machine_differs_only_in_its_nodes_and_its_workload(tmp_path: Path, config: HostConfig) -> None:
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("hosts: {robot: {groups: [rt_hosts, lab], ssh: {address: 127.0.0.1}}}\n")
    lab = load_hosts(PROJECT, inventory).hosts["robot"].config[RT_APP]
    ours = {"rt_process": {"numa_node"}, "non_rt_process": {"numa_node"}, "reference": True}
    assert lab.model_dump(exclude=ours) == config[RT_APP].model_dump(exclude=ours)


@pytest.mark.parametrize(("port", "expected"), [(None, "http://localhost:4318"), (5318, "http://localhost:5318")])
def test_spans_go_where_the_collector_takes_them(
    config: HostConfig, layout: CpuLayout, port: int, expected: str
) -> None:
    document = role.documents(config[RT_APP], layout, port)["tracing_config"]
    assert document["exporter"]["endpoint"] == expected
