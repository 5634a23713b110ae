"""The application: configuration, services, memory, answers."""

import json
from typing import Any

import pytest

from roles.agents.model import AGENTS
from roles.drift.model import DRIFT
from roles.drift.model import SERVICE as DRIFT_SERVICE
from roles.host import HostConfig
from roles.rt_app.model import NON_RT_UNIT, RT_APP, RT_UNIT, ProcessSettings, RtAppSettings
from roles.rt_tuning.model import IRQ_WATCH, RT_SLICE, TUNE
from rtinfra.config.types import Duration
from rtinfra.cpu import CpuLayout, parse_cpu_list
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.look.answers import Answers
from rtinfra.verify.look.application import Application
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.logs import Logs
from rtinfra.verify.look.loop import CYCLES, Loop
from rtinfra.verify.look.memory import Memory
from rtinfra.verify.look.threads import SCHED_POLICIES
from rtinfra.verify.look.units import Units

_LIMITS = project_limits()
# Percentage points: the process measures itself every few seconds.
_SHARE_TOLERANCE = 5.0
# Of the cycles that the period makes. An emulated processor is late for many of them.
_TURNS_TOLERANCE = 0.1
_TURNS_TOLERANCE_EMULATED = 0.75
# Numbers that the application shows for its states, by their words in /health.
_HEALTH_STATES = {"STOPPED": 0, "STARTING": 1, "HEALTHY": 2, "DEGRADED": 3, "UNHEALTHY": 4, "STOPPING": 5}
_RT_METRICS = {
    *("mxrc_rt_cycle_count_total", "mxrc_rt_deadline_miss_count_total", "mxrc_rt_deadline_miss_rate"),
    *("mxrc_rt_jitter_us", "mxrc_rt_cycle_time_us_sum", "mxrc_numa_local_memory_percent"),
}
_METRICS = {"mxrc_process_health_status", "mxrc_logging_events_total", "mxrc_tracing_sampling_rate"}


@pytest.fixture
def app(config: HostConfig) -> RtAppSettings:
    """The application's settings."""
    return config[RT_APP]


def _numa_policy(process: ProcessSettings) -> str:
    """The kernel's policy behind a binding, by its name in systemd.exec(5). A strict one refuses other memory."""
    return "bind" if process.strict_binding else process.memory_policy.lower()


# --- What the application reads (RT-4 to RT-7): the host's settings, its cores and its nodes. That the shipped
# --- settings are the values of the requirements is shown by tests/unit/test_shipped_values.py.


@pytest.mark.control(id="RT-4.1", severity="critical", title="The real-time process is told its cores")
def test_rt_cores(application: Application, layout: CpuLayout) -> None:
    section = application.section("cpu_affinity", "rt_process")
    expect.entries(section, {"cpu_cores": sorted(layout.isolated)}, "cpu_affinity.json, rt_process")


@pytest.mark.control(id="RT-4.2", severity="critical", title="The real-time process is told its priority")
def test_rt_scheduling(application: Application, app: RtAppSettings) -> None:
    section = application.section("cpu_affinity", "rt_process")
    expect.entries(section, _scheduling(app.rt_process), "cpu_affinity.json, rt_process")


def _scheduling(process: ProcessSettings) -> dict[str, object]:
    return {
        "isolation_mode": process.isolation_mode,
        "is_exclusive": process.is_exclusive,
        "priority": process.priority,
        "policy": process.policy,
    }


@pytest.mark.control(id="RT-4.3", severity="high", title="The other process is told its cores")
def test_non_rt_cores(application: Application, layout: CpuLayout) -> None:
    section = application.section("cpu_affinity", "non_rt_process")
    expect.entries(section, {"cpu_cores": sorted(layout.housekeeping)}, "cpu_affinity.json, non_rt_process")


@pytest.mark.control(id="RT-4.4", severity="medium", title="The other process is told to run without priority")
def test_non_rt_scheduling(application: Application, app: RtAppSettings) -> None:
    section = application.section("cpu_affinity", "non_rt_process")
    expect.entries(section, _scheduling(app.non_rt_process), "cpu_affinity.json, non_rt_process")


@pytest.mark.control(id="RT-5.1", severity="high", title="The real-time process is told which memory to use")
def test_rt_numa(application: Application, app: RtAppSettings, layout: CpuLayout) -> None:
    required = _binding(app.rt_process, layout.isolated)
    expect.entries(application.section("numa_binding", "rt_process"), required, "numa_binding.json, rt_process")


def _binding(process: ProcessSettings, cpus: frozenset[int]) -> dict[str, object]:
    return {
        "numa_node": process.numa_node,
        "memory_policy": process.memory_policy,
        "strict_binding": process.strict_binding,
        "migrate_pages": process.migrate_pages,
        "cpu_cores_hint": sorted(cpus),
    }


@pytest.mark.control(
    id="RT-5.2", severity="critical", title="The near memory named to the real-time process is really near its cores"
)
def test_rt_node_holds_the_cores(application: Application, layout: CpuLayout) -> None:
    node = application.section("numa_binding", "rt_process").get("numa_node")
    nodes = sorted({layout.topology.node_of(cpu) for cpu in layout.isolated})
    expect.equal([node], nodes, "NUMA node, and nodes of the isolated cores")


@pytest.mark.control(
    id="RT-5.3", severity="medium", title="The other process is told which memory to use, near the other cores"
)
def test_non_rt_numa(application: Application, app: RtAppSettings, layout: CpuLayout) -> None:
    nodes = {layout.topology.node_of(cpu) for cpu in layout.housekeeping}
    section = application.section("numa_binding", "non_rt_process")
    required = _binding(app.non_rt_process, layout.housekeeping)
    expect.entries(section, required, "numa_binding.json, non_rt_process")
    expect.that(section.get("numa_node") in nodes, section.get("numa_node"), sorted(nodes), "NUMA node, one of")


@pytest.mark.control(
    id="RT-5.4", severity="high", title="The kernel places the real-time process's memory by the set policy"
)
def test_memory_policy_in_the_kernel(memory: Memory, app: RtAppSettings, layout: CpuLayout) -> None:
    node = layout.topology.node_of(min(layout.isolated))
    policy = _numa_policy(app.rt_process)
    # As in numa(7), which shortens one of the names. `local` names no node: it is the one the thread runs on.
    required = policy if policy == "local" else f"{'prefer' if policy == 'preferred' else policy}:{node}"
    share = memory.policy_share(required)
    found = ", ".join(f"{name} {memory.policy_share(name):.1f} %" for name in sorted(memory.kb_by_policy))
    expect.that(
        share > _LIMITS.numa_local_percent,
        found or "no memory",
        f"{required} for more than {_LIMITS.numa_local_percent} %",
        "policies of the memory it has written",
    )


@pytest.mark.control(
    id="RT-5.5", severity="high", title="More than 95 % of the real-time process's memory is near its cores"
)
def test_local_share(memory: Memory, layout: CpuLayout) -> None:
    node = layout.topology.node_of(min(layout.isolated))
    everything, private = memory.everything, memory.private
    expect.at_least(everything.total_kb, 1, "memory of the real-time process", "kB")
    expect.that(
        everything.share(node) > _LIMITS.numa_local_percent,
        f"{everything.share(node):.1f} % (of its own memory {private.share(node):.1f} %, the rest are files)",
        f"more than {_LIMITS.numa_local_percent} %",
        "local share",
    )


@pytest.mark.control(id="RT-6.1", severity="high", title="The application is told how to recover from failures")
def test_failover_policy(application: Application, app: RtAppSettings) -> None:
    settings = app.failover
    required = {
        "health_check_interval_ms": settings.health_check_interval_ms,
        "health_check_timeout_ms": settings.health_check_timeout_ms,
        "failure_threshold": settings.failure_threshold,
        "restart_delay_ms": settings.restart_delay_ms,
        "max_restart_count": settings.max_restart_count,
        "restart_window_sec": settings.restart_window_sec,
        "enable_state_recovery": settings.enable_state_recovery,
        "checkpoint_interval_sec": settings.checkpoint_interval_sec,
        "enable_leader_election": settings.enable_leader_election,
    }
    expect.entries(application.section("failover_policy", "rt_process"), required, "failover_policy.json")


@pytest.mark.control(id="RT-7.1", severity="medium", title="The application is told what to trace and where to send it")
def test_tracing_config(application: Application, app: RtAppSettings, config: HostConfig) -> None:
    document, settings = application.documents.get("tracing_config", {}), app.tracing
    required = {
        "service_name": settings.service_name,
        "sampling_rate": settings.sampling_rate,
        "propagator": settings.propagator,
    }
    expect.entries(document, required, "tracing_config.json")
    agents = config.get(AGENTS)
    collector = f"http://localhost:{agents.collector.http_port if agents else 4318}"
    exporter = {"type": "OTLP", "protocol": "http", "endpoint": settings.endpoint or collector}
    expect.entries(document.get("exporter", {}), exporter, "exporter in tracing_config.json")


@pytest.mark.control(id="RT-7.2", severity="low", title="The application is told which of its parts to trace")
def test_tracing_instrumentation(application: Application, app: RtAppSettings) -> None:
    actual, settings = (
        application.documents.get("tracing_config", {}).get("instrumentation", {}),
        app.tracing.instrumentation,
    )
    required = {
        "eventbus": settings.eventbus,
        "task_executor": settings.task_executor,
        "rt_cycle": settings.rt_cycle,
    }
    expect.entries(actual, required, "instrumentation")


# --- How systemd runs it (RT-8).


@pytest.mark.control(id="RT-8.1", severity="critical", title="The real-time process runs, now and after a restart")
def test_rt_unit_runs(units: Units) -> None:
    required = {"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}
    expect.entries(units.of(RT_UNIT), required, RT_UNIT)


@pytest.mark.control(id="RT-8.2", severity="high", title="The other process runs, now and after a restart")
def test_non_rt_unit_runs(units: Units) -> None:
    required = {"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}
    expect.entries(units.of(NON_RT_UNIT), required, NON_RT_UNIT)


@pytest.mark.control(id="RT-8.3", severity="high", title="The real-time process itself says when it is ready")
def test_notify(units: Units) -> None:
    expect.entries(units.of(RT_UNIT), {"Type": "notify", "NotifyAccess": "main"}, RT_UNIT)


@pytest.mark.control(id="RT-8.4", severity="high", title="The real-time process was started with the right files")
def test_arguments(application: Application, app: RtAppSettings) -> None:
    required = [
        "/usr/local/bin/rt_process",
        *("--config", f"{app.config_dir}/cpu_affinity.json"),
        *("--numa-config", f"{app.config_dir}/numa_binding.json"),
        *("--failover-config", f"{app.config_dir}/failover_policy.json"),
        *("--tracing-config", f"{app.config_dir}/tracing_config.json"),
    ]
    # Of the running process, and without the interpreter before a script.
    actual = list(application.rt_command)
    expect.equal(" ".join(actual[-len(required) :]), " ".join(required), "command of the running process")


@pytest.mark.control(
    id="RT-8.5", severity="critical", title="A failed real-time process is started again after the set pause"
)
def test_restart(units: Units, app: RtAppSettings) -> None:
    unit = units.of(RT_UNIT)
    expect.entries(unit, {"Restart": "on-failure"}, RT_UNIT)
    expect.time_span(unit.get("RestartUSec", ""), app.unit.restart_delay, "RestartSec")


@pytest.mark.control(id="RT-8.6", severity="critical", title="A hung real-time process is noticed within the set time")
def test_watchdog(units: Units, app: RtAppSettings) -> None:
    expect.time_span(units.of(RT_UNIT).get("WatchdogUSec", ""), app.unit.watchdog, "WatchdogSec")


@pytest.mark.control(id="RT-8.7", severity="high", title="A process that fails again and again is given up")
def test_start_limit(units: Units, app: RtAppSettings) -> None:
    unit = units.of(RT_UNIT)
    expect.entries(unit, {"StartLimitBurst": str(app.failover.max_restart_count)}, RT_UNIT)
    window = Duration.parse(f"{app.failover.restart_window_sec}s")
    expect.time_span(unit.get("StartLimitIntervalUSec", ""), window, "StartLimitIntervalSec")


@pytest.mark.control(id="RT-8.8", severity="medium", title="Application and system agree on the number of restarts")
def test_start_limit_matches_the_policy(units: Units, application: Application) -> None:
    policy = application.section("failover_policy", "rt_process").get("max_restart_count")
    expect.equal(units.of(RT_UNIT).get("StartLimitBurst"), str(policy), "restarts that systemd allows")


@pytest.mark.control(id="RT-8.9", severity="medium", title="What the real-time process prints goes to the system log")
def test_output(units: Units) -> None:
    required = {"StandardOutput": "journal", "StandardError": "journal"}
    expect.entries(units.of(RT_UNIT), required, RT_UNIT)


@pytest.mark.control(
    id="RT-8.10", severity="high", title="The real-time process is started with its real-time priority"
)
def test_scheduling_directives(units: Units, app: RtAppSettings) -> None:
    process = app.rt_process
    required = {
        "CPUSchedulingPolicy": str(SCHED_POLICIES[process.policy]),
        "CPUSchedulingPriority": str(process.priority),
    }
    expect.entries(units.of(RT_UNIT), required, RT_UNIT)


@pytest.mark.control(id="RT-8.11", severity="high", title="Both processes are started on their own cores")
def test_affinity_directives(units: Units, layout: CpuLayout) -> None:
    for unit, cpus in ((RT_UNIT, layout.isolated), (NON_RT_UNIT, layout.housekeeping)):
        actual = ",".join(units.of(unit).get("CPUAffinity", "").split())
        expect.equal(parse_cpu_list(actual, None) if actual else frozenset(), cpus, f"CPUAffinity of {unit}")


@pytest.mark.control(
    id="RT-8.12", severity="medium", title="The real-time process is started with the set policy for its memory"
)
def test_numa_directives(units: Units, app: RtAppSettings, layout: CpuLayout) -> None:
    policy, node = _numa_policy(app.rt_process), str(layout.topology.node_of(min(layout.isolated)))
    required = {"NUMAPolicy": policy} if policy == "local" else {"NUMAPolicy": policy, "NUMAMask": node}
    expect.entries(units.of(RT_UNIT), required, RT_UNIT)


@pytest.mark.control(
    id="RT-8.13", severity="high", title="The real-time process is in the group that owns the real-time cores"
)
def test_slice(units: Units) -> None:
    expect.entries(units.of(RT_UNIT), {"Slice": RT_SLICE}, RT_UNIT)


@pytest.mark.control(
    id="RT-8.14", severity="high", title="The real-time process may lock its memory and use real-time priorities"
)
def test_limits(application: Application) -> None:
    required = {"locked memory": "unlimited", "realtime priority": "99"}
    expect.entries(application.rt_limits, required, "limits of the running process")


@pytest.mark.control(id="RT-8.15", severity="high", title="Both processes run without administrator rights")
def test_unprivileged(application: Application, app: RtAppSettings) -> None:
    expect.equal(" ".join(application.users), f"{app.user} {app.user}", "users of the two processes")


@pytest.mark.control(id="RT-8.16", severity="medium", title="Break-ins through the real-time process are hard")
def test_rt_exposure(units: Units) -> None:
    _expect_exposure(units, RT_UNIT)


@pytest.mark.control(id="RT-8.17", severity="medium", title="Break-ins through the other process are hard")
def test_non_rt_exposure(units: Units) -> None:
    _expect_exposure(units, NON_RT_UNIT)


@pytest.mark.control(id="RT-8.18", severity="medium", title="Break-ins through our helper services are hard")
def test_helper_exposure(units: Units, config: HostConfig) -> None:
    _expect_exposure(units, IRQ_WATCH)
    _expect_exposure(units, TUNE)
    if config[DRIFT].enabled:
        _expect_exposure(units, DRIFT_SERVICE)


def _expect_exposure(units: Units, unit: str) -> None:
    score = units.exposure.get(unit)
    holds = score is not None and score <= _LIMITS.unit_exposure
    expect.that(holds, score, f"at most {_LIMITS.unit_exposure}", f"exposure of {unit} (systemd-analyze security)")


@pytest.mark.control(id="RT-8.19", severity="high", title="The other process is watched and started again too")
def test_non_rt_supervision(units: Units, app: RtAppSettings) -> None:
    unit = units.of(NON_RT_UNIT)
    expect.entries(unit, {"Type": "notify", "NotifyAccess": "main", "Restart": "on-failure"}, NON_RT_UNIT)
    expect.time_span(unit.get("WatchdogUSec", ""), app.unit.watchdog, "WatchdogSec")
    expect.time_span(unit.get("RestartUSec", ""), app.unit.restart_delay, "RestartSec")


# --- What it does (RT-9).


@pytest.mark.control(id="RT-9.1", severity="critical", title="Both processes report good health")
def test_health(answers: Answers, app: RtAppSettings) -> None:
    # The self check tolerates a single late cycle, and so does this: one good answer of several is enough.
    for port in (app.rt_process.health_port, app.non_rt_process.health_port):
        statuses = [answer.status for answer in answers.at(port, "/health")]
        expect.that(200 in statuses, statuses, "200 at least once", f"HTTP status of port {port} /health")


@pytest.mark.control(id="RT-9.2", severity="high", title="Both processes answer health checks within half a second")
def test_health_is_quick(answers: Answers, computer: Computer, app: RtAppSettings) -> None:
    for port in (app.rt_process.health_port, app.non_rt_process.health_port):
        found = [answer for answer in answers.at(port, "/health") if answer.status]
        expect.at_least(len(found), 1, f"answers of port {port}")
        slowest = max(answer.milliseconds for answer in found)
        what = f"slowest of {len(found)} answers of port {port}"
        expect.below_on_a_real_processor(
            slowest, _LIMITS.health_answer.milliseconds, what, "ms", computer.virtualisation
        )


@pytest.mark.control(id="RT-9.3", severity="medium", title="Both processes say that they are alive")
def test_live(answers: Answers, app: RtAppSettings) -> None:
    for port in (app.rt_process.health_port, app.non_rt_process.health_port):
        statuses = [answer.status for answer in answers.at(port, "/health/live")]
        expect.equal(statuses, [200], f"HTTP status of port {port} /health/live")


@pytest.mark.control(id="RT-9.4", severity="high", title="The real-time process publishes its measurements")
def test_rt_metrics(answers: Answers, app: RtAppSettings) -> None:
    published = answers.metrics(app.rt_process.metrics_port).keys()
    expect.nothing(sorted((_RT_METRICS | _METRICS) - published), "metrics that are missing")


@pytest.mark.control(id="RT-9.5", severity="medium", title="The other process publishes its measurements")
def test_non_rt_metrics(answers: Answers, app: RtAppSettings) -> None:
    published = answers.metrics(app.non_rt_process.metrics_port).keys()
    expect.nothing(sorted(_METRICS - published), "metrics that are missing")


@pytest.mark.control(id="RT-9.6", severity="high", title="The control loop is turning")
def test_loop_turns(loop: Loop, computer: Computer, app: RtAppSettings) -> None:
    cycles = expect.found(loop.cycles, CYCLES, "nothing at one of two looks", "a number at both")
    expect.at_least(cycles, 1, f"cycles within {loop.seconds:.1f} s")
    if app.application.kind == "reference":
        share = cycles * app.reference.cycle_us / 1e6 / loop.seconds
        tolerance = _TURNS_TOLERANCE_EMULATED if computer.virtualisation == expect.EMULATED else _TURNS_TOLERANCE
        expect.that(
            abs(share - 1) <= tolerance,
            f"{share:.0%}",
            f"100 % +- {tolerance:.0%}",
            f"of the cycles that {app.reference.cycle_us} us a cycle make",
        )


@pytest.mark.control(id="RT-9.10", severity="high", title="What both processes measure is what can be seen of them")
def test_metric_values(answers: Answers, memory: Memory, app: RtAppSettings) -> None:
    for name, process in (("rt_process", app.rt_process), ("non_rt_process", app.non_rt_process)):
        found = answers.metrics(process.metrics_port)
        said = [answer.json for answer in answers.at(process.health_port, "/health")]
        states = {_HEALTH_STATES.get(str(it.get("status"))) for it in said if isinstance(it, dict)}
        actual = found.get("mxrc_process_health_status")
        expect.that(
            actual in states, actual, f"one of {sorted(filter(None, states))}", f"health of {name}, /health says"
        )
        expect.entries(found, {"mxrc_tracing_sampling_rate": app.tracing.sampling_rate}, name)
    local = answers.metrics(app.rt_process.metrics_port).get("mxrc_numa_local_memory_percent")
    local = expect.found(local, "mxrc_numa_local_memory_percent", "nothing", "a number")
    share = memory.everything.share(app.rt_process.numa_node)
    holds = abs(local - share) <= _SHARE_TOLERANCE
    expect.that(
        holds, f"{local:.1f} %", f"{share:.1f} % +- {_SHARE_TOLERANCE} %", "memory near the cores, the kernel says"
    )


@pytest.mark.control(id="RT-9.7", severity="medium", title="Both processes write logs that machines can read")
def test_logs(application: Application, app: RtAppSettings) -> None:
    if app.application.kind != "reference":
        expect.not_applicable("only the reference workload's log is known here")
    records = [json.loads(line) for line in application.log_tails if line.startswith("{")]
    required = ("@timestamp", "log.level", "process.name", "message")
    lacking = {key for key in required for record in records if not _has(record, key)}
    expect.equal(len(records), 2, "logs whose last line is JSON")
    expect.nothing(sorted(lacking), "fields that are missing")


def _has(record: dict[str, Any], key: str) -> bool:
    """Whether a record has a field, as `log.level` or as `level` in `log`: ECS allows both."""
    head, _, rest = key.partition(".")
    inner = record.get(head)
    return key in record or (bool(rest) and isinstance(inner, dict) and rest in inner)


@pytest.mark.control(id="RT-9.8", severity="high", title="Log files are rotated without losing a line")
def test_rotation_by_rename(logs: Logs, app: RtAppSettings) -> None:
    # logrotate's own rehearsal. Renaming keeps the file a shipper has open; copying and truncating loses lines.
    about_ours = [line for line in logs.logrotate if f" {app.log_dir}/" in line]
    expect.nothing((line for line in about_ours if not line.startswith("renaming")), "log files that are copied")
    files = [f"{app.log_dir}/{name}.log" for name in ("rt_process", "non_rt_process")]
    kept = [log for log in files if not any(line.startswith(f"renaming {log} to ") for line in about_ours)]
    expect.nothing(kept, "log files that would not be renamed")


@pytest.mark.control(
    id="RT-9.9", severity="medium", title="Both processes write to the log files that the log shipper reads"
)
def test_open_log_files(application: Application, app: RtAppSettings) -> None:
    required = {f"{app.log_dir}/{name}.log" for name in ("rt_process", "non_rt_process")}
    expect.nothing(sorted(required - set(application.open_logs)), "log files that nobody has open")


# --- Recovery that can be seen without a failure (RT-12); test_failover.py makes some.


@pytest.mark.control(id="RT-12.1", severity="high", title="Saved states are kept where only the application may look")
def test_checkpoint_directory(application: Application, app: RtAppSettings) -> None:
    expect.equal(application.checkpoint_access, f"750 {app.user} {app.user}", "mode and owner of the checkpoint folder")


@pytest.mark.control(id="RT-12.2", severity="high", title="The last saved state is recent")
def test_checkpoint_is_recent(computer: Computer, application: Application, app: RtAppSettings) -> None:
    checkpoint = expect.found(application.checkpoint, "saved states", "none")
    # One that is being written right now may be a little late.
    limit = app.failover.checkpoint_interval_sec + 10
    expect.below(computer.state.clock - checkpoint.written, limit, "age of the last one", "s")


@pytest.mark.control(id="RT-12.3", severity="high", title="The last saved state is intact")
def test_checkpoint_is_intact(application: Application, app: RtAppSettings) -> None:
    if app.application.kind != "reference":
        expect.not_applicable("only the reference workload's format is known here")
    intact = application.checkpoint is not None and application.checkpoint.is_intact
    expect.equal(intact, True, "its checksum is right")


@pytest.mark.control(id="RT-12.4", severity="medium", title="The real-time process is not restarting again and again")
def test_no_restart_loop(computer: Computer, units: Units, app: RtAppSettings) -> None:
    unit = units.of(RT_UNIT)
    expect.entries(unit, {"ActiveState": "active"}, RT_UNIT)
    restarts = int(unit.get("NRestarts") or 0)
    seconds = units.seconds_active(RT_UNIT, computer.uptime)
    settled = restarts == 0 or seconds > app.failover.restart_window_sec
    found = f"{restarts} restarts, the last {seconds:.0f} s ago"
    expect.that(settled, found, f"none within {app.failover.restart_window_sec} s", "restarts by the system")
