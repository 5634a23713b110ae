"""Basics of every host: time, logs, users."""

import pytest

from roles.base.model import BASE
from roles.host import HostConfig
from roles.rt_app.model import RT_APP
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.look.clock import Clock
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.logins import Login, Logins
from rtinfra.verify.look.logs import Logs
from rtinfra.verify.look.packages import Packages
from rtinfra.verify.look.threads import Threads
from rtinfra.verify.look.units import Units
from rtinfra.verify.plugin import Subject
from rtinfra.verify.questions import CHRONY, LOGROTATE, TIMESYNCD

pytestmark = pytest.mark.every_host

_LIMITS = project_limits()


@pytest.fixture
def login(logins: Logins, config: HostConfig) -> Login:
    """A new login of a member of the real-time group."""
    if config.get(RT_APP) is None and not config[BASE].realtime_members:
        expect.not_applicable(f"the group {config[BASE].realtime_group} has no members on this host")
    return expect.found(logins.member, "new login of a member", "it is refused")


@pytest.fixture
def required(subject: Subject) -> tuple[str, ...]:
    """Names of all packages that the deploy installs on a host of its distribution."""
    composed = subject.composed
    local = (package.name for package in composed.local_packages)
    # `name/suite` says where a package comes from.
    return tuple(dict.fromkeys([*(name.partition("/")[0] for name in composed.packages), *local]))


@pytest.mark.control(id="RT-1.20", severity="high", title="The host has finished starting and nothing failed")
def test_system_is_running(units: Units) -> None:
    expect.equal(units.system_state, "running", "state of the system")


@pytest.mark.control(id="RT-1.21", severity="high", title="No service has failed")
def test_no_failed_units(units: Units) -> None:
    expect.nothing(units.failed, "failed services")


@pytest.mark.control(id="RT-1.22", severity="high", title="All software the settings name is installed completely")
def test_packages(packages: Packages, required: tuple[str, ...]) -> None:
    states = {name: packages.state(name) for name in required}
    expect.entries(states, dict.fromkeys(required, "installed"), "packages")


@pytest.mark.control(id="RT-1.23", severity="medium", title="No software installation was interrupted half-way")
def test_no_unfinished_packages(computer: Computer) -> None:
    expect.equal(computer.state.has_unfinished_packages, False, "dpkg has unfinished packages")


@pytest.mark.control(id="RT-1.24", severity="high", title="The clock is kept by chrony, now and after a restart")
def test_chrony(units: Units) -> None:
    required = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(units.of(CHRONY), required, "chrony")


@pytest.mark.control(id="RT-1.25", severity="high", title="No second program sets the clock")
def test_single_clock_program(clock: Clock, threads: Threads) -> None:
    chrony = {thread.pid for thread in threads.of(CHRONY)}
    # By what they do: a list of names would miss phc2sys, timemaster, or a hypervisor's agent.
    others = (keeper for keeper in clock.keepers if keeper.pid not in chrony and keeper.keeps_the_hosts)
    expect.nothing(
        (f"{keeper.command} (process {keeper.pid})" for keeper in others), "other programs that set the clock"
    )


@pytest.mark.control(id="RT-1.26", severity="medium", title="The competing time service cannot start by accident")
def test_timesyncd_masked(units: Units) -> None:
    state = units.of(TIMESYNCD).get("LoadState")
    expect.that(state in ("masked", "not-found"), state, "masked or not-found", "systemd-timesyncd")


@pytest.mark.control(id="RT-1.27", severity="high", title="The clock is synchronised and right")
def test_clock_offset(clock: Clock) -> None:
    expect.that(clock.is_synchronised, clock.leap_status, "Normal", "clock")
    expect.below(abs(clock.offset_seconds) * 1000, _LIMITS.clock_offset.milliseconds, "offset of the clock", "ms")


@pytest.mark.control(id="RT-1.28", severity="high", title="The system log survives a restart and a power cut")
def test_journal_is_persistent(logs: Logs) -> None:
    in_use = bool(logs.journal_file) and "MAX_USE" in logs.journal_usage
    expect.that(in_use, logs.journal_file or "memory only", "/var/log/journal", "the journal is kept in")


@pytest.mark.control(id="RT-1.29", severity="medium", title="The system log cannot fill the disk")
def test_journal_limits(logs: Logs, config: HostConfig) -> None:
    journal = config[BASE].journal
    limits = {"MAX_USE": journal.max_use.bytes, "DISK_KEEP_FREE": journal.keep_free.bytes}
    expect.entries(logs.journal_usage, limits, "bounds journald works with, in bytes")


@pytest.mark.control(id="RT-1.30", severity="medium", title="Log files are rotated regularly")
def test_logrotate_timer(units: Units) -> None:
    required = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(units.of(LOGROTATE), required, "logrotate")


@pytest.mark.control(id="RT-1.31", severity="medium", title="The rules for rotating log files have no errors")
def test_logrotate_configuration(logs: Logs) -> None:
    program, *messages = expect.found(logs.logrotate or None, "logrotate", "not installed")
    expect.nothing((line for line in messages if line.startswith("error")), f"errors that {program} reports")


@pytest.mark.control(id="RT-1.32", severity="medium", title="The group of real-time users exists")
def test_realtime_group(logins: Logins) -> None:
    expect.equal(logins.group_exists, True, "the group exists")


@pytest.mark.control(
    id="RT-1.33", severity="high", title="The application's user is a real-time user in every new login"
)
def test_login_is_in_the_group(login: Login, config: HostConfig) -> None:
    group = config[BASE].realtime_group
    expect.that(group in login.groups, " ".join(login.groups), group, "groups in a new login")


@pytest.mark.control(id="RT-1.34", severity="high", title="Real-time users may use the highest priorities")
def test_login_priority(login: Login) -> None:
    expect.entries(login.limits, {"realtime priority": "99"}, "limits in a new login")


@pytest.mark.control(id="RT-1.35", severity="high", title="Real-time users may keep all their memory in RAM")
def test_login_memory_lock(login: Login) -> None:
    expect.entries(login.limits, {"locked memory": "unlimited"}, "limits in a new login")
