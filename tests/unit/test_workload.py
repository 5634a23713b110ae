"""The reference workload, run as the program it is on the host: a process of its own, seen from outside."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.workload_process import (
    CORES,
    PATIENCE_S,
    WATCHDOG_US,
    Collector,
    Workload,
    attributes,
    eventually,
    parse_metrics,
)
from tests.unit.workload_site import compile_as_deployed, install


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the archive and its compiled form."""
    library = tmp_path_factory.mktemp("library")
    install(library)
    compile_as_deployed(library)
    return library


@pytest.fixture(scope="module")
def rt(tmp_path_factory: pytest.TempPathFactory, library: Path, collector: Collector) -> Iterator[Workload]:
    """A real-time process that tests share; they must leave it running and healthy."""
    workload = Workload(tmp_path_factory.mktemp("rt"), library, collector=collector.endpoint)
    workload.write_config("failover.json", {"rt_process": {**workload.failover_config(), "surprise": 1}})
    workload.start()
    yield workload
    workload.close()


@pytest.fixture
def fresh(tmp_path: Path, library: Path) -> Iterator[Workload]:
    """A workload that is not started yet, for tests that end it."""
    workload = Workload(tmp_path, library)
    yield workload
    workload.close()


# --- systemd ---


def test_feeds_the_watchdog_while_the_loop_moves(rt: Workload) -> None:
    for _ in range(3):
        assignments = rt.wait_for_message("WATCHDOG=1")
        assert any(line.startswith("STATUS=") for line in assignments)


@pytest.mark.slow
def test_hanging_loop_starves_the_watchdog_but_health_still_answers(fresh: Workload) -> None:
    fresh.start("--enable-faults", abstract_socket=True)
    fresh.wait_for_message("WATCHDOG=1")
    fresh.fault("hang")
    eventually(lambda: fresh.get("/health").json["status"] == "UNHEALTHY", "UNHEALTHY")
    assert fresh.get("/health").status == 503
    assert fresh.get("/health/ready").status == 503
    assert fresh.get("/health/live").status == 200
    assert fresh.get("/health/details").status == 200
    assert fresh.metrics()['mxrc_process_health_status{process="rt_process"}'] == 4

    fresh.pending_messages()
    time.sleep(1.5 * WATCHDOG_US / 1e6)  # systemd would have killed it by now
    assert not [message for message in fresh.pending_messages() if "WATCHDOG=1" in message]

    # Even then it stops cleanly.
    assert fresh.end() == 0
    assert any("STOPPING=1" in message for message in fresh.pending_messages())


def test_threads_stay_on_their_cores_and_only_the_loop_is_real_time(rt: Workload) -> None:
    assert rt.process is not None
    policies = {}
    for task in Path(f"/proc/{rt.process.pid}/task").iterdir():
        assert os.sched_getaffinity(int(task.name)) <= set(CORES)
        policies[(task / "comm").read_text().strip()] = os.sched_getscheduler(int(task.name))
    loop_policy = policies.pop("cycle-loop")
    assert {"log-writer", "housekeeping", "span-export", "tasks", "http-health"} <= set(policies)
    assert set(policies.values()) == {os.SCHED_OTHER}
    assert os.sched_getaffinity(rt.process.pid) == set(CORES)
    # Without the right to be real-time it runs all the same, and says so.
    permitted = rt.get("/health/details").json["scheduling"]["policy"] == "SCHED_FIFO"
    assert loop_policy == (os.SCHED_FIFO if permitted else os.SCHED_OTHER)
    assert permitted or any("not permitted" in message for message in rt.messages())


def test_openssl_takes_no_locked_memory(rt: Workload) -> None:
    """Python's HTTP client would load it: 5 MB that mlockall(2) keeps resident, and a tenth of the time to start."""
    assert rt.process is not None
    mapped = Path(f"/proc/{rt.process.pid}/maps").read_text()
    assert "libc.so" in mapped
    assert not re.findall(r"\S*(?:libssl|libcrypto|/_ssl)\S*", mapped)


# --- health, metrics, log ---


def test_health(rt: Workload) -> None:
    # A busy machine may hold the loop up for a moment; it must come back by itself.
    answer = eventually(lambda: (got := rt.get("/health")).status == 200 and got, "health")
    assert set(answer.json) == {
        *("status", "process_name", "pid", "last_heartbeat"),
        *("response_time_ms", "deadline_miss_count", "restart_count"),
    }
    assert 0 <= answer.json["response_time_ms"] < 5000
    document = rt.get("/health/details").json
    assert (document["status"], document["process_name"]) == ("HEALTHY", "rt_process")
    assert (document["start_count"], document["restart_count"]) == (1, 0)
    assert document["recovered_from"] is None
    assert document["scheduling"]["cycle_us"] == 5000
    eventually(lambda: rt.get("/health/details").json["cycles"] > document["cycles"], "more cycles")
    eventually(lambda: rt.get("/health/ready").json == {"ready": True, "message": "tasks are taken"}, "ready")
    live = rt.get("/health/live").json
    assert live == {"alive": True, "uptime_seconds": live["uptime_seconds"]}


def test_a_checkpoint_says_what_others_read(rt: Workload) -> None:
    (path,) = rt.checkpoints.glob("rt_process_*Z.json")
    record = json.loads(path.read_text())
    assert str(uuid.UUID(record["checkpoint_id"])) == record["checkpoint_id"]
    assert rt.get("/health/details").json["last_checkpoint"]["checkpoint_id"] == record["checkpoint_id"]
    assert (record["process_name"], record["is_complete"]) == ("rt_process", True)
    assert record["checkpoint_size_bytes"] == path.stat().st_size
    assert record["rt_state"]["active_tasks"] == []
    written = datetime.fromisoformat(record["timestamp"])
    named = datetime.strptime(path.stem.removeprefix("rt_process_")[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    assert 0 <= (written - named).total_seconds() < 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/task/start", 405),
        ("POST", "/health", 405),
        ("PUT", "/health", 501),
        # Faults have to be switched on.
        ("POST", "/api/v1/fault", 403),
    ],
)
def test_wrong_requests(rt: Workload, method: str, path: str, status: int) -> None:
    assert rt.request(method, path, {"kind": "hang"}).status == status


def test_metrics(rt: Workload) -> None:
    rt.get("/health")
    answer = rt.request("GET", "/metrics", port=rt.metrics_port)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples, types = parse_metrics(answer.text)
    process = '{process="rt_process"}'
    assert {name: types.get(name) for name in EXPECTED_METRICS} == EXPECTED_METRICS
    assert samples["mxrc_rt_cycle_count_total" + process] > 0
    assert 0 <= samples["mxrc_rt_deadline_miss_rate" + process] <= 1
    assert samples["mxrc_rt_cycle_time_us_sum" + process] > 0
    assert samples["mxrc_process_health_status" + process] in (2, 3)
    assert samples["mxrc_restart_count" + process] == 0
    assert samples['mxrc_logging_events_total{process="rt_process",level="info"}'] > 0
    assert samples['http_requests_total{service="mxrc-rt",method="GET",status="200"}'] > 0
    assert samples['http_request_duration_seconds_count{service="mxrc-rt",endpoint="/health"}'] > 0
    # Buckets are cumulative, and the last one holds all.
    buckets = [value for name, value in samples.items() if name.startswith("mxrc_rt_start_latency_us_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == samples["mxrc_rt_start_latency_us_count" + process]


EXPECTED_METRICS = {
    "mxrc_rt_cycle_count_total": "counter",
    "mxrc_rt_deadline_miss_count_total": "counter",
    "mxrc_rt_deadline_miss_rate": "gauge",
    "mxrc_rt_jitter_us": "gauge",
    "mxrc_rt_cycle_time_us": "histogram",
    "mxrc_process_health_status": "gauge",
    "mxrc_logging_events_total": "counter",
    "mxrc_tracing_sampling_rate": "gauge",
    "mxrc_restart_count": "gauge",
    "mxrc_checkpoint_age_seconds": "gauge",
    "http_requests_total": "counter",
    "http_request_duration_seconds": "histogram",
    "system_resource_usage": "gauge",
}


def test_numa_share_is_shown_where_the_kernel_knows_it(rt: Workload) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("kernel without NUMA")
    name = 'mxrc_numa_local_memory_percent{process="rt_process",numa_node="0"}'
    assert 0 < eventually(lambda: rt.metrics().get(name), "NUMA share") <= 100


def test_log_is_ecs(rt: Workload) -> None:
    records = eventually(rt.log, "log")
    for record in records:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["@timestamp"])
        assert record["log.level"] in ("debug", "info", "warn", "error", "critical")
        assert record["process.name"] == "rt_process"
        assert rt.process is not None
        assert record["process.pid"] == rt.process.pid
        assert record["service.name"] == "mxrc-rt"
        assert record["ecs.version"]
        assert record["message"]
    assert 'failover.json: unknown key "rt_process.surprise" ignored' in rt.messages()
    # The journal gets the same in short.
    assert "INFO ready: period 5000 us" in (rt.directory / "stderr").read_text()


def test_log_goes_on_in_a_new_file_after_rotation(rt: Workload) -> None:
    rotated = rt.log_file.with_suffix(".1")
    rt.log_file.rename(rotated)
    lines_before = len(rt.log(rotated))
    assert rt.post("/api/v1/task/start", {"task_id": "after-rotation", "mode": "once"}).status == 202
    eventually(lambda: rt.log_file.exists() and rt.finished("after-rotation"), "the task in the new file")
    assert len(rt.log(rotated)) == lines_before

    # SIGHUP does it too, for rotation by copy and for operators who expect it to.
    assert rt.process is not None
    rt.process.send_signal(signal.SIGHUP)
    eventually(lambda: "log file opened again" in rt.messages(), "the answer to SIGHUP")


# --- tasks and traces ---


def test_task_makes_a_trace_below_the_callers_span(rt: Workload, collector: Collector) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    answer = rt.post(
        "/api/v1/task/start",
        {"task_id": "traced", "mode": "once"},
        traceparent=f"00-{trace_id}-{caller}-01",
        tracestate="vendor=1",
    )
    assert answer.status == 202
    assert answer.json["trace_id"] == trace_id
    # One sequence with two actions, each of which publishes one event.
    spans = eventually(lambda: len(collector.trace(trace_id)) >= 6 and collector.trace(trace_id), "six spans")
    assert len(spans) == 6
    assert set(collector.paths) == {"/v1/traces"}
    assert collector.resources[0]["service.name"] == "mxrc-rt"

    by_id = {span["spanId"]: span for span in spans}
    parents = {(span["name"], by_id.get(span["parentSpanId"], {}).get("name", "")) for span in spans}
    assert parents == {
        ("task.execute", ""),
        ("sequence.run", "task.execute"),
        ("action.execute", "sequence.run"),
        ("eventbus.publish", "action.execute"),
    }
    (task,) = [span for span in spans if span["name"] == "task.execute"]
    assert task["parentSpanId"] == caller
    assert attributes(task)["task.id"] == "traced"
    assert answer.headers["traceparent"] == f"00-{trace_id}-{task['spanId']}-01"
    for span in spans:
        assert span["traceState"] == "vendor=1"
        assert int(task["startTimeUnixNano"]) <= int(span["startTimeUnixNano"])
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) <= int(task["endTimeUnixNano"])

    # The log leads to the trace, and each event to its span.
    eventually(lambda: rt.finished("traced"), "the end of the task in the log")
    records = [record for record in rt.log() if record.get("trace.id") == trace_id]
    assert {record["mxrc.task_id"] for record in records} == {"traced"}
    assert {record["span.id"] for record in records} <= set(by_id)
    assert [by_id[r["span.id"]]["name"] for r in records if "event.action" in r] == ["eventbus.publish"] * 2


def test_task_without_sampled_parent_runs_without_spans(rt: Workload, collector: Collector) -> None:
    trace_ids = []
    for number, headers in enumerate(({}, {"traceparent": f"00-{secrets.token_hex(16)}-{'1' * 16}-00"})):
        answer = rt.post("/api/v1/task/start", {"task_id": f"untraced-{number}", "mode": "once"}, **headers)
        assert answer.json["sampled"] is False
        trace_ids.append(answer.json["trace_id"])
    # Spans are sent in order: once those of a later task are there, none of these can come.
    later = secrets.token_hex(16)
    parent = f"00-{later}-{'2' * 16}-01"
    rt.post("/api/v1/task/start", {"task_id": "later", "mode": "periodic"}, traceparent=parent)
    eventually(lambda: len(collector.trace(later)) == 16, "the spans of three sequences")
    assert not [span for trace_id in trace_ids for span in collector.trace(trace_id)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b"[" * 4000, "nested too deeply"),
        ({}, "task_id"),
        ({"task_id": 7, "mode": "once"}, "task_id"),
        ({"task_id": "no spaces", "mode": "once"}, "task_id"),
        ({"task_id": "a", "mode": "sometimes"}, "once, periodic"),
        ({"task_id": "a", "mode": "once", "modus": 1}, "unknown key modus"),
    ],
)
def test_bad_task_is_refused_with_the_reason(rt: Workload, body: object, reason: str) -> None:
    answer = rt.post("/api/v1/task/start", body)
    assert answer.status == 400
    assert reason in answer.json["reason"]


@pytest.mark.slow
def test_absent_collector_is_logged_once(fresh: Workload) -> None:
    policy = {**fresh.failover_config(), "checkpoint_interval_sec": 1}
    fresh.write_config("failover.json", {"rt_process": policy})
    fresh.start()
    parent = f"00-{secrets.token_hex(16)}-{'1' * 16}-01"
    for number in range(2):
        task = {"task_id": f"task-{number}", "mode": "once"}
        assert fresh.post("/api/v1/task/start", task, traceparent=parent).status == 202
    eventually(lambda: any("spans cannot be sent" in message for message in fresh.messages()), "the warning")
    # Nothing else stops meanwhile. When this is there, the second attempt to send is over.
    eventually(lambda: len(list(fresh.checkpoints.glob("rt_process_*.json"))) == 3, "two periodic checkpoints")
    assert len([message for message in fresh.messages() if "spans" in message]) == 1
    metrics = fresh.metrics()
    assert metrics['mxrc_tracing_queue_length{process="rt_process"}'] >= 12
    eventually(lambda: fresh.get("/health").status == 200, "health")


# --- checkpoints and restarts ---


@pytest.mark.slow
def test_recovers_from_the_last_checkpoint(fresh: Workload) -> None:
    # Killed in its first minute, before the first periodic checkpoint.
    fresh.start()
    (first,) = fresh.checkpoints.glob("rt_process_*.json")
    checkpoint_id = json.loads(first.read_text())["checkpoint_id"]
    assert fresh.end(signal.SIGKILL) == -signal.SIGKILL

    fresh.start()
    health = fresh.get("/health/details").json
    assert (health["start_count"], health["restart_count"]) == (2, 1)
    assert health["recovered_from"]["checkpoint_id"] == checkpoint_id
    assert f"Recovered from checkpoint: {checkpoint_id}" in "".join(fresh.messages())
    fresh.post("/api/v1/task/start", {"task_id": "kept", "mode": "once"})
    eventually(lambda: fresh.finished("kept"), "the end of the task")

    # A clean stop saves the last state, and the start after it is no restart.
    assert fresh.end() == 0
    fresh.start()
    saved = fresh.get("/health/details").json
    assert (saved["start_count"], saved["restart_count"]) == (3, 1)
    assert saved["recovered_from"]["cycles_total"] > 0
    assert saved["tasks"]["completed"] == 1
    # Counters belong to the process, or Prometheus would count cycles twice.
    cycles = fresh.metrics()['mxrc_rt_cycle_count_total{process="rt_process"}']
    assert cycles < fresh.get("/health/details").json["cycles_total"]

    # The newest is damaged: the one before is taken.
    fresh.end(signal.SIGKILL)
    newest = max(fresh.checkpoints.glob("rt_process_*.json"))
    document = json.loads(newest.read_text())
    document["rt_state"]["cycles_total"] += 1
    newest.write_text(json.dumps(document))
    fresh.start()
    health = fresh.get("/health/details").json
    assert health["restart_count"] == 2
    assert health["recovered_from"] == saved["recovered_from"]
    assert health["tasks"]["completed"] == 1
    assert fresh.metrics()['mxrc_restart_count{process="rt_process"}'] == 2
    problem = f"damaged checkpoint checkpoints/{newest.name}: checksum does not match"
    assert problem in fresh.messages()


def test_deadline_misses_and_crash_on_demand(fresh: Workload) -> None:
    fresh.start("--enable-faults")
    name = 'mxrc_rt_deadline_miss_count_total{process="rt_process"}'
    before = fresh.metrics()[name]
    fresh.fault("deadline_miss", duration_ms=200)
    # Cycles of twice the period: every one is a miss, and so is the one it makes impossible.
    eventually(lambda: fresh.metrics()[name] >= before + 10, "deadline misses")
    refused = fresh.post("/api/v1/fault", {"kind": "hang", "duration_ms": 0})
    assert refused.status == 400
    assert "duration_ms" in refused.json["reason"]
    assert fresh.post("/api/v1/fault", {"kind": "explode"}).status == 400
    fresh.fault("crash")
    assert fresh.process is not None
    assert fresh.process.wait(PATIENCE_S) == -signal.SIGABRT
    # The log was written before.
    assert fresh.messages()[-2:] == [
        "fault on demand: deadline_miss for 200 ms",
        "fault on demand: crash without limit",
    ]


# --- the other role, and starts that fail ---


def test_non_rt_process(tmp_path: Path, library: Path) -> None:
    workload = Workload(tmp_path, library, "non_rt_process")
    try:
        workload.start()
        workload.wait_for_message("WATCHDOG=1")
        health = workload.get("/health/details").json
        assert health["process_name"] == "non_rt_process"
        assert health["scheduling"]["policy"] == "SCHED_OTHER"
        assert health["scheduling"]["memory_locked"] is False
        samples = workload.metrics()
        assert not [name for name in samples if name.startswith("mxrc_rt_")]
        assert samples['mxrc_process_health_status{process="non_rt_process"}'] in (2, 3)
        assert samples['http_requests_total{service="mxrc-non-rt",method="GET",status="200"}'] == 1
        assert {record["process.name"] for record in workload.log()} == {"non_rt_process"}
        assert workload.end(signal.SIGINT) == 0
        assert workload.messages()[-1].startswith("stopped after")
        assert len(list(workload.checkpoints.glob("non_rt_process_*Z.json"))) == 2
    finally:
        workload.close()


def test_bad_configuration_ends_with_file_key_and_status_2(fresh: Workload) -> None:
    failover = fresh.failover_config()
    del failover["checkpoint_interval_sec"]
    fresh.write_config("failover.json", {"rt_process": failover})
    process = fresh.popen()
    assert process.wait(PATIENCE_S) == 2
    said = (fresh.directory / "stderr").read_text()
    assert said == 'rt_process: failover.json: missing key "rt_process.checkpoint_interval_sec"\n'


def test_port_in_use_is_named_and_leaves_the_state_alone(fresh: Workload) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", fresh.metrics_port))
        taken.listen()
        assert fresh.popen().wait(PATIENCE_S) == 1
    assert any(f"port {fresh.metrics_port} cannot be opened" in message for message in fresh.messages())
    assert not list(fresh.checkpoints.iterdir())


def test_runs_where_memory_is_never_writable_and_executable(fresh: Workload) -> None:
    """The unit sets MemoryDenyWriteExecute=; the kernel's own switch for it does the same."""
    pr_set_mdwe, refuse_exec_gain = 65, 1
    wrapper = fresh.directory / "deny.py"
    wrapper.write_text(
        "import ctypes, os, sys\n"
        f"if ctypes.CDLL(None).prctl({pr_set_mdwe}, {refuse_exec_gain}, 0, 0, 0): os._exit(77)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    denying = [sys.executable, str(wrapper)]
    if subprocess.run([*denying, "/bin/true"], check=False).returncode == 77:
        pytest.skip("kernel older than 6.3")
    fresh.interpreter = [*denying, *fresh.interpreter]
    fresh.start()
    assert fresh.get("/health/live").status == 200
    assert fresh.end() == 0
