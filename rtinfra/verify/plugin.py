"""pytest plugin behind `rtinfra verify`: which hosts, one snapshot each, which controls, and the report.

Hosts are looked at before the first control. One that cannot be reached is one sentence in the report, not a
failure of every control.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import pytest

from roles.composition import Composition, compose
from roles.host import HostConfig
from roles.shape import FleetView
from roles.shared import CPU, RT_GROUP
from roles.stand_ins import stand_in_view
from rtinfra.config import ConfigError, Fleet, FleetHost
from rtinfra.connection import Connections, Unreachable
from rtinfra.cpu import CpuFinding, CpuLayout, resolve_layout
from rtinfra.facts import output_sections
from rtinfra.hosts import HostsError, fleet_in, selected
from rtinfra.passwords import PASSWORDS
from rtinfra.stack_programs import Program, programs_of
from rtinfra.verify import expect, snapshot
from rtinfra.verify.explained import explanations
from rtinfra.verify.questions import questions_of
from rtinfra.verify.report import (
    EXIT_UNUSABLE,
    NOT_A_LATENCY_PROOF,
    SEVERITIES,
    ControlResult,
    HostFacts,
    HostProblem,
    Report,
    Status,
    now,
)
from rtinfra.verify.waivers import WAIVERS, Waiver, load_waivers

# Each is a process of ssh on this computer.
_MOST_AT_A_TIME: Final = 16
_DISRUPTIVE: Final = "disruptive"
_EVERY_HOST: Final = "every_host"
_ON: Final = "on"
_ON_ANY: Final = "on_any"
_NAME: Final = "rtinfra-verification"


@dataclass(frozen=True)
class Control:
    """What the marker of a test says."""

    id: str
    severity: str
    title: str
    area: str


_CONTROL = pytest.StashKey[Control]()
_RECORD = pytest.StashKey[expect.Record]()


@dataclass(frozen=True)
class Subject:
    """A host that was reached: its settings and what was seen of it."""

    host: FleetHost[HostConfig]
    composed: Composition
    """What its roles come to; images and secrets are stand-ins."""
    programs: tuple[Program, ...]
    snapshot: snapshot.Snapshot
    layout: CpuLayout | None
    layout_problems: tuple[str, ...]
    snapshot_seconds: float

    @property
    def view(self) -> FleetView:
        """The fleet as seen from it."""
        return self.composed.view

    @property
    def facts(self) -> HostFacts:
        """The circumstances that belong to every result and measurement."""
        kernel, seen = self.snapshot.kernel, self.snapshot.computer
        return HostFacts(
            kernel=f"{kernel.release} {kernel.version}",
            machine=seen.model or "unknown machine",
            virtualisation=seen.virtualisation,
            config_sha256=self.host.config.sha256,
            snapshot_seconds=self.snapshot_seconds,
            latency=(
                f"Latency on this host is {NOT_A_LATENCY_PROOF}: it is a virtual machine ({seen.virtualisation})."
                if seen.is_virtual
                else "Latency figures of this host hold for it and for the load they were measured under."
            ),
            machine_id_sha256=seen.machine_id_sha256,
            host_key=seen.host_key,
            boot_id=seen.boot_id,
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rtinfra", "verification of hosts")
    group.addoption("--inventory", type=Path, help="inventory file or directory")
    group.addoption("--host", action="append", default=[], dest="verify_hosts", help="only this host")
    group.addoption("--control", action="append", default=[], help="only this control or requirement")
    group.addoption("--disruptive", action="store_true", help="also kill and restart things on the host")
    group.addoption("--report-json", type=Path, help="where to write the report")
    group.addoption("--waivers", type=Path, default=WAIVERS, help="file with the waivers")
    group.addoption("--evidence", type=Path, help="folder for histograms")
    group.addoption("--progress-fd", type=int, help="descriptor for lines that say what is being done")
    group.addoption("--password-fd", type=int, help="descriptor that the password for sudo comes from")
    group.addoption("--latency-seconds", type=int, default=10, help="how long latency is measured")


def register_markers(config: pytest.Config) -> None:
    """Make the markers known that say which hosts a control is for."""
    config.addinivalue_line("markers", f"{_EVERY_HOST}: a control for hosts that are not real-time too")
    config.addinivalue_line("markers", f"{_ON}(*groups): a control for the hosts that are in all of these groups")
    config.addinivalue_line("markers", f"{_ON_ANY}(*groups): a control for the hosts that are in one of these groups")


def pytest_configure(config: pytest.Config) -> None:
    register_markers(config)
    if config.option.inventory is not None:
        config.pluginmanager.register(Verification(config), _NAME)


@pytest.fixture(scope="session")
def subject_name() -> str:
    """Name of the host under test; `Verification` parametrises it."""
    raise pytest.UsageError("say which hosts: --inventory FILE (or use `rtinfra verify`)")


@pytest.fixture(scope="session")
def verification(request: pytest.FixtureRequest) -> object:
    """The run as a whole."""
    return request.config.pluginmanager.get_plugin(_NAME)


def control_of(item: pytest.Item) -> Control | None:
    """Return what the control marker of a test says; None for a test that is no control.

    Raises:
        pytest.UsageError: the marker is incomplete.
    """
    marker = item.get_closest_marker("control")
    if marker is None:
        return None
    missing = {"id", "severity", "title"} - marker.kwargs.keys()
    if missing or marker.kwargs["severity"] not in SEVERITIES:
        wrong = f"lacks {', '.join(sorted(missing))}" if missing else f"severity is not one of {SEVERITIES}"
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.control {wrong}")
    doc = getattr(getattr(item, "module", None), "__doc__", None) or item.path.stem
    return Control(**marker.kwargs, area=doc.strip().splitlines()[0].rstrip("."))


def is_for(item: pytest.Item, groups: Collection[str]) -> bool:
    """Tell whether a test is for a host that is in these groups; without a marker it is for real-time hosts."""
    # The marker nearest to the test counts: one function of a file may narrow what the file says.
    for mark in item.iter_markers():
        if mark.name == _EVERY_HOST:
            return True
        if mark.name == _ON:
            return set(mark.args) <= set(groups)
        if mark.name == _ON_ANY:
            return bool(set(mark.args) & set(groups))
    return RT_GROUP in groups


def is_selected(control_id: str, names: list[str]) -> bool:
    """Tell whether a control is chosen, by its id or its requirement (`RT-10`); no names choose all."""
    return not names or any(control_id == name or control_id.startswith(f"{name}.") for name in names)


class Verification:
    """One run: registered only when an inventory is given, so that collecting works without one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._option = config.option
        self._started = now()
        self._clock = time.monotonic()
        try:
            self._fleet = fleet_in(self._option.inventory)
            self._hosts = selected(self._fleet, self._option.verify_hosts)
            self._waivers = load_waivers(self._option.waivers)
        except (HostsError, ConfigError) as error:
            raise pytest.UsageError(str(error)) from error
        if self._option.password_fd is not None:
            with os.fdopen(self._option.password_fd, encoding="utf-8") as typed:
                if answer := typed.read():
                    PASSWORDS.take(answer)
        # Of every host: a control follows what it sends to wherever that is kept.
        self.connections = Connections(self._fleet.hosts.values())
        self._subjects: dict[str, Subject] = {}
        self._results: list[ControlResult] = []
        self._problems: list[HostProblem] = []
        self._notes: list[str] = []
        self._not_run = 0

    def subject(self, name: str) -> Subject:
        """Return a host that was reached."""
        return self._subjects[name]

    def programs_on(self, name: str) -> tuple[Program, ...]:
        """Return the telemetry programs of any host of the inventory."""
        return programs_of(self._fleet, self._fleet.hosts[name])

    # --- which controls on which hosts

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrise every test that takes a host with the hosts it is for."""
        if "subject_name" not in metafunc.fixturenames:
            return
        names = [name for name, host in self._hosts.items() if is_for(metafunc.definition, host.groups)]
        metafunc.parametrize("subject_name", names, scope="session")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep what was asked for, then look at the hosts that are left."""
        selected = []
        self._check_waivers({control.id for item in items if (control := control_of(item))})
        for item in items:
            control = control_of(item)
            if control is None or _host_name(item) is None:
                continue  # a test for hosts of a group that has none
            if not is_selected(control.id, self._option.control):
                continue
            if item.get_closest_marker(_DISRUPTIVE) and not self._option.disruptive:
                self._not_run += 1
                continue
            item.stash[_CONTROL] = control
            selected.append(item)
        if not config.option.collectonly:
            self._look_at({name for item in selected if (name := _host_name(item))})
            selected = [item for item in selected if _host_name(item) in self._subjects]
        # What disturbs the host comes last, when everything else has been seen undisturbed.
        selected.sort(key=lambda item: item.get_closest_marker(_DISRUPTIVE) is not None)
        items[:] = selected

    def _check_waivers(self, controls: set[str]) -> None:
        try:
            self._waivers.check(self._fleet.hosts, controls)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error

    def _look_at(self, names: set[str]) -> None:
        """Look at all hosts at the same time: what takes long is that they answer."""
        hosts = [host for name, host in self._hosts.items() if name in names]
        with ThreadPoolExecutor(_MOST_AT_A_TIME) as pool:
            for host, found in zip(hosts, pool.map(self._looked, hosts), strict=True):
                if isinstance(found, Subject):
                    self._subjects[host.name] = found
                else:
                    self._problems.append(found)

    def _looked(self, host: FleetHost[HostConfig]) -> Subject | HostProblem:
        self._tell(f"looking at {host.name}")
        try:
            return look(self._fleet, host, self.connections)
        except (Unreachable, ValueError) as error:
            return HostProblem(host.name, str(error))

    # --- what became of them

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Record the comparisons of a control, those of its fixtures included."""
        control = item.stash[_CONTROL]
        self._tell(f"{control.id} {control.title}")
        item.user_properties += [
            ("control", control.id),
            ("severity", control.severity),
            ("host", _host_name(item) or ""),
        ]
        with expect.recording() as record:
            item.stash[_RECORD] = record
            outcome = yield
        return outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn the outcome of a control into a result."""
        outcome = yield
        # A control ends with its call, or with a set-up that did not get there.
        if call.when == "call" or (call.when == "setup" and not outcome.passed):
            found = _result(item, call, outcome)
            if waiver := self._waivers.of(found.control, found.host):
                found = self._waived(found, waiver)
            if found.status == Status.WAIVED:
                # So that pytest, and whoever reads its JUnit file, do not count it as failed either.
                outcome.outcome = "skipped"
                outcome.longrepr = (str(item.path), 0, found.note)
            self._results.append(found)
        return outcome

    def _waived(self, found: ControlResult, waiver: Waiver) -> ControlResult:
        """Return what a result is in the light of its waiver; one that is not needed is noted."""
        if found.status != Status.FAIL:
            self._notes.append(
                f"{self._waivers.place(waiver)}: the waiver of {found.control} on {found.host} is not needed: "
                f"the control ended with {found.status}. Remove it."
            )
            return found
        said = f"{waiver.owner}: {waiver.reason}"
        if waiver.has_expired(date.today()):
            note = (
                f"its waiver ({self._waivers.place(waiver)}) expired on {waiver.expires} ({said}): mend it, or have "
                "the waiver renewed by its owner"
            )
            return replace(found, note=note)
        return replace(found, status=Status.WAIVED, note=f"waived until {waiver.expires} by {said}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report; a run that proved nothing is no success."""
        self.connections.close()
        report = self._report()
        if session.config.option.collectonly or session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        if report.exit_code == EXIT_UNUSABLE:
            session.exitstatus = pytest.ExitCode.INTERRUPTED
        if self._option.report_json is not None:
            report.write(self._option.report_json)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what could not be verified at all."""
        for problem in self._problems:
            terminalreporter.write_line(f"{problem.host}: {problem.message}", red=True)
        terminalreporter.write_line(self._report().summary)

    def _report(self) -> Report:
        return Report(
            started=self._started,
            inventory=str(self._option.inventory),
            disruptive=self._option.disruptive,
            results=tuple(self._results),
            hosts={
                name: replace(subject.facts, round_trips=self.connections.round_trips(name))
                for name, subject in self._subjects.items()
            },
            problems=tuple(self._problems),
            notes=tuple(self._notes),
            not_run=self._not_run,
            duration=time.monotonic() - self._clock,
        )

    def _tell(self, what: str) -> None:
        if self._option.progress_fd is not None:
            os.write(self._option.progress_fd, f"{what}\n".encode())


def look(fleet: Fleet[HostConfig], host: FleetHost[HostConfig], connections: Connections) -> Subject:
    """Take the snapshot of one host and expand its CPU lists against what is really there.

    Raises:
        Unreachable: there is no connection.
        ValueError: settings that a role cannot work with; as SnapshotError: it did not answer as a Linux host does.
    """
    started = time.monotonic()
    # What programs and files say is printed raw: with a marker that they cannot know they cannot forge a section.
    asked = replace(questions_of(fleet, host), marker=output_sections.unguessable_marker())
    seen = snapshot.parse(connections.feed(host.name, snapshot.script(asked)).text, asked.marker)
    layout: CpuLayout | None = None
    findings: list[CpuFinding] = []
    if (cpu := host.config.get(CPU)) is not None:
        layout, findings = resolve_layout(cpu.isolated, cpu.housekeeping, seen.computer.state.topology)
    return Subject(
        host=host,
        composed=compose(stand_in_view(fleet, host, seen.computer.state.distribution)),
        programs=asked.programs,
        snapshot=seen,
        layout=layout,
        layout_problems=tuple(
            f"{found.key} = {found.value}: {found.reason}" for found in findings if found.severity == "error"
        ),
        snapshot_seconds=round(time.monotonic() - started, 2),
    )


def _host_name(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("subject_name") if callspec else None
    return name if isinstance(name, str) else None


def _result(item: pytest.Item, call: pytest.CallInfo[None], outcome: pytest.TestReport) -> ControlResult:
    control, record = item.stash[_CONTROL], item.stash[_RECORD]
    status, note = Status.PASS, ""
    observations = record.observations
    if outcome.skipped:
        status, note = Status.NOT_APPLICABLE, str(call.excinfo.value) if call.excinfo else ""
        observations = []
    elif outcome.failed:
        status = Status.FAIL
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, expect.Mismatch):
            observations = [error.observation]
        else:
            observations, note = [], f"the check itself failed: {type(error).__name__}: {error}"
    elif record.measured is not None:
        status, note = Status.MEASURED, record.measured
    return ControlResult(
        host=_host_name(item) or "",
        control=control.id,
        area=control.area,
        severity=control.severity,  # type: ignore[arg-type]  # control_of has looked at it
        title=control.title,
        status=status,
        expected="; ".join(f"{seen.what}: {seen.expected}" for seen in observations),
        actual="; ".join(f"{seen.what}: {seen.actual}" for seen in observations),
        note=note,
        duration=round(call.duration, 3),
        **asdict(explanations().of(control.id)),
    )
