"""Every alert has a page that says what to do, and every page belongs to an alert."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from roles.alertmanager.alert_log.pages import render_markdown
from roles.prometheus.role import RULES
from rtinfra.paths import PROJECT

PAGES = {path.stem: path for path in (PROJECT / "docs" / "runbooks").glob("*.md")}
ALERTS = {
    rule["alert"]: rule["labels"]["priority"]
    for path in RULES.glob("*.rules.yml")
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def test_alerts_and_pages_belong_together() -> None:
    assert PAGES.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_has_all_its_parts(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    title, summary, *_ = text.split("\n\n")
    assert title == f"# {name}"
    assert re.match(r"\*\*요약:\*\* .*[가-힣]", summary)
    assert re.findall("^## (.+)$", text, re.MULTILINE) == [
        "What it means",
        "How to look",
        "What to do",
        "When to call whom",
    ]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_names_only_alerts_that_exist(name: str) -> None:
    quoted = re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", PAGES[name].read_text(encoding="utf-8"))
    assert not set(quoted) - ALERTS.keys()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_can_be_shown_by_the_alert_log(name: str) -> None:
    """It knows headings, paragraphs, lists and code; any other markup would be shown as it stands."""
    shown = render_markdown(PAGES[name].read_text(encoding="utf-8"))
    text = re.sub(r"<(code|pre)>.*?</\1>", "", shown, flags=re.DOTALL)
    assert not re.findall(r"^(?:#|>|\||\* |- )|\*\*|`|\]\(", re.sub(r"<[^>]+>", "", text), re.MULTILINE)
    assert shown.count("<pre>") == 1
    assert "<ol>" in shown


def test_every_alert_is_in_the_overview() -> None:
    overview = (PROJECT / "docs" / "alerts.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(runbooks/\1\.md\) \| (P0|P1) \|", overview, re.MULTILINE))
    assert rows == ALERTS


@pytest.mark.parametrize("path", [*PAGES.values(), PROJECT / "docs" / "alerts.md"], ids=lambda path: path.stem)
def test_commands_name_settings_that_exist(path: Path) -> None:
    files = re.findall(r"`(group_data/\w+\.yaml)`", path.read_text(encoding="utf-8"))
    assert not [name for name in files if not (PROJECT / name).is_file()]
