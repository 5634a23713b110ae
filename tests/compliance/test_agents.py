"""Agents on hosts: collector, host metrics and log shipper run, and stay away from the real-time cores."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from roles.agents.model import AGENTS, FILEBEAT_UNIT, METRICS_PAGE, AgentsSettings, FilebeatSettings
from roles.agents.role import COLLECTOR_UNIT, NODE_EXPORTER_UNIT
from roles.elasticsearch.model import ELASTICSEARCH
from roles.gateways.model import GATEWAYS
from roles.host import HostConfig
from roles.rt_app.model import RT_APP
from roles.shape import FleetView
from roles.shared import AGENTS_SLICE, RT_GROUP
from rtinfra.cpu import CpuLayout
from rtinfra.facts.http import Request, loopback
from rtinfra.limits import project_limits
from rtinfra.stack_programs import Program
from rtinfra.verify import expect, telemetry
from rtinfra.verify.asking import Asker, basic
from rtinfra.verify.look.answers import Answers, samples
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.packages import Packages
from rtinfra.verify.look.slices import Slices
from rtinfra.verify.look.threads import Threads
from rtinfra.verify.look.units import Units
from rtinfra.verify.snapshot import Snapshot

pytestmark = pytest.mark.on("agents")

_LINES = 10_000
_LIMITS = project_limits()


@pytest.fixture
def settings(config: HostConfig) -> AgentsSettings:
    """Settings of the agents."""
    return expect.found(config[AGENTS], "settings of the agents", "none")


@pytest.fixture
def agents(programs: tuple[Program, ...]) -> tuple[Program, ...]:
    """The agents of the host."""
    return tuple(program for program in programs if program.role == "agents")


# --- the collector


@pytest.mark.control(id="OB-5.1", severity="critical", title="The collector of the host runs, now and after a restart")
def test_collector_runs(units: Units) -> None:
    expect.entries(units.of(COLLECTOR_UNIT), {"ActiveState": "active", "UnitFileState": "enabled"}, COLLECTOR_UNIT)


@pytest.mark.control(id="OB-5.2", severity="critical", title="The collector of the host says that it is healthy")
def test_collector_healthy(answers: Answers, settings: AgentsSettings) -> None:
    answer = answers.last(loopback(settings.collector.health_port, "/"))
    expect.equal(answer.status, 200, f"HTTP status of {answer.url}")


@pytest.mark.control(id="OB-5.3", severity="high", title="Nothing piles up in the queues of the host's collector")
def test_collector_queues(answers: Answers, settings: AgentsSettings, view: FleetView) -> None:
    queues = telemetry.queues(samples(answers.last(view.url(settings.collector.metrics_port, METRICS_PAGE))))
    expect.at_least(len(queues), 1, "queues of the collector")
    expect.nothing((queue for queue in queues if queue.share > _LIMITS.queue_fill_ratio), "queues that are nearly full")


@pytest.mark.control(id="OB-5.4", severity="high", title="The host's collector has not lost a single record")
def test_collector_lost_nothing(answers: Answers, settings: AgentsSettings, view: FleetView) -> None:
    found = list(samples(answers.last(view.url(settings.collector.metrics_port, METRICS_PAGE))))
    expect.at_least(len(found), 1, "metrics of the collector")
    expect.nothing(telemetry.losses(found), "records that were given up")


@pytest.mark.control(id="OB-5.5", severity="high", title="All software of the agents is installed completely")
def test_packages(packages: Packages, agents: tuple[Program, ...]) -> None:
    named = [package for program in agents for package in program.packages]
    states = {name: packages.state(name) for name in named}
    expect.entries(states, dict.fromkeys(named, "installed"), "packages")


@pytest.mark.control(id="OB-5.6", severity="medium", title="No agent is restarting again and again")
def test_no_restart_loop(computer: Computer, units: Units, agents: tuple[Program, ...]) -> None:
    expect.nothing(telemetry.restarting(units, computer.uptime, agents), "agents that were restarted lately")


# --- bounds


@pytest.mark.control(id="OB-5.10", severity="critical", title="All agents run within their common bounds")
def test_slice(units: Units, agents: tuple[Program, ...]) -> None:
    groups = {program.unit: units.of(program.unit).get("ControlGroup", "") for program in agents}
    required = {program.unit: f"/{AGENTS_SLICE}/{program.unit}" for program in agents}
    expect.entries(groups, required, "control groups")


@pytest.mark.control(id="OB-5.11", severity="high", title="The kernel bounds the memory of all agents together")
def test_slice_memory(slices: Slices, settings: AgentsSettings) -> None:
    limit = slices.memory_max(AGENTS_SLICE)
    expect.equal(limit, str(settings.slice.memory_max.bytes), f"memory limit of {AGENTS_SLICE}, in bytes")


@pytest.mark.on("agents", RT_GROUP)
@pytest.mark.control(id="OB-5.12", severity="critical", title="No thread of any agent may run on a real-time core")
def test_threads_on_housekeeping_cores(threads: Threads, agents: tuple[Program, ...], layout: CpuLayout) -> None:
    found = [task for program in agents for task in threads.of(program.unit)]
    silent = [program.unit for program in agents if not threads.of(program.unit)]
    expect.nothing(silent, "agents without a thread")
    expect.nothing((task for task in found if not task.cpus <= layout.housekeeping), "threads allowed elsewhere")


@pytest.mark.on("agents", RT_GROUP)
@pytest.mark.control(id="OB-5.13", severity="high", title="No thread of any agent was seen on a real-time core")
def test_threads_ran_elsewhere(threads: Threads, agents: tuple[Program, ...], layout: CpuLayout) -> None:
    found = [task for program in agents for task in threads.of(program.unit)]
    expect.at_least(len(found), 1, "threads of agents")
    expect.nothing((task for task in found if task.last_cpu in layout.isolated), "threads that ran there last")


@pytest.mark.on("agents", RT_GROUP)
@pytest.mark.control(id="OB-5.14", severity="critical", title="The kernel keeps the agents off the real-time cores")
def test_slice_cores(slices: Slices, layout: CpuLayout) -> None:
    cores = slices.cpus(AGENTS_SLICE)
    expect.equal(cores, layout.housekeeping, f"cores of {AGENTS_SLICE}")


# --- metrics of the host


@pytest.mark.control(id="OB-5.20", severity="high", title="The host publishes its own measurements")
def test_node_exporter(answers: Answers, agents: tuple[Program, ...]) -> None:
    url = next(program.ready for program in agents if program.unit == NODE_EXPORTER_UNIT)
    answer = answers.last(expect.found(url, "address of the host's metrics", "none"))
    names = {sample.name for sample in samples(answer)}
    expect.equal(answer.status, 200, f"HTTP status of {answer.url}")
    expect.nothing(sorted({"node_uname_info", "node_cpu_seconds_total"} - names), "metrics that are missing")


@pytest.mark.control(id="OB-5.21", severity="medium", title="Measurements that others leave as files are published too")
def test_textfile_directory(answers: Answers, agents: tuple[Program, ...]) -> None:
    url = next(program.ready for program in agents if program.unit == NODE_EXPORTER_UNIT)
    answer = answers.last(expect.found(url, "address of the host's metrics", "none"))
    # The exporter has this metric only while it reads a directory.
    errors = {sample.value for sample in samples(answer) if sample.name == "node_textfile_scrape_error"}
    expect.equal(errors, {0.0}, "node_textfile_scrape_error")


# --- the application's logs


@pytest.fixture
def filebeat(settings: AgentsSettings) -> FilebeatSettings:
    """Settings of Filebeat, where it ships the logs."""
    if settings.logs != "filebeat":
        expect.not_applicable("the collector ships the logs here (agents.logs)")
    return settings.filebeat


@pytest.mark.on("agents", RT_GROUP)
@pytest.mark.control(id="OB-1.1", severity="high", title="The application's log lines are taken up by the collector")
def test_collector_reads_logs(answers: Answers, settings: AgentsSettings, view: FleetView) -> None:
    if settings.logs != "collector":
        expect.not_applicable("Filebeat ships the logs here (agents.logs)")
    answer = answers.last(view.url(settings.collector.metrics_port, METRICS_PAGE))
    accepted = sum(
        sample.value
        for sample in samples(answer)
        if sample.name.startswith("otelcol_receiver_accepted_log_records")
        and sample.labels.get("receiver", "").startswith("file")
    )
    expect.at_least(accepted, 1, "log lines read from files")


@pytest.mark.control(id="OB-1.2", severity="high", title="The log shipper Filebeat runs, now and after a restart")
def test_filebeat_runs(units: Units, filebeat: FilebeatSettings) -> None:
    required = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(units.of(FILEBEAT_UNIT), required, FILEBEAT_UNIT)


@pytest.mark.control(id="OB-1.3", severity="high", title="Filebeat itself finds no mistake in its configuration")
def test_filebeat_config(snapshot: Snapshot, filebeat: FilebeatSettings) -> None:
    expect.equal(snapshot.filebeat.messages[-1:], ("Config OK",), "filebeat test config")


@pytest.mark.control(id="OB-1.4", severity="high", title="Filebeat has dropped no log line")
def test_filebeat_dropped_nothing(answers: Answers, filebeat: FilebeatSettings) -> None:
    answer = answers.last(loopback(filebeat.stats_port, "/stats"))
    stats = expect.found(answer.json, "statistics of Filebeat", f"HTTP status {answer.status}")
    expect.equal(stats["libbeat"]["output"]["events"].get("dropped", 0), 0, "log lines dropped")


@dataclass(frozen=True)
class Shipped:
    """What became of log lines that were written on purpose; times in seconds by the host's clock."""

    numbers: frozenset[int]
    hits: int
    delays: tuple[float, ...]
    burst_seconds: float | None


# Writes lines as the application does, asks meanwhile how many can be found, and prints one line for each look.
# The clock has 10 ms steps, which adds to every delay and takes nothing from it.
_WRITER = r"""use Socket qw(:all); use Fcntl;
my ($file, $host, $port, $count, $rate, $head, $tail, $request, $patience) = @ARGV;
sub now { open my $f, "<", "/proc/uptime"; (split " ", <$f>)[0] }
sub found {
    my ($error, $address) = getaddrinfo($host, $port, {socktype => SOCK_STREAM}); return -1 if $error;
    my $s; socket($s, $address->{family}, SOCK_STREAM, 0) && connect($s, $address->{addr}) or return -1;
    syswrite($s, pack("H*", $request)); my $answer = "";
    while (sysread($s, my $part, 65536)) { $answer .= $part }
    return $answer =~ /"count":(\d+)/ ? $1 : -1;
}
my $start = now(); $| = 1;
my $writer = fork;
if (!$writer) {
    # As the owner of the folder, whose names are its own: root would write wherever a link of it leads.
    my @is = stat $file =~ s{/[^/]*$}{}r or exit 1;
    ($(, $)) = ($is[5], "$is[5] $is[5]");
    ($<, $>) = ($is[4], $is[4]);
    $> == $is[4] && $) == $is[5] or exit 1;
    sysopen(my $out, $file, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK) or exit 1;
    for (my $n = 0; $n < $count;) {
        my $due = $rate ? int((now() - $start) * $rate) + 1 : $count;
        $due = $count if $due > $count;
        my ($lines, $at) = ("", now());
        while ($n < $due) { $lines .= "$head$n$tail\n"; $n++ }
        if (length $lines) { syswrite($out, $lines); print "written $at $n\n" }
        select(undef, undef, undef, 0.01);
    }
    exit 0;
}
my $seen = 0;
while ($seen < $count && now() - $start < $patience) {
    $seen = found(); printf "found %s %d\n", now(), $seen; select(undef, undef, undef, 0.05);
}
waitpid $writer, 0; print "start $start\n";"""
_PATIENCE_S = 120


@pytest.fixture(scope="module")
def shipped(asker: Asker, config: HostConfig, view: FleetView) -> Shipped:
    """10000 lines at the required rate, then 10000 at once, followed from the file to the search."""
    agents = config[AGENTS]
    if agents is None or agents.logs != "filebeat":
        expect.not_applicable("Filebeat does not ship the logs here (agents.logs)")
    backends = view.members(ELASTICSEARCH)
    if not backends:
        expect.not_applicable("no host of the inventory runs Elasticsearch")
    if config.get(RT_APP) is None:
        expect.not_applicable("the application, whose log files are shipped, does not run on this host")
    backend = backends[0]
    login = basic("elastic", backend.settings.password_secret, view.telemetry.environment)
    index = f"http://{backend.address}:{backend.settings.port}/mxrc-logs-*"
    log = f"{config[RT_APP].log_dir}/non_rt_process.log"
    paced = _ship(asker, log, index, login, rate=_LIMITS.log_lines_per_second)
    burst = _ship(asker, log, index, login, rate=0)
    # Whatever has not arrived stays in the counts; what arrived has a delay.
    numbers, hits = _numbers(asker, index, login, paced["task"])
    return Shipped(
        numbers=numbers,
        hits=hits,
        delays=telemetry.delays(paced["written"], paced["found"]),
        burst_seconds=next((at - burst["start"] for at, count in burst["found"] if count >= _LINES), None),
    )


def _query(task: str) -> dict[str, Any]:
    required = {"mxrc.task_id": task, "process.name": "verification", "log.level": "info"}
    return {"bool": {"filter": [{"term": {name: value}} for name, value in required.items()]}}


def _ship(asker: Asker, log: str, index: str, login: dict[str, str], rate: int) -> dict[str, Any]:
    task = f"verify-{secrets.token_hex(8)}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    record = json.dumps(
        {
            "@timestamp": stamp,
            "log": {"level": "info"},
            "process": {"name": "verification"},
            "mxrc": {"task_id": task},
            "message": "line NUMBER",
        }
    )
    head, _, tail = record.partition("NUMBER")
    body = json.dumps({"query": _query(task)}).encode()
    request = Request(f"{index}/_count", "POST", body, {"Content-Type": "application/json", **login})
    # Where to connect, and the request in digits. It holds the password: it goes to perl with the program, not as an
    # argument that others could read.
    _, _, host, port, _, digits = request.line.split()
    arguments = [log, host, port, str(_LINES), str(rate), head, tail, digits, str(_PATIENCE_S)]
    script = "\n".join(
        [
            "perl - <<'END-OF-WRITER'",
            f"@ARGV = map {{ pack 'H*', $_ }} qw({' '.join(word.encode().hex() for word in arguments)});",
            _WRITER,
            "END-OF-WRITER",
        ]
    )
    seen: dict[str, list[tuple[float, int]]] = {"written": [], "found": []}
    start = 0.0
    for line in asker.run(script).splitlines():
        kind, at, *count = line.split()
        if kind == "start":
            start = float(at)
        elif int(count[0]) >= 0:
            seen[kind].append((float(at), int(count[0])))
    return {"task": task, "start": start, **seen}


def _numbers(asker: Asker, index: str, login: dict[str, str], task: str) -> tuple[frozenset[int], int]:
    """Return which lines can be found, and how many documents that are: more means some are there twice."""
    answer = asker.post(
        f"{index}/_search", {"size": _LINES, "track_total_hits": True, "_source": ["message"], "query": _query(task)},
        login,
    )  # fmt: skip
    hits = expect.found(answer.json, "answer of Elasticsearch", f"HTTP status {answer.status}")["hits"]
    return frozenset(int(hit["_source"]["message"].split()[1]) for hit in hits["hits"]), hits["total"]["value"]


@pytest.mark.disruptive
@pytest.mark.control(
    id="OB-1.5", severity="critical", title="Of 10000 log lines every one is found by process, level and task"
)
def test_all_lines_arrive(shipped: Shipped) -> None:
    expect.equal(len(shipped.numbers), _LINES, "different lines found in Elasticsearch")
    expect.equal(shipped.hits, _LINES, "documents they make")


@pytest.mark.disruptive
@pytest.mark.control(id="OB-1.6", severity="high", title="Log lines can be searched within a second of being written")
def test_delay(shipped: Shipped) -> None:
    expect.equal(len(shipped.delays), _LINES, "lines with a known delay")
    delay = sorted(shipped.delays)[int(len(shipped.delays) * 0.99) - 1]
    expect.below(delay, _LIMITS.log_delay.seconds, "delay that 99 % of the lines keep", "s")


@pytest.mark.disruptive
@pytest.mark.control(id="OB-1.7", severity="high", title="Five thousand log lines a second are carried")
def test_rate(shipped: Shipped) -> None:
    seconds = expect.found(shipped.burst_seconds, "end of the burst", "never within the time")
    expect.at_least(round(_LINES / seconds), _LIMITS.log_lines_per_second, "lines a second, written at once", "lines/s")


# --- from this host to where it is stored


@dataclass(frozen=True)
class Sent:
    """A trace and an error log of it that were sent through the host's collector."""

    trace: str
    statuses: tuple[int, int]


@pytest.fixture(scope="module")
def sent(asker: Asker, config: HostConfig) -> Sent:
    """One span and one error log line with its trace id."""
    agents = expect.found(config[AGENTS], "settings of the agents", "none")
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    traces, logs = telemetry.otlp(trace, span, time.time_ns())
    statuses = tuple(
        asker.post(loopback(agents.collector.http_port, path), document).status
        for path, document in (("/v1/traces", traces), ("/v1/logs", logs))
    )
    return Sent(trace, (statuses[0], statuses[1]))


@pytest.mark.control(
    id="OB-4.1", severity="critical", title="A trace sent from the host is found within ten seconds, with its tenant"
)
def test_trace_is_found(sent: Sent, asker_on: Callable[[str], Asker], view: FleetView) -> None:
    expect.equal(sent.statuses[0], 200, "answer of the host's collector to a span")
    seconds = telemetry.trace_seconds(view)
    found = telemetry.find_trace(asker_on, view, sent.trace, seconds)
    there = expect.found(found, "the trace", f"nothing within {seconds} s")
    if there.spans is not None:
        expect.equal(there.tenants, {view.telemetry.tenant}, "tenant of the trace")


@pytest.mark.control(
    id="OB-15.1", severity="high", title="An error in the logs leads to its trace, and the trace to it"
)
def test_correlation(
    sent: Sent, asker_on: Callable[[str], Asker], programs_on: Callable[[str], Any], view: FleetView
) -> None:
    expect.equal(sent.statuses[1], 200, "answer of the host's collector to a log line")
    kept = {
        member.host: [
            path for program in programs_on(member.host) if program.role == "gateways" for path in program.directories
        ]
        for member in view.members(GATEWAYS)
    }
    record = telemetry.find_log(asker_on, view, sent.trace, kept)
    line = expect.found(record, "error log with the trace's id", f"nothing within {telemetry.LOG_SECONDS} s")
    named = telemetry.trace_ids_in(line)
    expect.that(sent.trace in named, ", ".join(sorted(named)), sent.trace, "trace ids in the record")
    trace = telemetry.find_trace(asker_on, view, sent.trace, telemetry.trace_seconds(view))
    expect.that(trace is not None, "not found" if trace is None else "found", "found", "the trace that it names")


@pytest.mark.on("agents", RT_GROUP)
@pytest.mark.disruptive
@pytest.mark.control(
    id="OB-4.2", severity="high", title="A task's trace leads through its sequences and actions to the event bus"
)
def test_context_is_carried(
    asker: Asker, asker_on: Callable[[str], Asker], config: HostConfig, view: FleetView
) -> None:
    if config[RT_APP].application.kind != "reference":
        expect.not_applicable("only the reference workload can be asked for a task here")
    task, trace = f"verify-{secrets.token_hex(6)}", secrets.token_hex(16)
    # The caller's decision to sample is followed: flag 01 of the W3C trace context.
    accepted = asker.post(
        loopback(config[RT_APP].rt_process.health_port, "/api/v1/task/start"),
        {"task_id": task, "mode": "once"},
        {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"},
    )
    expect.that(accepted.status in (200, 202), accepted.status, "200 or 202", "answer to the request for a task")
    found = telemetry.find_trace(asker_on, view, trace, 60, required=telemetry.CHAIN)
    spans = expect.found(found, "the task's trace", "not complete within 60 s").spans
    if spans is None:
        expect.not_applicable(f"single spans in {view.telemetry.traces} are not followed here")
    expect.equal(telemetry.chain(spans), telemetry.CHAIN, "from the task to the event bus")
