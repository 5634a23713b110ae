"""Failures on purpose: the real-time process is killed and made to hang."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from roles.host import HostConfig
from roles.rt_app.model import RT_APP, RT_UNIT, UnitSettings
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.look import foreign
from rtinfra.verify.look.answer import json_object
from rtinfra.verify.look.computer import Computer

pytestmark = pytest.mark.disruptive

_LIMITS = project_limits()
_EMULATED_ATTEMPTS = 3
# How long to wait for a process to come back, beyond the times that are set, before calling it lost.
_PATIENCE_S = 180


@dataclass(frozen=True)
class Moment:
    """The real-time process at one moment: `uptime` and `active_since` in seconds since the host's start.

    `clock` is the host's time of day.
    """

    uptime: float
    clock: int
    pid: int
    is_active: bool
    active_since: float
    restarts: int


@dataclass(frozen=True)
class Outage:
    """A failure made on purpose and what became of it. `health` is what the application said of itself."""

    began: float
    before: Moment
    after: Moment
    health_before: dict[str, Any]
    health_after: dict[str, Any]
    checkpoint_before: dict[str, Any]
    journal: str

    @property
    def seconds(self) -> float:
        """From the failure to the moment at which systemd called the process ready again."""
        return self.after.active_since - self.began


def observe(host: Host) -> Moment:
    """Ask systemd about the real-time process."""
    properties = "MainPID,ActiveState,SubState,ActiveEnterTimestampMonotonic,NRestarts"
    command = f"cut -d' ' -f1 /proc/uptime; date +%s; systemctl show -p {properties} {RT_UNIT}"
    uptime, clock, *output = host.check_output(command).splitlines()
    show = dict(line.split("=", 1) for line in output)
    return Moment(
        uptime=float(uptime),
        clock=int(clock),
        pid=int(show["MainPID"]),
        is_active=(show["ActiveState"], show["SubState"]) == ("active", "running"),
        active_since=int(show["ActiveEnterTimestampMonotonic"]) / 1e6,
        restarts=int(show["NRestarts"]),
    )


def await_successor(host: Host, before: Moment, unit: UnitSettings) -> Moment:
    """Wait until another process has taken over; return the last look in any case."""
    deadline = time.monotonic() + 2 * unit.watchdog.seconds + unit.restart_delay.seconds + _PATIENCE_S
    while True:
        moment = observe(host)
        if (moment.is_active and moment.pid != before.pid) or time.monotonic() > deadline:
            return moment
        # Seldom: on a slow host each look takes from the restart the time that is being measured.
        time.sleep(2)


def request(host: Host, port: int, path: str, body: str = "") -> tuple[int, dict[str, Any]]:
    """Ask the process over HTTP, on the host itself; returns milliseconds and the JSON of the answer."""
    # perl-base is on every Debian host, curl is not.
    script = r"""use Socket; my ($port, $path, $body) = @ARGV;
sub now { open my $f, "<", "/proc/uptime"; (split " ", <$f>)[0] }
my $t = now(); alarm 30;
socket(my $s, PF_INET, SOCK_STREAM, 0); connect($s, sockaddr_in($port, INADDR_LOOPBACK)) or die "no connection";
my $verb = length $body ? "POST" : "GET";
syswrite($s, "$verb $path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" .
    "Content-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
my $answer = ""; while (sysread($s, my $part, 65536)) { $answer .= $part }
printf "%d\n%s", (now() - $t) * 1000, $answer =~ s/.*?\r\n\r\n//sr;"""
    output = host.check_output("perl -e %s -- %s %s %s", script, str(port), path, body)
    milliseconds, _, document = output.partition("\n")
    return int(milliseconds), json.loads(document)


def newest_checkpoint(host: Host, directory: str) -> dict[str, Any]:
    """Return the newest checkpoint: what is in the application's folder is its own, and read as its owner."""
    saved = json_object(host.check_output(foreign.newest(directory, "rt_process_")))
    return expect.found(saved or None, "newest checkpoint", "none that can be read")


def make_fail(host: Host, config: HostConfig, fail: Callable[[Moment], float]) -> Outage:
    """Let the process fail and wait for it to come back. `fail` returns when that was, by the host's uptime."""
    app = config[RT_APP]
    port = app.rt_process.health_port
    # Every application has the first one; what it recovered from is said by the reference workload alone.
    page = "/health/details" if app.application.kind == "reference" else "/health"
    # Forget earlier restarts, so that this one is not one too many.
    host.check_output(f"systemctl reset-failed {RT_UNIT}")
    before = observe(host)
    expect.that(before.is_active, "not running", "running", "the real-time process before the failure")
    _, health_before = request(host, port, page)
    saved = newest_checkpoint(host, f"{app.state_dir}/checkpoints")
    began = fail(before)
    after = await_successor(host, before, app.unit)
    expect.that(after.is_active, "not running", "running", "the real-time process after the failure")
    _, health_after = request(host, port, page)
    return Outage(
        began=began,
        before=before,
        after=after,
        health_before=health_before,
        health_after=health_after,
        checkpoint_before=saved,
        journal=host.check_output(f"journalctl -u {RT_UNIT} -o cat --no-pager --since=@{before.clock}"),
    )


@pytest.fixture(scope="module")
def killed(host: Host, config: HostConfig) -> Outage:
    """The real-time process, killed the hard way."""

    def kill(before: Moment) -> float:
        return float(host.check_output(f"cut -d' ' -f1 /proc/uptime; kill -9 {before.pid}"))

    outage = make_fail(host, config, kill)
    # An emulated processor (without KVM) shares the machine's own with everything that runs there. That only ever
    # adds time, so a slow recovery is tried again there, and there alone.
    attempts = _EMULATED_ATTEMPTS if host.run("systemd-detect-virt").stdout.strip() == expect.EMULATED else 1
    while outage.seconds >= _LIMITS.recovery.seconds and attempts > 1:
        outage = make_fail(host, config, kill)
        attempts -= 1
    return outage


@pytest.fixture(scope="module")
def hung(host: Host, config: HostConfig) -> Outage:
    """The real-time process, alive but no longer turning its loop."""
    app = config[RT_APP]
    if app.application.kind != "reference" or not app.reference.faults:
        expect.not_applicable("the application cannot be told to hang (rt_app.reference.faults)")

    def hang(before: Moment) -> float:
        _, answer = request(host, app.rt_process.health_port, "/api/v1/fault", '{"kind": "hang"}')
        expect.entries(answer, {"status": "accepted"}, "answer to the request to hang")
        return observe(host).uptime

    return make_fail(host, config, hang)


@pytest.fixture
def reference(config: HostConfig) -> None:
    """Only the reference workload is known to say these things about itself."""
    if config[RT_APP].application.kind != "reference":
        expect.not_applicable("only the reference workload's /health/details document is known here")


@pytest.mark.control(id="RT-12.10", severity="critical", title="A killed real-time process is back within five seconds")
def test_back_after_kill(killed: Outage, computer: Computer) -> None:
    expect.below_on_a_real_processor(
        killed.seconds, _LIMITS.recovery.seconds, "from the kill until ready again", "s", computer.virtualisation
    )


@pytest.mark.control(id="RT-12.11", severity="high", title="The system counts the restart of a killed process")
def test_restart_counted_by_systemd(killed: Outage) -> None:
    expect.equal(killed.after.restarts, killed.before.restarts + 1, "restarts counted by systemd")


@pytest.mark.control(id="RT-12.12", severity="high", title="The application counts the restart of a killed process")
def test_restart_counted_by_the_application(killed: Outage, reference: None) -> None:
    required = killed.health_before.get("restart_count", 0) + 1
    expect.equal(killed.health_after.get("restart_count"), required, "restart_count in /health/details")


@pytest.mark.control(id="RT-12.13", severity="critical", title="A killed process goes on from its last saved state")
def test_recovered_from_the_checkpoint(killed: Outage, reference: None) -> None:
    recovered = killed.health_after.get("recovered_from") or {}
    saved = killed.checkpoint_before
    expect.that(
        recovered.get("written", "") >= saved["timestamp"],
        recovered.get("written"),
        f"that of {saved['timestamp']} or a later one",
        "saved state it went on from",
    )
    cycles = saved["rt_state"]["cycles_total"]
    expect.at_least(killed.health_after.get("cycles_total", 0), cycles, "cycles over all runs")


@pytest.mark.control(
    id="RT-12.14", severity="high", title="A restarted process answers health checks within half a second"
)
def test_health_after_kill(killed: Outage, host: Host, config: HostConfig, computer: Computer) -> None:
    milliseconds, health = request(host, config[RT_APP].rt_process.health_port, "/health")
    expect.below_on_a_real_processor(
        milliseconds, _LIMITS.health_answer.milliseconds, "answer of /health", "ms", computer.virtualisation
    )
    expect.that(bool(health), "no JSON", "a JSON document", "what /health says")


@pytest.mark.control(id="RT-12.20", severity="critical", title="A hung real-time process is noticed and stopped")
def test_hang_noticed(hung: Outage) -> None:
    expect.that("Watchdog timeout" in hung.journal, hung.journal[-200:], "Watchdog timeout", "systemd's messages")


@pytest.mark.control(id="RT-12.21", severity="critical", title="A hung real-time process is replaced by a new one")
def test_hang_replaced(hung: Outage) -> None:
    expect.that(hung.after.pid != hung.before.pid, "the same process", "a new one", "who runs now")


@pytest.mark.control(
    id="RT-12.22", severity="high", title="A hung process is replaced in the time it takes to notice and to start"
)
def test_hang_duration(hung: Outage, config: HostConfig, computer: Computer) -> None:
    # Fed at least twice a period: what hangs right after a cycle is fed once more for it.
    limit = 1.5 * config[RT_APP].unit.watchdog.seconds + _LIMITS.recovery.seconds
    expect.below_on_a_real_processor(
        hung.seconds, limit, "from the hang until ready again", "s", computer.virtualisation
    )
