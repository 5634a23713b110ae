"""Telemetry from end to end: workload, agent, two gateways, Jaeger, Prometheus, Alertmanager, alert log.

A second machine gets gateways and backends; the real-time machine gets its agents. Needs a Go toolchain and its module
proxy for the collector, Jaeger and Prometheus, which are built here; what cannot be built is said and fails.
"""

from __future__ import annotations

import json
import secrets
import shlex
import signal
import time
from typing import Any

import pytest

from rtinfra.lab import Machine
from rtinfra.metric_catalogue import load_catalogue
from tests.e2e.stack import CONTAINERS, Backends, eventually
from tests.e2e.test_2_deploy import STATE, out
from tests.project import Project


def kill_a_run(project: Project, machine: Machine) -> None:
    """The control machine dies while dpkg unpacks on this host, and apt there with its packages half unpacked."""
    run = project.pyinfra()
    deadline = time.monotonic() + 600
    unpacking = "grep -q ' unpacked \\| half-installed ' /var/log/dpkg.log"
    while machine.run(unpacking, check=False).returncode != 0:
        assert run.poll() is None, f"ended by itself:\n{run.stdout.read() if run.stdout else ''}"
        assert time.monotonic() < deadline, "apt never got to unpack anything"
        time.sleep(1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    # The host's apt would go on or end half way, either is fine. This is the worst case.
    machine.run("pkill -KILL -x apt-get; pkill -KILL -x dpkg; sleep 1", check=False)


def test_both_machines_are_deployed(
    request: pytest.FixtureRequest, lab_project: Project, backends: Backends, machine: Machine
) -> None:
    """Agents on one, gateways and backends on the other, in `make test-all` by a run that completes a killed one; the
    real-time application is not touched.
    """
    before = out(machine, STATE)
    if request.config.getoption("--heavy"):
        kill_a_run(lab_project, backends.machine)
    result = lab_project.deploy()
    assert result.ok, result.log
    assert out(backends.machine, "dpkg --audit") == ""
    for name in CONTAINERS:
        assert out(backends.machine, f"systemctl is-active {name}") == "active"
    assert out(machine, "systemctl is-active rtinfra-otelcol") == "active"
    assert out(machine, STATE) == before, "the deploy of agents restarted something of the application"


def test_a_second_run_changes_nothing(lab_project: Project, backends: Backends, machine: Machine) -> None:
    before = backends.started()
    result = lab_project.deploy()
    assert result.ok, result.log
    assert result.changed == 0, result.changed_operations
    assert backends.started() == before, "a container was restarted"


def test_no_agent_may_run_on_an_isolated_core(lab_project: Project, backends: Backends, machine: Machine) -> None:
    script = (
        "for unit in rtinfra-otelcol prometheus-node-exporter; do"
        " pid=$(systemctl show -P MainPID $unit); grep -h Cpus_allowed_list /proc/$pid/task/*/status; done | sort -u"
    )
    assert out(machine, script).split() == ["Cpus_allowed_list:", "0-1"]
    assert "/agents.slice/" in out(machine, "systemctl show -P ControlGroup rtinfra-otelcol")


# What every record in a gateway's file begins with.
BEGIN = '{"resourceLogs"'


def post(machine: Machine, path: str, body: dict[str, object], **headers: str) -> None:
    """Send JSON to the real-time process on its machine."""
    script = (
        "import json, sys, urllib.request as r\n"
        "url, body, headers = json.loads(sys.argv[1])\n"
        "r.urlopen(r.Request(url, json.dumps(body).encode(), headers), timeout=20)"
    )
    arguments = [f"http://127.0.0.1:8080{path}", body, {"Content-Type": "application/json", **headers}]
    machine.run(f"python3 -c {shlex.quote(script)} {shlex.quote(json.dumps(arguments))}")


def test_an_error_log_leads_to_its_trace(lab_project: Project, backends: Backends, machine: Machine) -> None:
    """OB-15: the error is found where logs are kept, and its trace.id is a trace that Jaeger has."""
    trace_id = secrets.token_hex(16)
    # Shorter than the watchdog: the loop takes no command for a while, the task fails, the process lives.
    post(machine, "/api/v1/fault", {"kind": "hang", "duration_ms": 3000})
    task = {"task_id": "e2e-fails", "mode": "once"}
    post(machine, "/api/v1/task/start", task, traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01")

    def logged() -> list[dict[str, Any]]:
        lines = out(backends.machine, "cat /var/lib/rtinfra-data/otel-gateway-*/logs/prod*.jsonl 2>/dev/null || true")
        records = [
            record
            for part in lines.split(BEGIN)[1:]
            for resource in json.loads(BEGIN + part)["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]
        return [
            record for record in records if record.get("severityText") == "ERROR" and record.get("traceId") == trace_id
        ]

    eventually("the error log on a gateway", 120, logged)

    def operations() -> set[str]:
        answer = backends.get(16686, f"/api/traces/{trace_id}") or {}
        return {span["operationName"] for trace in answer.get("data", []) for span in trace["spans"]}

    def complete() -> bool:
        return {"task.execute", "sequence.run", "action.execute"} <= operations()

    eventually("the trace of the failed task in Jaeger", 60, complete)


def test_metrics_of_host_and_application_arrive(lab_project: Project, backends: Backends, machine: Machine) -> None:
    for expression in (
        'mxrc_rt_cycle_count_total{host="e2e"}',
        'node_load1{host="e2e"}',
        'up{job="gateways"} == 1',
    ):
        eventually(expression, 120, lambda expression=expression: backends.query(expression))


def test_every_metric_of_the_catalogue_is_there(lab_project: Project, backends: Backends, machine: Machine) -> None:
    """What rules and dashboards ask for is what the running programs expose."""
    programs = {
        "scrape",
        "recorded",
        "mxrc",
        "node_exporter",
        "otelcol",
        "prometheus",
        "alertmanager",
        "alert_log",
        "jaeger",
    }
    expected = {name for name, metric in load_catalogue().items() if metric.program in programs and metric.when is None}

    left = expected
    # Some appear with the first trace or the first evaluation of a rule.
    deadline = time.monotonic() + 240
    while left and time.monotonic() < deadline:
        left = expected - set(backends.get(9090, "/api/v1/label/__name__/values")["data"])
        time.sleep(4)
    assert not left, sorted(left)


@pytest.mark.heavy
def test_an_alert_fires_and_is_heard(lab_project: Project, backends: Backends, machine: Machine) -> None:
    """The application falls silent for two minutes: a critical alert, with the page that says what to do.

    In `make test`: `tests/native/test_4_alert.py`, with an alert that holds for a second.
    """
    heard = len(backends.alerts())
    machine.run("systemctl stop mxrc-non-rt mxrc-rt")
    try:
        alert = eventually(
            "the alert in the alert log",
            420,
            lambda: [
                one
                for one in backends.alerts()[heard:]
                if one["status"] == "firing"
                and one["labels"].get("host") == "e2e"
                and one["labels"]["alertname"] == "ServiceDown"
                and one["labels"]["severity"] == "critical"
            ],
        )[0]
    finally:
        machine.run("systemctl start mxrc-rt mxrc-non-rt")
    page = alert["annotations"]["runbook_url"]
    assert "/runbooks/" in page
    assert alert["labels"]["alertname"] in out(
        backends.machine, f"python3 -c 'import urllib.request as r; print(r.urlopen(\"{page}\").read().decode())'"
    )


@pytest.mark.heavy
def test_one_retention_restarts_one_program(lab_project: Project, backends: Backends) -> None:
    before = backends.started()
    lab_project.edit("group_data/prometheus.yaml", "retention: 7d", "retention: 6d")
    result = lab_project.deploy()
    assert result.ok, result.log
    after = backends.started()
    assert {name for name in after if after[name] != before[name]} == {"prometheus.service"}
    assert backends.get(9090, "/api/v1/status/flags")["data"]["storage.tsdb.retention.time"] == "6d"
    lab_project.edit("group_data/prometheus.yaml", "retention: 6d", "retention: 7d")
    assert lab_project.deploy().ok
    assert lab_project.deploy().changed == 0


def refused(project: Project, *words: str) -> None:
    """The deploy refuses with these words before any host is changed."""
    result = project.deploy()
    assert not result.ok
    assert result.changed == 0
    for word in words:
        assert word in result.log, result.log


def test_an_unknown_tenant_is_refused(lab_project: Project) -> None:
    lab_project.edit("group_data/all.yaml", "\n  tenant: null\n", "\n  tenant: nobody\n")
    refused(lab_project, "telemetry.tenant", "nobody", "is not a tenant", "group_data/all.yaml:")


def test_two_programs_on_one_port_are_refused(lab_project: Project) -> None:
    lab_project.edit("group_data/alertmanager.yaml", "\n  port: 9093\n", "\n  port: 9090\n")
    refused(lab_project, "9090", "already taken by", "group_data/")


def test_a_secret_that_nobody_defined_is_refused(lab_project: Project) -> None:
    lab_project.edit(
        "group_data/alertmanager.yaml", "\n  webhook: null\n", "\n  webhook:\n    url_secret: nowhere_defined\n"
    )
    refused(lab_project, "nowhere_defined", "is not defined", "RTINFRA_SECRET_NOWHERE_DEFINED")


def test_an_image_that_is_not_there_is_refused(lab_project: Project) -> None:
    path = lab_project.path / "images" / "store"
    target = path.readlink()
    path.unlink()
    path.mkdir()
    for file in target.iterdir():
        if "prometheus" not in file.name:
            (path / file.name).symlink_to(file)
    refused(lab_project, "prometheus", "rtinfra images build")


def test_a_rule_that_prometheus_refuses_never_goes_live(lab_project: Project, backends: Backends) -> None:
    """Without a page that says what to do it does not even leave this computer; with one, Prometheus' own checker says
    no, on the host, before the old file is touched.
    """
    before = backends.started()
    rules = sorted((lab_project.path / "templates" / "prometheus").rglob("*rules*"))
    rule = next(path for path in rules if path.is_file())
    rule.write_text(rule.read_text(encoding="utf-8") + "\n      - alert: Broken\n        expr: sum(((\n", "utf-8")
    refused(lab_project, "the alert Broken", "has no runbook: write docs/runbooks/Broken.md")
    (lab_project.path / "docs" / "runbooks" / "Broken.md").write_text("# Broken\n", "utf-8")
    refused(lab_project, "is refused by its checker", "nothing was changed")
    assert backends.started() == before


@pytest.mark.heavy
def test_a_backend_that_does_not_come_up_goes_back_to_what_it_had(lab_project: Project, backends: Backends) -> None:
    """A bound on memory that no Prometheus can live in: its journal is shown, the old one runs again."""
    section = "prometheus:\n  # Bound on its memory.\n  memory_max: "
    lab_project.edit("group_data/lab_backends.yaml", f"{section}1G", f"{section}8M")
    result = lab_project.deploy()
    assert not result.ok
    assert "the previous ones are back, and it runs with them" in result.log
    assert out(backends.machine, "systemctl is-active prometheus") == "active"
    assert out(backends.machine, "systemctl show -P MemoryMax prometheus") == str(2**30)
    lab_project.edit("group_data/lab_backends.yaml", f"{section}8M", f"{section}1G")
    assert lab_project.deploy().ok
    assert lab_project.deploy().changed == 0
