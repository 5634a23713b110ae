"""The preflight: the host says by itself whether it is ready for live operation."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from roles.agents.role import NODE_EXPORTER_UNIT
from roles.host import HostConfig
from roles.preflight.model import PREFLIGHT, PreflightSettings
from roles.preflight.role import ACCOUNT, SERVICE, TIMER
from roles.shared import AGENTS_SLICE, RT_GROUP, TELEMETRY, TEXTFILE_DIRECTORY
from rtinfra.cpu import CpuLayout, parse_cpu_list
from rtinfra.limits import project_limits
from rtinfra.preflight.settings import CONFIGURATION
from rtinfra.stack_programs import Program
from rtinfra.verify import expect
from rtinfra.verify.look.answers import Answers, Sample, samples
from rtinfra.verify.look.private_files import PrivateFiles
from rtinfra.verify.look.units import Units

pytestmark = pytest.mark.on("preflight")

_LIMITS = project_limits()
_TEXTFILE = f"{TEXTFILE_DIRECTORY}/rtinfra_preflight.prom"
_METRICS = (
    *("runs_total", "last_success", "duration_seconds_count", "checks_total", "ready_for_live"),
    *("realcheck_redis_latency_seconds_count", "realcheck_postgres_latency_seconds_count"),
)


@pytest.fixture
def settings(config: HostConfig) -> PreflightSettings:
    """Settings of the preflight."""
    return expect.found(config[PREFLIGHT], "settings of the preflight", "none")


@pytest.fixture
def environment(settings: PreflightSettings, config: HostConfig) -> str:
    """What the metrics of this host are labelled with."""
    return settings.environment_in(config[TELEMETRY].environment)


@pytest.fixture
def exposed(answers: Answers, programs: tuple[Program, ...]) -> tuple[Sample, ...]:
    """What node_exporter shows."""
    url = next((program.ready for program in programs if program.unit == NODE_EXPORTER_UNIT), None)
    answer = answers.last(expect.found(url, "address of the host's metrics", "none"))
    expect.equal(answer.status, 200, f"HTTP status of {answer.url}")
    return tuple(samples(answer))


def _one(exposed: tuple[Sample, ...], name: str, labels: Mapping[str, str]) -> float:
    found = [one.value for one in exposed if one.name == name and labels.items() <= one.labels.items()]
    return expect.found(found[0] if found else None, f"{name} {dict(labels)}", "not shown")


@pytest.mark.control(id="PF-1.1", severity="critical", title="The host itself says that it is ready for live operation")
def test_ready_for_live(exposed: tuple[Sample, ...], settings: PreflightSettings, environment: str) -> None:
    name = f"{settings.namespace}_preflight_ready_for_live"
    expect.equal(_one(exposed, name, {"env": environment}), 1.0, name)


@pytest.mark.control(id="PF-2.1", severity="high", title="All seven measurements of the preflight are published")
def test_seven_metrics(exposed: tuple[Sample, ...], settings: PreflightSettings) -> None:
    required = {f"{settings.namespace}_preflight_{name}" for name in _METRICS}
    expect.nothing(sorted(required - {one.name for one in exposed}), "metrics that are missing")


@pytest.mark.control(id="PF-2.2", severity="medium", title="Measurements name their environment in one plain word")
def test_environment_label(exposed: tuple[Sample, ...], settings: PreflightSettings, environment: str) -> None:
    mine = [one for one in exposed if one.name.startswith(f"{settings.namespace}_preflight_")]
    found = {one.labels.get("env", "") for one in mine}
    expect.nothing(sorted(found - {"paper", "staging", "prod"}), "other values of env")
    expect.that(environment in found, found, f"with {environment}", "values of env")


@pytest.mark.control(id="PF-4.1", severity="medium", title="What every check found is kept on the host")
def test_evidence(private_files: PrivateFiles, settings: PreflightSettings) -> None:
    directory = f"{settings.state_directory}/evidence/"
    kept = [path for path in private_files.access if path.startswith(directory) and path.endswith(".json")]
    expect.at_least(len(kept), 1, "runs kept")
    expect.that(len(kept) <= settings.evidence.keep, len(kept), f"at most {settings.evidence.keep}", "runs kept")


@pytest.mark.control(id="PF-5.1", severity="critical", title="The preflight runs by itself, now and after a restart")
def test_timer(units: Units) -> None:
    expect.entries(units.of(TIMER), {"ActiveState": "active", "UnitFileState": "enabled"}, TIMER)


@pytest.mark.control(id="PF-5.2", severity="high", title="The last preflight was not long ago")
def test_recent(exposed: tuple[Sample, ...], settings: PreflightSettings) -> None:
    written = _one(exposed, "node_textfile_mtime_seconds", {"file": _TEXTFILE})
    age = _one(exposed, "node_time_seconds", {}) - written
    expect.below(age, 3 * settings.interval.seconds, "age of the last preflight", "s")


@pytest.mark.control(id="PF-5.3", severity="medium", title="The preflight can do nothing but look")
def test_exposure(units: Units) -> None:
    score = units.exposure.get(SERVICE)
    holds = score is not None and score <= _LIMITS.unit_exposure
    expect.that(holds, score, f"at most {_LIMITS.unit_exposure}", f"exposure of {SERVICE} (systemd-analyze security)")


@pytest.mark.control(id="PF-5.4", severity="high", title="The preflight runs within the bounds of all agents")
def test_slice(units: Units) -> None:
    expect.entries(units.of(SERVICE), {"Slice": AGENTS_SLICE}, SERVICE)


@pytest.mark.on("preflight", RT_GROUP)
@pytest.mark.control(id="PF-5.5", severity="critical", title="The preflight never runs on a real-time core")
def test_cores(units: Units, layout: CpuLayout) -> None:
    allowed = units.of(SERVICE).get("AllowedCPUs", "").replace(" ", ",")
    cores = parse_cpu_list(allowed, None) if allowed else frozenset()
    expect.equal(cores, layout.housekeeping, f"cores of {SERVICE}")


@pytest.mark.control(id="OF-2.1", severity="critical", title="Passwords of the preflight can be read by it alone")
def test_private(private_files: PrivateFiles) -> None:
    secrets = {path: text for path, text in private_files.access.items() if path.startswith(f"{CONFIGURATION}/")}
    expect.at_least(len(secrets), 1, "files of the preflight")
    # Root writes into the folder: in one of its own the account could lay a link in root's way.
    required = {path: "750 root" if path == f"{CONFIGURATION}/secrets" else f"600 {ACCOUNT}" for path in secrets}
    others = [f"{path}: {text}" for path, text in secrets.items() if text != required[path]]
    expect.nothing(others, "files that others can read or own")
