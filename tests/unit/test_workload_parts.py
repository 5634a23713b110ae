"""Pure logic of the reference workload: the arithmetic of the loop, configuration, trace context."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.rt_app.workload.mxrc_reference import loop as loop_room
from roles.rt_app.workload.mxrc_reference.checkpoints import CheckpointStore, RunRecord
from roles.rt_app.workload.mxrc_reference.cli import NON_RT_ROLE, RT_ROLE, parse_options
from roles.rt_app.workload.mxrc_reference.faults import Faults
from roles.rt_app.workload.mxrc_reference.health import MemoryPlacement
from roles.rt_app.workload.mxrc_reference.loop import CycleLoop, Distribution
from roles.rt_app.workload.mxrc_reference.settings import ConfigError, load_settings
from roles.rt_app.workload.mxrc_reference.spans import SpanContext, Tracer, parse_traceparent
from roles.rt_app.workload.mxrc_reference.system import LIBC, Timespec

# --- the loop ---

PERIOD_NS = 1_000_000


class SimulatedTime:
    """A clock that only moves when the loop sleeps or works, so that its arithmetic can be seen exactly."""

    def __init__(self, work_ns: list[int], wake_late_ns: list[int]) -> None:
        self.now_ns = 5_000_000_000
        self.work_ns = work_ns
        self.wake_late_ns = wake_late_ns
        self.idle_ns: list[int] = []
        self.loop: Any = None

    def run(self) -> Any:
        """Run the loop through all the work; return it."""
        self.loop = CycleLoop(PERIOD_NS // 1000, 0, SimpleNamespace(step=self.step), Faults())
        patch = pytest.MonkeyPatch()
        with patch.context() as patched:
            patched.setattr(loop_room, "time", SimpleNamespace(monotonic_ns=lambda: self.now_ns))
            patched.setattr(LIBC, "clock_nanosleep", self.sleep)
            self.loop.run()
        return self.loop

    def sleep(self, _clock: int, _flags: int, address: int, _rest: None) -> int:
        timespec = Timespec.from_address(address)
        until_ns = timespec.tv_sec * 1_000_000_000 + timespec.tv_nsec
        self.idle_ns.append(until_ns - self.now_ns)
        self.now_ns = max(self.now_ns, until_ns) + self.wake_late_ns[len(self.idle_ns) - 1]
        return 0

    def step(self) -> None:
        cycle = len(self.idle_ns) - 1
        self.now_ns += self.work_ns[cycle]
        if cycle + 1 == len(self.work_ns):
            self.loop.stop()


def test_a_loop_that_keeps_up_misses_nothing() -> None:
    loop = SimulatedTime([PERIOD_NS // 2] * 10, [20_000] * 10).run()
    assert (loop.cycles, loop.misses) == (10, 0)
    assert loop.latency_sum_us == 10 * 20
    assert loop.recent() == (20, 20, 0.0)


def test_missed_releases_are_skipped_and_counted() -> None:
    # The second cycle takes 3.3 periods: it misses, and so do the releases that pass meanwhile.
    time = SimulatedTime([100_000, 3_300_000, 100_000, 100_000], [0] * 4)
    loop = time.run()
    assert loop.cycles == 4
    assert loop.misses == 1 + 3
    assert loop.recent().miss_rate == pytest.approx(4 / 7)
    # After the cycle it waits a quarter of its running time and is then back on the grid of releases.
    assert time.idle_ns[2] == 3_300_000 // 4
    assert (time.now_ns - 100_000) % PERIOD_NS == 0


@given(st.lists(st.tuples(st.integers(0, 20 * PERIOD_NS), st.integers(0, 5 * PERIOD_NS)), min_size=2, max_size=30))
def test_the_loop_always_leaves_a_share_of_its_core(cycles: list[tuple[int, int]]) -> None:
    time = SimulatedTime([work for work, _ in cycles], [late for _, late in cycles])
    start_ns = time.now_ns
    loop = time.run()
    for work_ns, idle_ns in zip(time.work_ns, time.idle_ns[1:], strict=False):
        assert idle_ns >= work_ns // 4
        assert idle_ns >= PERIOD_NS // 10
    # Every release is a cycle or a miss, and none is counted twice.
    recent = loop._window
    assert recent.scheduled - loop.cycles <= loop.misses <= recent.scheduled
    ends_ns = time.now_ns + max(PERIOD_NS // 10, time.work_ns[-1] // 4)
    assert recent.scheduled <= (ends_ns - start_ns) // PERIOD_NS + 1
    assert loop.latency().total() == loop.cycle_time.total() == loop.cycles == len(cycles)


def test_turning_windows_loses_no_cycle() -> None:
    loop = SimulatedTime([1000] * 5, [700_000] * 5).run()
    for _ in range(3):
        assert loop.latency().total() == 5
        loop.turn_window()
    assert loop.recent() == (0, 0, 0.0)


@given(st.lists(st.integers(0, 10_000_000), min_size=1), st.sampled_from([0.5, 0.99, 1.0]))
def test_distribution(durations_us: list[int], share: float) -> None:
    distribution = Distribution()
    for duration in durations_us:
        distribution.counts[distribution.index(duration)] += 1
    assert distribution.total() == len(durations_us)
    for edge in distribution.EDGES_US:
        assert distribution.below(edge) == sum(duration < edge for duration in durations_us)
    # Never too small, and at most a power of two too large.
    quantile = distribution.quantile(share)
    at_most = sum(duration <= quantile for duration in durations_us)
    assert at_most >= share * len(durations_us)
    assert quantile <= max(1023, 2 * max(durations_us))


# --- trace context ---

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        # A later version may have more fields and flags.
        (f"42-{TRACE}-{SPAN}-03-more", True),
    ],
)
def test_traceparent(header: str, sampled: bool) -> None:
    assert parse_traceparent(header) == (TRACE, SPAN, sampled, "")


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans(), st.text("abc=,", min_size=0, max_size=9))
def test_a_context_that_is_passed_on_comes_back(trace: int, span: int, sampled: bool, state: str) -> None:
    context = SpanContext(f"{trace:032x}", f"{span:016x}", sampled, state)
    assert parse_traceparent(f" {context.traceparent()} ", state) == context


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
def test_malformed_traceparent_is_ignored(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_sampling_follows_the_parent_and_else_the_rate() -> None:
    ended: list[Any] = []
    for rate in (0.0, 1.0):
        tracer = Tracer(rate, ended.append)
        assert tracer.span("root", None, {}).context.sampled is (rate == 1.0)
        for sampled in (True, False):
            parent = SpanContext(TRACE, SPAN, sampled)
            ended.clear()
            with tracer.span("child", parent, {}) as span:
                assert span.context.sampled is sampled
                assert span.context.trace_id == TRACE
            assert bool(ended) is sampled

    tracer = Tracer(0.1, ended.append)
    kept = sum(tracer.span("root", None, {}).context.sampled for _ in range(2000))
    assert 100 < kept < 320  # 200 expected; outside this by chance once in 10^13 runs


def test_span_that_is_switched_off_leaves_its_parent_in_place() -> None:
    ended: list[Any] = []
    parent = SpanContext(TRACE, SPAN, True)
    with Tracer(1.0, ended.append).span("off", parent, {}, enabled=False) as span:
        assert span.context == parent
    assert not ended


def test_span_notes_an_error() -> None:
    ended: list[Any] = []
    with (
        pytest.raises(ValueError, match="broken"),
        Tracer(1.0, ended.append).span("failing", None, {"text": "a", "number": 1, "flag": True}),
    ):
        raise ValueError("broken")
    otlp = ended[0].to_otlp()
    assert otlp["status"] == {"code": 2, "message": "broken"}
    assert {item["key"]: item["value"] for item in otlp["attributes"]} == {
        "text": {"stringValue": "a"},
        "number": {"intValue": "1"},
        "flag": {"boolValue": True},
        "trace.id": {"stringValue": otlp["traceId"]},
        "span.id": {"stringValue": otlp["spanId"]},
    }


# --- configuration ---

CPU = {
    "cpu_cores": [2, 3],
    "isolation_mode": "HYBRID",
    "is_exclusive": True,
    "priority": 90,
    "policy": "SCHED_FIFO",
}
NUMA = {
    "numa_node": 0,
    "memory_policy": "LOCAL",
    "strict_binding": True,
    "migrate_pages": False,
    "cpu_cores_hint": [2, 3],
}
FAILOVER = {
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
TRACING = {
    "service_name": "mxrc-rt",
    "sampling_rate": 0.1,
    "exporter": {"type": "OTLP", "protocol": "http", "endpoint": "http://localhost:4318"},
    "propagator": "W3C",
    "instrumentation": {"eventbus": True, "task_executor": True, "rt_cycle": True},
}


def load(directory: Path, role: Any = RT_ROLE, **sections: Any) -> Any:
    """Write the four files, some sections replaced, and load them."""
    documents = {
        "cpu": {"rt_process": CPU, "non_rt_process": {**CPU, "priority": 0, "policy": "SCHED_OTHER"}},
        "numa": {"rt_process": NUMA, "non_rt_process": NUMA},
        "failover": {"rt_process": FAILOVER},
        "tracing": TRACING,
    }
    for name, section in sections.items():
        documents[name] = {"rt_process": section} if name != "tracing" else section
    for name, document in documents.items():
        (directory / f"{name}.json").write_text(json.dumps(document))
    options = SimpleNamespace(
        config=directory / "cpu.json",
        numa_config=directory / "numa.json",
        failover_config=directory / "failover.json",
        tracing_config=directory / "tracing.json",
        service_name="",
    )
    return load_settings(options, role)


def test_configuration_as_the_requirements_have_it(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.affinity.cpu_cores == [2, 3]
    assert settings.tracing == ("mxrc-rt", 0.1, "http://localhost:4318", True, True, True)
    assert settings.warnings == []


def test_the_other_role_has_its_own_sections_and_shares_the_failover_policy(tmp_path: Path) -> None:
    settings = load(tmp_path, NON_RT_ROLE)
    assert settings.affinity.policy == "SCHED_OTHER"
    assert settings.failover.failure_threshold == 3
    assert settings.tracing.service_name == "mxrc-non-rt"


@pytest.mark.parametrize(
    ("name", "section", "message"),
    [
        ("cpu", {**CPU, "cpu_cores": []}, '"rt_process.cpu_cores" is [], must be a list of CPU numbers'),
        (
            "cpu",
            {**CPU, "cpu_cores": "2-3"},
            '"rt_process.cpu_cores" is "2-3", must be a list of CPU numbers',
        ),
        ("cpu", {**CPU, "priority": 100}, '"rt_process.priority" is 100, must be a whole number, 0 to 99'),
        ("cpu", {**CPU, "priority": 0}, "does not go with policy SCHED_FIFO"),
        ("cpu", {**CPU, "policy": "FIFO"}, "must be one of SCHED_FIFO, SCHED_RR, SCHED_OTHER"),
        ("numa", {}, 'missing key "rt_process.numa_node"'),
        ("numa", 7, '"rt_process" must be an object'),
        ("failover", {**FAILOVER, "failure_threshold": True}, "must be a whole number, at least 1"),
        ("failover", {**FAILOVER, "enable_state_recovery": "yes"}, "must be true or false"),
        ("tracing", {**TRACING, "sampling_rate": 10}, '"sampling_rate" is 10, must be a number, 0.0 to 1.0'),
        ("tracing", {"service_name": "a", "sampling_rate": 0}, 'missing key "exporter"'),
    ],
)
def test_configuration_errors_name_file_and_key(tmp_path: Path, name: str, section: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, **{name: section})
    assert str(error.value).startswith(f"{tmp_path / name}.json: ")
    assert message in str(error.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    load(tmp_path)
    options = SimpleNamespace(config=tmp_path / "cpu.json")
    options.config.write_text("{")
    with pytest.raises(ConfigError, match=r"cpu\.json: not valid JSON"):
        load_settings(options, RT_ROLE)
    options.config.unlink()
    with pytest.raises(ConfigError, match=r"cpu\.json: cannot be read: No such file"):
        load_settings(options, RT_ROLE)


def test_what_has_no_effect_is_a_warning(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        cpu={**CPU, "colour": "red"},
        numa={**NUMA, "cpu_cores_hint": [0]},
        failover={**FAILOVER, "enable_leader_election": True},
        tracing={**TRACING, "propagator": "B3", "exporter": {"type": "zipkin"}},
    )
    assert len(settings.warnings) == 5
    assert 'unknown key "rt_process.colour" ignored' in settings.warnings[0]
    assert settings.tracing.endpoint == ""


def test_options_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["--config=a", "--numa-config=b", "--failover-config=c"]
    monkeypatch.setenv("MXRC_CYCLE_US", "20000")
    monkeypatch.setenv("MXRC_ENABLE_FAULTS", "1")
    options, role = parse_options(["/usr/local/bin/rt_process", *files])
    assert role is RT_ROLE
    assert (options.cycle_us, options.enable_faults, options.tracing_config) == (20000, True, None)
    assert (options.health_port, options.metrics_port) == (8080, 9090)
    assert (options.bind, options.metrics_bind) == ("127.0.0.1", "127.0.0.1")
    assert str(options.log_file) == "/var/log/mxrc/rt_process.log"

    options, role = parse_options(["/usr/local/bin/non_rt_process", *files, "--cycle-us=1000"])
    assert role is NON_RT_ROLE
    assert (options.cycle_us, options.health_port, options.metrics_port) == (1000, 8081, 9091)
    assert parse_options(["anything", "--role", "non-rt", *files])[1] is NON_RT_ROLE


@pytest.mark.parametrize("option", ["--cycle-us=10", "--health-port=0", "--health-port=web", "--unknown=1"])
def test_bad_options_end_with_status_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--config=a", "--numa-config=b", "--failover-config=c"]
    with pytest.raises(SystemExit) as end:
        parse_options(["rt_process", *files, option])
    assert end.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err


# --- memory, state ---


def test_memory_placement_counts_all_mappings_by_page_size(tmp_path: Path) -> None:
    numa_maps = tmp_path / "numa_maps"
    numa_maps.write_text(
        "55d0 default heap anon=300 dirty=300 N0=290 N1=10 kernelpagesize_kB=4\n"
        "7f00 default file=/usr/lib/libc.so.6 mapped=100 N0=100 kernelpagesize_kB=4\n"
        "7f80 default anon=1 dirty=1 N1=1 kernelpagesize_kB=2048\n"
        "7fff default file=/dev/zero\n"
    )
    placement = MemoryPlacement(0, numa_maps)
    assert placement.local_percent() is None
    placement.measure()
    assert placement.bytes_by_node == {0: 390 * 4096, 1: 10 * 4096 + 2048 * 1024}
    assert placement.local_percent() == pytest.approx(100 * 390 / (390 + 10 + 512))


def test_damaged_run_record_counts_as_a_restart(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, "rt_process")
    assert record.begin(restart_count_in_checkpoint=0) == ""
    assert (record.start_count, record.restart_count) == (1, 0)
    (tmp_path / "rt_process.state.json").write_text("{")
    record = RunRecord(tmp_path, "rt_process")
    assert "damaged" in record.begin(restart_count_in_checkpoint=7)
    assert record.restart_count == 8


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "rt_process")
    for name in (
        "rt_process_20261128T101530.000000000Z.json.tmp",
        "rt_process.state.json.tmp",
        "non_rt_process.state.json.tmp",
    ):
        (tmp_path / name).touch()
    store.remove_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == ["non_rt_process.state.json.tmp"]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are those that were written last, also when the clock was put back meanwhile."""
    store = CheckpointStore(tmp_path, "rt_process", kept=3)
    clock = iter([1_795_862_130, 1_795_862_190, 1_795_862_250, 7, 67])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 1_000_000_000)
    for cycles in range(5):
        store.save({"cycles_total": cycles})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"rt_process_20261128T103730.{nanoseconds:09d}Z.json" for nanoseconds in (0, 1, 2)
    ]
    newest, problems = store.newest()
    assert newest == store.last
    assert problems == []
