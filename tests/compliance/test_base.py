"""Basics of every host: time, logs, users."""

import pytest

from roles.host import HostConfig
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.probe import CHRONY, LOGROTATE, OTHER_CLOCK_UNITS
from rtinfra.verify.snapshot import Login, Snapshot

pytestmark = pytest.mark.every_host

_LIMITS = project_limits()


@pytest.fixture
def login(snapshot: Snapshot, config: HostConfig) -> Login:
    """A new login of a member of the real-time group."""
    if config.rt_app is None and not config.base.realtime_members:
        expect.not_applicable(f"the group {config.base.realtime_group} has no members on this host")
    return expect.found(snapshot.login, "new login of a member", "it is refused")


@pytest.mark.control(id="RT-1.20", severity="high", title="The host has finished starting and nothing failed")
def test_system_is_running(snapshot: Snapshot) -> None:
    expect.equal(snapshot.system_state, "running", "state of the system")


@pytest.mark.control(id="RT-1.21", severity="high", title="No service has failed")
def test_no_failed_units(snapshot: Snapshot) -> None:
    expect.nothing(snapshot.failed_units, "failed services")


@pytest.mark.control(id="RT-1.22", severity="high", title="All software the settings name is installed completely")
def test_packages(snapshot: Snapshot, config: HostConfig) -> None:
    named = list(config.base.packages)
    if config.rt_tuning is not None and config.rt_app is not None:
        named += [*config.rt_tuning.packages, *config.rt_app.application.packages]
    expect.entries(snapshot.packages, dict.fromkeys(named, "installed"), "packages")


@pytest.mark.control(id="RT-1.23", severity="medium", title="No software installation was interrupted half-way")
def test_no_unfinished_packages(snapshot: Snapshot) -> None:
    expect.equal(snapshot.state.has_unfinished_packages, False, "dpkg has unfinished packages")


@pytest.mark.control(id="RT-1.24", severity="high", title="The clock is kept by chrony, now and after a restart")
def test_chrony(snapshot: Snapshot) -> None:
    wanted = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(snapshot.unit(CHRONY), wanted, "chrony")


@pytest.mark.control(id="RT-1.25", severity="high", title="No second program sets the clock")
def test_single_clock_program(snapshot: Snapshot) -> None:
    others = (unit for unit in OTHER_CLOCK_UNITS if snapshot.unit(unit).get("ActiveState") == "active")
    expect.nothing(others, "other programs that set the clock")


@pytest.mark.control(id="RT-1.26", severity="medium", title="The competing time service cannot start by accident")
def test_timesyncd_masked(snapshot: Snapshot) -> None:
    state = snapshot.unit("systemd-timesyncd.service").get("LoadState")
    expect.that(state in ("masked", "not-found"), state, "masked or not-found", "systemd-timesyncd")


@pytest.mark.control(id="RT-1.27", severity="high", title="The clock is synchronised and right")
def test_clock_offset(snapshot: Snapshot) -> None:
    # Columns of `chronyc -c tracking`: 5 is the remaining offset in seconds, the last one the leap status.
    tracking = snapshot.clock_tracking
    synchronised = len(tracking) > 4 and tracking[-1] != "Not synchronised"
    expect.that(synchronised, tracking[-1] if tracking else "chrony does not answer", "Normal", "clock")
    expect.below(abs(float(tracking[4])) * 1000, _LIMITS.clock_offset.milliseconds, "offset of the clock", "ms")


@pytest.mark.control(id="RT-1.28", severity="high", title="The system log survives a restart and a power cut")
def test_journal_is_persistent(snapshot: Snapshot) -> None:
    in_use = bool(snapshot.journal_file) and "MAX_USE" in snapshot.journal_usage
    expect.that(in_use, snapshot.journal_file or "memory only", "/var/log/journal", "the journal is kept in")


@pytest.mark.control(id="RT-1.29", severity="medium", title="The system log cannot fill the disk")
def test_journal_limits(snapshot: Snapshot, config: HostConfig) -> None:
    journal = config.base.journal
    limits = {"MAX_USE": journal.max_use.bytes, "DISK_KEEP_FREE": journal.keep_free.bytes}
    expect.entries(snapshot.journal_usage, limits, "bounds journald works with, in bytes")


@pytest.mark.control(id="RT-1.30", severity="medium", title="Log files are rotated regularly")
def test_logrotate_timer(snapshot: Snapshot) -> None:
    wanted = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(snapshot.unit(LOGROTATE), wanted, "logrotate")


@pytest.mark.control(id="RT-1.31", severity="medium", title="The rules for rotating log files have no errors")
def test_logrotate_configuration(snapshot: Snapshot) -> None:
    program, *messages = expect.found(snapshot.logrotate_messages or None, "logrotate", "not installed")
    expect.nothing((line for line in messages if line.startswith("error")), f"errors that {program} reports")


@pytest.mark.control(id="RT-1.32", severity="medium", title="The group of real-time users exists")
def test_realtime_group(snapshot: Snapshot) -> None:
    expect.equal(snapshot.group_exists, True, "the group exists")


@pytest.mark.control(
    id="RT-1.33", severity="high", title="The application's user is a real-time user in every new login"
)
def test_login_is_in_the_group(login: Login, config: HostConfig) -> None:
    group = config.base.realtime_group
    expect.that(group in login.groups, " ".join(login.groups), group, "groups in a new login")


@pytest.mark.control(id="RT-1.34", severity="high", title="Real-time users may use the highest priorities")
def test_login_priority(login: Login) -> None:
    expect.entries(login.limits, {"realtime priority": "99"}, "limits in a new login")


@pytest.mark.control(id="RT-1.35", severity="high", title="Real-time users may keep all their memory in RAM")
def test_login_memory_lock(login: Login) -> None:
    expect.entries(login.limits, {"locked memory": "unlimited"}, "limits in a new login")
