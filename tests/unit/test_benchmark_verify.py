"""The benchmark of the verification measures what was run, and judges only where the promise holds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rtinfra.paths import PROJECT
from tests.unit.test_verify_report import FACTS, report, result

# Not installed, unlike rtinfra and roles: found from the project folder only.
sys.path.insert(0, str(PROJECT))
from benchmarks import verify


def cost(virtualisation: str = "none", seconds: float = 2.0, controls: int = 150) -> verify.Result:
    facts = replace(FACTS, virtualisation=virtualisation, round_trips=1, snapshot_seconds=0.8)
    results = [replace(result(f"RT-1.{number}"), duration=0.001) for number in range(controls)]
    made = replace(report(*results), hosts={"robot": facts})
    return verify.summed([made] * 3, [seconds] * 3)


def test_every_host_is_told_with_its_round_trips_and_time() -> None:
    (host,) = cost().hosts
    assert (host.name, host.controls, host.round_trips, host.look_seconds) == ("robot", 150, 1, 0.8)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    verify.show(cost(), console)
    assert "robot" in (text := console.export_text())
    assert "median 2.0 s" in text


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        (cost(), 0),
        (cost(seconds=3.1), 1),
        (cost("qemu", seconds=60.0), 0),
        # What is not run is reckoned with: 75 more controls of a millisecond each.
        (cost(seconds=2.95, controls=75), 1),
    ],
)
def test_only_a_real_host_is_judged(found: verify.Result, problems: int) -> None:
    assert len(found.problems) == problems


@pytest.mark.slow
def test_it_runs_what_an_operator_runs(inventory: Path, fake_ssh: Path) -> None:
    found, seconds = verify.verify(inventory)
    measured = verify.summed([found], [seconds])
    assert {host.name: host.round_trips for host in measured.hosts} == {"robot": 1, "logger": 1}
    assert {host.name: host.controls >= 100 for host in measured.hosts} == {"robot": True, "logger": False}


@pytest.mark.slow
def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(verify.BenchmarkError, match="there is no inventory"):
        verify.verify(tmp_path / "absent.yaml")
