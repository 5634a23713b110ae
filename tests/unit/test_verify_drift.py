"""The controls about drift, on what a host's own check has left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roles.fleet import load_hosts
from rtinfra.paths import PROJECT
from rtinfra.verify import ControlResult, run
from tests.record_looks import rt_host

Verify = Callable[..., dict[str, ControlResult]]
CLOCK = 1795181541


@pytest.fixture
def verify(inventory: Path, fake_ssh: Path, tmp_path: Path, in_process: None) -> Verify:
    """Verify a host whose own check has left this result; `since` is for how long its timer has been active."""
    sha256 = load_hosts(PROJECT, inventory).hosts["robot"].config.sha256
    uptime = float(rt_host().partition("@@uptime\n")[2].split()[0])

    def look(finished: int = CLOCK - 600, since: int = 86_400, **result: Any) -> dict[str, ControlResult]:
        answer = (tmp_path / "answer").read_text(encoding="utf-8")
        before, _, rest = answer.partition("@@drift\n")
        after = rest[rest.index("@@") :]
        found = {"finished": finished, "settings_sha256": sha256, "drift": [], **result} if finished else {}
        text = f"{before}@@drift\n{json.dumps(found)}\n{after}"
        started = round((uptime - since) * 1e6)
        text = text.replace("ActiveEnterTimestampMonotonic=9000000", f"ActiveEnterTimestampMonotonic={started}")
        (tmp_path / "answer").write_text(text, encoding="utf-8")
        report = run(inventory, hosts=["robot"], controls=["L-5"], output=tmp_path / "reports")
        return {result.control: result for result in report.results}

    return look


def states(found: dict[str, ControlResult]) -> dict[str, str]:
    return {name: str(result.status) for name, result in found.items()}


def test_a_host_that_has_not_drifted(verify: Verify) -> None:
    assert states(verify()) == {"L-5.1": "PASS", "L-5.2": "PASS", "L-5.3": "PASS", "L-5.4": "PASS"}


def test_drift_is_told_by_name(verify: Verify) -> None:
    found = verify(drift=[{"kind": "sysctl", "name": "vm.swappiness", "expected": "10", "actual": "60"}])
    assert states(found)["L-5.3"] == "FAIL"
    assert "sysctl vm.swappiness is 60, not 10" in found["L-5.3"].actual


def test_an_old_check_is_no_check(verify: Verify) -> None:
    assert states(verify(finished=CLOCK - 27 * 3600))["L-5.2"] == "FAIL"


def test_settings_that_were_not_deployed_are_noticed(verify: Verify) -> None:
    assert states(verify(settings_sha256="0" * 64))["L-5.4"] == "FAIL"


@pytest.mark.parametrize("finished", [0, CLOCK - 600])
def test_right_after_a_deploy_nothing_is_judged_yet(verify: Verify, finished: int) -> None:
    assert states(verify(finished=finished, since=60)) == {
        "L-5.1": "PASS",
        **dict.fromkeys(("L-5.2", "L-5.3", "L-5.4"), "N/A"),
    }


def test_a_check_that_never_came_fails(verify: Verify) -> None:
    assert states(verify(finished=0))["L-5.2"] == "FAIL"
