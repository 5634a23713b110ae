"""Every control says why it matters and what to do, in the fewest words written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtinfra.verify.explained import Explanation, explanations
from tests.unit.test_docs import controls


@pytest.mark.parametrize("control", sorted(controls()))
def test_every_control_has_a_why_and_a_fix(control: str) -> None:
    found = explanations().of(control)
    assert len(found.why) > 20, "why it matters"
    assert len(found.fix) > 20, "what to do"
    assert found.why.endswith(".") and found.fix.endswith(".")


def test_every_entry_is_for_a_control() -> None:
    assert explanations().unused(controls()) == []


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_narrowest_entry_counts_for_each_text_by_itself(tmp_path: Path) -> None:
    path = written(
        tmp_path / "texts.yaml",
        "RT-1.3: {why: one}\nRT-1: {why: all, fix: all}\nRT-1.2 to RT-1.4: {why: some, fix: some}\n",
    )
    found = explanations(path)
    assert found.of("RT-1.1") == Explanation("all", "all")
    assert found.of("RT-1.2") == Explanation("some", "some")
    assert found.of("RT-1.3") == Explanation("one", "some")
    assert found.of("RT-10.3") == Explanation()
    assert found.unused({"RT-1.9"}) == ["RT-1.3", "RT-1.2 to RT-1.4"]


@pytest.mark.parametrize(
    "text",
    ["RT-1.1 to RT-2.3: {why: a}", "RT: {why: a}", "RT-1: {because: a}", "RT-1: {}", "RT-1: {why: 3}"],
)
def test_a_wrong_entry_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^texts\.yaml: "):
        explanations(written(tmp_path / "texts.yaml", text))
