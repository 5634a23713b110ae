"""Waivers: what they do to a result, and what is refused in their file."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rtinfra.config import ConfigError
from rtinfra.verify import Report, Status, VerifyError, run
from rtinfra.verify.waivers import WAIVERS, load_waivers

TODAY = date.today()
TOMORROW = TODAY + timedelta(days=1)
YESTERDAY = TODAY - timedelta(days=1)


def written(path: Path, *entries: str) -> Path:
    path.write_text("waivers:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries), encoding="utf-8")
    return path


def entry(control: str = "RT-10.2", hosts: str = "[robot]", expires: date | str = TOMORROW, **more: str) -> str:
    others = {"owner": "Kim Min-jun", "reason": "the card is replaced next week", **more}
    return ", ".join(
        [f"control: {control}", f"hosts: {hosts}", f"expires: {expires}", *(f"{k}: {v}" for k, v in others.items())]
    )


@pytest.fixture
def verify(inventory: Path, suite: Path, fake_ssh: Path, tmp_path: Path, in_process: None):  # type: ignore[no-untyped-def]
    """Run the small suite, whose RT-10.2 fails and whose RT-10.1 passes, with these waivers."""

    def with_waivers(*entries: str) -> Report:
        return run(
            inventory,
            tests=suite,
            output=tmp_path / "reports",
            controls=["RT-10.1", "RT-10.2"],
            waivers=written(tmp_path / "waivers.yaml", *entries),
        )

    return with_waivers


def result_of(report: Report, control: str = "RT-10.2"):  # type: ignore[no-untyped-def]
    (found,) = [result for result in report.results if result.control == control]
    return found


def test_a_waived_control_is_shown_counted_and_no_failure(verify) -> None:  # type: ignore[no-untyped-def]
    report = verify(entry())
    found = result_of(report)
    assert found.status == Status.WAIVED
    assert found.actual == "cores: 0-3", "what is wrong is still told"
    assert found.note == f"waived until {TOMORROW} by Kim Min-jun: the card is replaced next week"
    assert report.exit_code == 0
    assert "1 passed, 0 failed, 1 waived" in report.summary
    assert report.notes == ()
    cases = ElementTree.parse(report.directory / "junit.xml").getroot()
    assert next(cases.iter("testsuite")).get("failures") == "0", "who reads the JUnit file sees the same"
    assert "Kim Min-jun" in (report.directory / "report.html").read_text(encoding="utf-8")


def test_a_waiver_counts_on_its_last_day(verify) -> None:  # type: ignore[no-untyped-def]
    assert result_of(verify(entry(expires=TODAY))).status == Status.WAIVED


def test_an_expired_waiver_fails_and_says_so(verify) -> None:  # type: ignore[no-untyped-def]
    report = verify(entry(expires=YESTERDAY))
    found = result_of(report)
    assert found.status == Status.FAIL
    assert f"expired on {YESTERDAY}" in found.note
    assert "Kim Min-jun" in found.note
    assert report.exit_code == 1


def test_a_waiver_for_what_passes_is_reported_as_not_needed(verify) -> None:  # type: ignore[no-untyped-def]
    report = verify(entry("RT-10.1"), entry("RT-10.2", "[all]"))
    assert result_of(report, "RT-10.1").status == Status.PASS
    (note,) = report.notes
    assert re.search(r"waivers\.yaml:2: the waiver of RT-10\.1 on robot is not needed", note)


def test_a_waiver_for_another_host_changes_nothing(verify) -> None:  # type: ignore[no-untyped-def]
    assert result_of(verify(entry(hosts="[logger]"))).status == Status.FAIL


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [entry("RT-10.22x")],
            r"waivers\.yaml:2: waivers\.0\.control = \"RT-10\.22x\": is not a control\..*did you",
        ),
        ([entry(), entry(hosts="[robbot]")], r"waivers\.yaml:3: .*\"robbot\": is not a host.*did you mean robot\?"),
        ([entry(), entry(hosts="[all]")], r"waivers\.yaml:3: .*is already waived on robot at .*waivers\.yaml:2"),
        ([entry(expires="2026-02-30")], r"waivers\.yaml:2: .*is not a day of the calendar.*2026-12-31"),
        ([entry(owner="''")], r"waivers\.yaml:2: waivers\.0\.owner"),
        ([entry() + ", extra: 1"], r"waivers\.yaml:2: waivers\.0\.extra"),
        (["control: RT-10.2"], r"waivers\.yaml:2: waivers\.0\.(hosts|owner|reason|expires)"),
    ],
)
def test_a_mistake_is_refused_with_its_line(verify, entries: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(VerifyError, match=message):
        verify(*entries)


def test_every_mistake_is_told_at_once(verify) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(VerifyError) as caught:
        verify(entry("RT-99.1"), entry(hosts="[nobody]"))
    assert "waivers.yaml:2" in str(caught.value) and "waivers.yaml:3" in str(caught.value)


def test_the_shipped_file_is_empty_and_valid() -> None:
    assert load_waivers(WAIVERS).entries == ()


def test_no_file_is_no_waiver(tmp_path: Path) -> None:
    assert load_waivers(tmp_path / "absent.yaml").entries == ()


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text("waivers: [a: b: c]\n")
    with pytest.raises(ConfigError, match=r"waivers\.yaml:1"):
        load_waivers(path)
