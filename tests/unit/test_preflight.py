"""The parts of the preflight that need no server: counts, verdicts, checks of files and variables."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from rtinfra.metric_catalogue import exposed, load_catalogue
from rtinfra.preflight import counts
from rtinfra.preflight.check import Check, Context, Result, Status, timed
from rtinfra.preflight.checks import all_checks, realtime
from rtinfra.preflight.evidence import name_of, prune, write_json
from rtinfra.preflight.parallel import Outcome, run_checks
from rtinfra.preflight.settings import CheckSettings, RealtimeSettings
from rtinfra.preflight.verdict import Report
from rtinfra.secrets import LocalSecrets, SecretError

REDIS = Check("redis", lambda _: Result(Status.PASS, ""), histogram="realcheck_redis_latency_seconds")


class NoSecrets:
    def get(self, name: str) -> SecretStr:
        raise SecretError(f"the secret {name} is not defined", "define it")


def context(environment: Any = "paper", timeout: float = 2.0, **more: Any) -> Context:
    return Context(environment, timeout, more.get("secrets", NoSecrets()), more.get("variables", {}))


def report(*statuses: Status, environment: Any = "paper", seconds: float = 0.02, latency: float = 0.004) -> Report:
    outcomes = tuple(Outcome(REDIS, Result(status, "said", latency=latency), seconds) for status in statuses)
    started = datetime(2026, 11, 20, 12, tzinfo=UTC)
    return Report("run1", "robot-1", environment, started, seconds, "0" * 64, outcomes)


def settings(**changes: Any) -> CheckSettings:
    return CheckSettings.model_validate(
        {
            "variables": [],
            "required_secrets": [],
            "guards": [],
            "redis": None,
            "postgres": None,
            "apis": [],
            "application": {"url": None, "command": [], "slow": "1s"},
            "deployed_tree": None,
            "realtime": None,
        }
        | changes
    )


def result(chosen: CheckSettings, given_context: Context) -> Result:
    (check,) = all_checks(chosen)
    return check.run(given_context)


# ---- verdict ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "code", "ready"),
    [
        ([Status.PASS, Status.PASS], 0, True),
        ([Status.PASS, Status.WARN], 1, True),
        ([Status.WARN, Status.FAIL, Status.PASS], 2, False),
        ([], 0, True),
    ],
)
def test_the_worst_outcome_is_the_verdict(statuses: list[Status], code: int, ready: bool) -> None:
    found = report(*statuses)
    assert (found.exit_code, found.ready_for_live) == (code, ready)
    assert found.to_json()["exit_code"] == code


def test_the_table_says_what_to_do() -> None:
    failed = Outcome(REDIS, Result(Status.FAIL, "no answer", "start it"), 0.1)
    lines = Report("r", "robot-1", "prod", datetime.now(UTC), 0.1, "", (failed,)).table().splitlines()
    assert lines[0] == "FAIL  redis  no answer"
    assert lines[1].strip() == "-> start it"
    assert lines[-1] == "Ready for live: NO"


def test_an_answer_is_slow_only_beyond_the_limit() -> None:
    assert timed("it", 0.05, 0.05, "look").status is Status.PASS
    slow = timed("it", 0.051, 0.05, "look")
    assert (slow.status, slow.next_step) == (Status.WARN, "look")


# ---- runner -----------------------------------------------------------------------------------------------


def test_checks_run_at_the_same_time() -> None:
    barrier = threading.Barrier(5, timeout=5)

    def meet(_: Context) -> Result:
        barrier.wait()
        return Result(Status.PASS, "met")

    found = run_checks([Check(f"c{number}", meet) for number in range(5)], context())
    assert [outcome.check.name for outcome in found] == ["c0", "c1", "c2", "c3", "c4"]
    assert {outcome.result.status for outcome in found} == {Status.PASS}


def test_one_that_hangs_fails_alone() -> None:
    end = threading.Event()
    checks = [
        Check("hangs", lambda _: Result(Status.PASS, str(end.wait(30)))),
        Check("well", lambda _: Result(Status.PASS, "")),
    ]
    start = time.monotonic()
    hangs, well = run_checks(checks, context(timeout=0.1))
    assert time.monotonic() - start < 2
    end.set()
    assert (hangs.result.status, well.result.status) == (Status.FAIL, Status.PASS)
    assert hangs.result.message == "no answer within 0.1 s"


def test_a_check_that_breaks_fails_without_showing_what_it_held() -> None:
    def breaks(_: Context) -> Result:
        raise RuntimeError("hunter2")

    (found,) = run_checks([Check("breaks", breaks)], context())
    assert found.result.status is Status.FAIL
    assert "RuntimeError" in found.result.message and "hunter2" not in str(found)


def test_a_library_that_is_missing_is_said() -> None:
    (found,) = run_checks([Check("x", lambda _: Result(Status.PASS, ""), ("no_such_module",))], context())
    assert found.result.status is Status.FAIL
    assert "no_such_module" in found.result.message


# ---- metrics ----------------------------------------------------------------------------------------------


def values(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_counts_survive_between_runs_and_environments_do_not_mix(tmp_path: Path) -> None:
    state, textfile = tmp_path / "metrics.json", tmp_path / "x.prom"
    counts.record(report(Status.PASS), state, [textfile], "rtinfra")
    counts.record(report(Status.FAIL), state, [textfile], "rtinfra")
    counts.record(report(Status.PASS, environment="prod"), state, [textfile], "rtinfra")
    found = values(textfile.read_text())
    assert found['rtinfra_preflight_runs_total{env="paper"}'] == 2
    assert found['rtinfra_preflight_runs_total{env="prod"}'] == 1
    assert found['rtinfra_preflight_checks_total{check="redis",env="paper",status="fail"}'] == 1
    assert found['rtinfra_preflight_ready_for_live{env="paper"}'] == 0
    # The failure leaves the last success where it was.
    assert found['rtinfra_preflight_last_success{env="paper"}'] == pytest.approx(1795176000.02, abs=1)
    assert found['rtinfra_preflight_realcheck_redis_latency_seconds_bucket{env="paper",le="0.005"}'] == 2
    assert textfile.stat().st_mode & 0o777 == 0o644


def test_names_and_kinds_are_those_of_the_catalogue(tmp_path: Path) -> None:
    text = counts.record(report(Status.PASS), tmp_path / "metrics.json", [], "rtinfra")
    catalogue = {metric.name: metric.kind for metric in load_catalogue().values() if metric.program == "preflight"}
    assert exposed(text) == catalogue and len(catalogue) == 7


def test_another_namespace(tmp_path: Path) -> None:
    text = counts.record(report(Status.PASS), tmp_path / "metrics.json", [], "mxrc")
    assert 'mxrc_preflight_runs_total{env="paper"} 1' in text and "rtinfra" not in text


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", '{"version": 2, "environments": {}}', '{"version": 1, "environments": {"paper": {"runs": 1}}}'],
)
def test_a_damaged_state_is_put_aside_and_counting_begins_again(tmp_path: Path, damaged: str) -> None:
    state = tmp_path / "metrics.json"
    state.write_text(damaged)
    found = values(counts.record(report(Status.PASS), state, [], "rtinfra"))
    assert found['rtinfra_preflight_runs_total{env="paper"}'] == 1
    (aside,) = tmp_path.glob("metrics.json.damaged-*")
    assert aside.read_text() == damaged
    assert json.loads(state.read_text())["version"] == 1


@given(st.lists(st.floats(min_value=0, max_value=100, allow_nan=False), max_size=30))
def test_a_histogram_counts_every_value_in_the_right_place(seconds: list[float]) -> None:
    kept = counts.Counts()
    for value in seconds:
        kept.add(report(Status.PASS, seconds=value))
    found = values(counts.exposition(kept, "n"))
    for bound in counts.BUCKETS["duration_seconds"] if seconds else ():
        expected = sum(value <= bound for value in seconds)
        assert found[f'n_preflight_duration_seconds_bucket{{env="paper",le="{bound}"}}'] == expected
    if seconds:
        assert found['n_preflight_duration_seconds_bucket{env="paper",le="+Inf"}'] == len(seconds)
        assert found['n_preflight_duration_seconds_count{env="paper"}'] == len(seconds)
        assert found['n_preflight_duration_seconds_sum{env="paper"}'] == pytest.approx(sum(seconds))


# ---- evidence ---------------------------------------------------------------------------------------------


def test_the_oldest_evidence_goes_first(tmp_path: Path) -> None:
    for second in range(5):
        one = Report(f"r{second}", "h", "paper", datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC), 0.1, "", ())
        write_json(tmp_path / f"{name_of(one)}.json", one)
        (tmp_path / f"{name_of(one)}.prom").write_text("")
    prune(tmp_path, 2)
    assert sorted(path.stem.rpartition("-")[2] for path in tmp_path.iterdir()) == ["r3", "r3", "r4", "r4"]


# ---- checks that look at files and variables --------------------------------------------------------------


def test_variables_are_named_and_their_values_are_not_shown() -> None:
    chosen = settings(variables=[{"name": "A"}, {"name": "B", "pattern": "[0-9]+"}, {"name": "C"}])
    found = result(chosen, context(variables={"A": "", "B": "hunter2"}))
    assert found.status is Status.FAIL
    assert found.message == "A is empty; B does not match [0-9]+; C is not set"
    assert result(chosen, context(variables={"A": "x", "B": "7", "C": "y"})).status is Status.PASS


def test_secrets_must_be_defined_and_more_than_a_placeholder(tmp_path: Path) -> None:
    chosen = settings(required_secrets=["one", "two", "three"])
    for name, value in {"one": "a real one", "two": "<CHANGEME>"}.items():
        (tmp_path / name).write_text(value)
        (tmp_path / name).chmod(0o600)
    found = result(chosen, context(secrets=LocalSecrets(tmp_path, {})))
    assert found.status is Status.FAIL
    assert found.message == "the secret two is a placeholder; the secret three is not defined"


GUARD = {"name": "live switch", "variable": "LIVE", "paper": "off", "prod": "on"}


@pytest.mark.parametrize(
    ("environment", "value", "status"),
    [
        ("paper", "off", Status.PASS),
        ("paper", "on", Status.FAIL),
        ("paper", None, Status.FAIL),
        ("prod", "off", Status.FAIL),
        ("prod", "on", Status.PASS),
        ("staging", "on", Status.PASS),
    ],
)
def test_a_switch_must_say_what_its_environment_wants(environment: str, value: str | None, status: Status) -> None:
    variables = {} if value is None else {"LIVE": value}
    assert result(settings(guards=[GUARD]), context(environment, variables=variables)).status is status


def test_a_switch_in_a_file(tmp_path: Path) -> None:
    guard = {"name": "live", "file": str(tmp_path / "live"), "paper": "off"}
    missing = result(settings(guards=[guard]), context())
    assert missing.status is Status.FAIL and "cannot be read" in missing.message
    (tmp_path / "live").write_text("off\n")
    assert result(settings(guards=[guard]), context()).status is Status.PASS


@pytest.mark.parametrize(
    ("script", "status", "told"),
    [
        ("exit 0", Status.PASS, "answered"),
        ("echo cells are cold; exit 1", Status.WARN, "cells are cold"),
        ("echo broken >&2; exit 7", Status.FAIL, "ended with 7: broken"),
        ("sleep 30", Status.FAIL, "did not end within 0.2 s"),
    ],
)
def test_the_application_says_by_a_program_whether_it_is_ready(script: str, status: Status, told: str) -> None:
    chosen = settings(application={"url": None, "command": ["/bin/sh", "-c", script], "slow": "10s"})
    found = result(chosen, context(timeout=0.2 if "sleep" in script else 5))
    assert found.status is status and told in found.message


# ---- real-time state --------------------------------------------------------------------------------------

RT_KERNEL = "#1 SMP PREEMPT_RT Debian 6.12.57-1 (2026-11-05)"


def tree(
    root: Path,
    isolated: str = "2-3",
    others: str = "0-1",
    nohz: str = "2-3",
    running: tuple[str, ...] = ("mxrc-rt.service",),
) -> Path:
    cpu = root / "sys/devices/system/cpu"
    cpu.mkdir(parents=True)
    for name, text in {"nohz_full": nohz, "online": "0-3"}.items():
        (cpu / name).write_text(f"{text}\n")
    groups = root / "sys/fs/cgroup"
    (groups / "rt.slice").mkdir(parents=True)
    (groups / "rt.slice/cpuset.cpus.partition").write_text("isolated\n" if isolated else "member\n")
    (groups / "rt.slice/cpuset.cpus.effective").write_text(f"{isolated}\n")
    (groups / "cpuset.cpus.effective").write_text(f"{others}\n")
    for unit in running:
        group = root / "sys/fs/cgroup/rt.slice" / unit
        group.mkdir(parents=True)
        (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    return root


def look(root: Path, kernel: str = RT_KERNEL, housekeeping: str | None = "0-1") -> Result:
    chosen = RealtimeSettings(housekeeping=housekeeping, units=("mxrc-rt.service",))
    return realtime._run(chosen, root, kernel)


def test_a_real_time_host_as_it_should_be(tmp_path: Path) -> None:
    assert look(tree(tmp_path)).status is Status.PASS


@pytest.mark.parametrize(
    ("changes", "kernel", "told"),
    [
        ({}, "#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1", "not PREEMPT_RT"),
        ({"isolated": ""}, RT_KERNEL, "no core is isolated"),
        ({"isolated": "3", "nohz": "3"}, RT_KERNEL, "isolated cores are 3, and should be 2-3"),
        # The word alone: others have the cores, too.
        ({"others": "0-3"}, RT_KERNEL, "no core is isolated"),
        ({"others": "0-2"}, RT_KERNEL, "isolated cores are 3, and should be 2-3"),
        ({"nohz": "(null)"}, RT_KERNEL, "cores without ticks are none"),
        ({"running": ()}, RT_KERNEL, "mxrc-rt.service is not running"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, changes: dict[str, Any], kernel: str, told: str) -> None:
    found = look(tree(tmp_path, **changes), kernel)
    assert found.status is Status.FAIL and told in found.message


def test_a_service_that_has_ended_is_not_running(tmp_path: Path) -> None:
    tree(tmp_path)
    events = tmp_path / "sys/fs/cgroup/rt.slice/mxrc-rt.service/cgroup.events"
    events.write_text("populated 0\nfrozen 0\n")
    assert "is not running" in look(tmp_path).message
