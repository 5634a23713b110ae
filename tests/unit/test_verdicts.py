"""The lab host's verdicts as data: what differs is named, and the file can be brought up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rtinfra.paths import PROJECT
from rtinfra.verify.report import ControlResult, Report, Status
from tests.e2e import verdicts
from tests.unit.test_docs import controls

EXPECTED = {
    "RT-9.2": ("PASS", "MEASURED"),
    "RT-9.10": ("PASS",),
    "RT-10.32": ("N/A: this kernel has no such pages",),
    "RT-10.40": ("PASS", "N/A: the clock of a virtual machine: *"),
}


def result(control: str, status: Status = Status.PASS, note: str = "") -> ControlResult:
    return ControlResult("e2e", control, "Area", "high", f"Title of {control}", status, note=note)


def passing() -> list[ControlResult]:
    return [
        result("RT-9.2", Status.MEASURED, "an emulated processor"),
        result("RT-9.10"),
        result("RT-10.32", Status.NOT_APPLICABLE, "this kernel has no such pages"),
        result("RT-10.40", Status.NOT_APPLICABLE, "the clock of a virtual machine: tsc unstable"),
    ]


def test_what_was_written_down_is_no_difference() -> None:
    assert verdicts.differences(EXPECTED, passing()) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (result("RT-9.10", Status.NOT_APPLICABLE, "no such thread"), "expected PASS, found N/A: no such thread"),
        (result("RT-9.10", Status.MEASURED), "expected PASS, found MEASURED"),
        (result("RT-9.2", Status.FAIL), "expected PASS or MEASURED, found FAIL"),
        # For another reason than it should be.
        (result("RT-10.32", Status.NOT_APPLICABLE, "the settings"), "found N/A: the settings"),
        # Even for the better: then the file is no longer true.
        (result("RT-10.32"), "expected N/A: this kernel has no such pages, found PASS"),
        (result("RT-9.99"), "expected not there, found PASS"),
    ],
)
def test_what_differs_is_named(changed: ControlResult, said: str) -> None:
    kept = [one for one in passing() if one.control != changed.control]
    (line,) = verdicts.differences(EXPECTED, [*kept, changed])
    assert line.startswith(f"{changed.control} (Title of {changed.control}): ")
    assert said in line


def test_a_control_that_is_gone_is_named() -> None:
    assert verdicts.differences(EXPECTED, passing()[1:]) == ["RT-9.2: expected PASS or MEASURED, found not there"]


def test_an_update_keeps_what_may_stand_in_a_verdicts_place(tmp_path: Path) -> None:
    path = tmp_path / "controls.yaml"
    path.write_text(verdicts.text(EXPECTED, passing()), encoding="utf-8")
    assert verdicts.load(path) == EXPECTED
    changed = [*passing()[:2], result("RT-10.32"), result("RT-10.33"), passing()[3]]
    verdicts.update(changed, path)
    assert verdicts.load(path) == {**EXPECTED, "RT-10.32": ("PASS",), "RT-10.33": ("PASS",)}
    assert verdicts.differences(verdicts.load(path), changed) == []
    # In the order people count.
    assert list(verdicts.load(path)) == ["RT-9.2", "RT-9.10", "RT-10.32", "RT-10.33", "RT-10.40"]


@pytest.mark.slow
def test_a_report_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    report = Report("2026-01-01T00:00:00+00:00", "i.yaml", disruptive=False, results=tuple(passing()), hosts={})
    path = tmp_path / "report.json"
    for refused in (report, replace(report, disruptive=True, results=(result("RT-9.2", Status.FAIL),))):
        path.write_text(json.dumps(refused.to_json()), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.verdicts", path], capture_output=True, text=True, check=False, cwd=PROJECT
        )
        assert done.returncode == 2
        assert "none that failed" in done.stderr


def test_the_shipped_file_is_about_controls_that_exist_and_none_that_fails() -> None:
    expected = verdicts.load()
    assert expected.keys() <= controls()
    allowed = {pattern.partition(":")[0] for patterns in expected.values() for pattern in patterns}
    assert allowed == {"PASS", "MEASURED", "N/A"}
    # What does not apply says why.
    assert all(": " in pattern for patterns in expected.values() for pattern in patterns if pattern.startswith("N/A"))
