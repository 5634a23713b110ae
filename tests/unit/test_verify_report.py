"""Comparisons, reports and the table."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from rtinfra.config.types import Duration
from rtinfra.verify import ControlResult, HostFacts, HostProblem, Report, Status, VerifyError, cli, expect
from rtinfra.verify.report import read, rendered

FACTS = HostFacts("6.12-rt", "QEMU", "qemu", "ab", 1.0, "Latency on this host is measured, not a latency proof.")


def result(control: str = "RT-10.1", status: Status = Status.PASS, host: str = "robot", **more: str) -> ControlResult:
    return ControlResult(host, control, "Isolation", "high", f"Title of {control}", status, **more)


def report(*results: ControlResult, **more: object) -> Report:
    made = Report("2026-01-31T12:00:00+00:00", "inventory.yaml", False, results, {"robot": FACTS})
    return replace(made, **more)


def text_of(shown: Report) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(rendered(shown))
    return console.export_text()


def test_a_comparison_says_expected_and_actual() -> None:
    with pytest.raises(expect.Mismatch, match="isolated cores: expected 2-3, found 3"):
        expect.equal(frozenset({3}), frozenset({2, 3}), "isolated cores")


def test_passed_comparisons_are_recorded() -> None:
    with expect.recording() as record:
        expect.equal("a", "a", "letter")
        expect.below(4.0, 5, "outage", "s")
        expect.nothing([], "intruders")
    assert [(seen.what, seen.actual) for seen in record.observations] == [
        ("letter", "a"),
        ("outage", "4 s"),
        ("intruders", "none"),
    ]
    assert record.measured is None


def test_offenders_are_named_but_not_all_of_them() -> None:
    with pytest.raises(expect.Mismatch, match=r"intruders: expected none, found 0, 1, .* and 2 more"):
        expect.nothing(range(10), "intruders")


def test_entries_show_only_what_differs() -> None:
    with pytest.raises(expect.Mismatch) as caught:
        expect.entries({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": True}, "settings")
    assert caught.value.observation.expected == "b 3, c yes"
    assert caught.value.observation.actual == "b 2, c absent"


@pytest.mark.parametrize(
    ("actual", "setting", "holds"),
    [
        ("1min 30s", "90s", True),
        ("1.500000s", "1500ms", True),
        ("0", "0s", True),
        ("10s", "15s", False),
        ("infinity", "10s", False),
        ("", "0s", False),
    ],
)
def test_time_spans_are_compared_by_their_length(actual: str, setting: str, holds: bool) -> None:
    with nullcontext() if holds else pytest.raises(expect.Mismatch, match=f"WatchdogSec: expected {setting}, found"):
        expect.time_span(actual, Duration.parse(setting), "WatchdogSec")


def test_what_should_be_there_and_is_not() -> None:
    assert expect.found(0, "number", "nothing") == 0
    with pytest.raises(expect.Mismatch, match="login: expected there, found refused"):
        expect.found(None, "login", "refused")


def test_measuring_does_not_judge() -> None:
    with expect.recording() as record:
        expect.measured("12 us", "latency", "a virtual machine")
    assert record.measured == "a virtual machine"
    assert record.observations[0].actual == "12 us"


@pytest.mark.parametrize(
    ("value", "text"),
    [(frozenset(), "none"), (None, "nothing"), ("", "nothing"), (True, "yes"), (1.50, "1.5"), ([1], "[1]")],
)
def test_values_for_humans(value: object, text: str) -> None:
    assert expect.shown(value) == text


def test_exit_codes() -> None:
    passed, failed = result(), result(status=Status.FAIL)
    other = result(status=Status.NOT_APPLICABLE)
    assert report(passed, other, result(status=Status.MEASURED)).exit_code == 0
    assert report(passed, failed).exit_code == 1
    assert report(passed, problems=(HostProblem("far", "does not answer"),)).exit_code == 2
    assert report().exit_code == 2
    assert report(passed).ok
    assert not report(passed, failed).ok


def test_summary() -> None:
    shown = report(result(), result(status=Status.FAIL), not_run=11).summary
    assert shown.startswith("2 controls on robot: 1 passed, 1 failed, 0 not applicable, 0 measured.")
    assert "11 more" in shown
    assert report().summary == "No control was run: nothing is proven."


def test_report_survives_its_file(tmp_path: Path) -> None:
    made = report(
        result(expected="a", actual="b", status=Status.FAIL),
        problems=(HostProblem("far", "does not answer"),),
        not_run=3,
        duration=1.5,
    )
    made.write(tmp_path / "report.json")
    assert read(tmp_path / "report.json") == replace(made, directory=tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["controls"][0]["status"] == "FAIL"
    assert data["exit_code"] == 2
    assert data["hosts"]["robot"]["config_sha256"] == "ab"


def test_table_shows_expected_and_actual_of_failures_only() -> None:
    text = text_of(
        report(
            result("RT-10.2", expected="cores: 2-3", actual="cores: 2-3"),
            result("RT-10.10", Status.FAIL, expected="cores: 0-1", actual="cores: 0-3"),
            result("RT-10.11", Status.NOT_APPLICABLE, note="no [such] device"),
            result("RT-11.1", Status.MEASURED, actual="at worst 12 us", note="measured, not a latency proof"),
        )
    )
    assert "cores: 2-3" not in text
    assert "expected  cores: 0-1" in text
    assert "found     cores: 0-3" in text
    assert "no [such] device" in text
    assert "at worst 12 us (measured, not a latency proof)" in text
    assert text.index("RT-10.2") < text.index("RT-10.10"), "ids are ordered as numbers"


def test_table_names_the_host_when_there_are_several() -> None:
    assert "Host " not in text_of(report(result()))
    text = text_of(report(result(), result(host="other")))
    assert "other" in text
    assert "2 controls on 2 hosts" in text


def test_table_shows_unreachable_hosts() -> None:
    assert "far: does not answer" in text_of(report(problems=(HostProblem("far", "does not answer"),)))


@pytest.fixture
def command() -> Typer:
    app = Typer()
    app.command()(cli.verify)
    return app


@pytest.mark.parametrize(("status", "code"), [(Status.PASS, 0), (Status.FAIL, 1)])
def test_command_exits_with_the_result(
    command: Typer, monkeypatch: pytest.MonkeyPatch, status: Status, code: int
) -> None:
    monkeypatch.setattr(cli, "run", lambda *_, **__: report(result(status=status)))
    ran = CliRunner().invoke(command, ["--json"])
    assert ran.exit_code == code
    assert json.loads(ran.stdout)["controls"][0]["status"] == str(status)


def test_command_explains_what_it_cannot_do(command: Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Report:
        raise VerifyError("there are no hosts yet")

    monkeypatch.setattr(cli, "run", refuse)
    ran = CliRunner().invoke(command, [])
    assert ran.exit_code == 2
    assert "there are no hosts yet" in ran.output
