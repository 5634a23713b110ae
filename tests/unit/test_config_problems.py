"""How problems are told."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from rtinfra.config.problems import (
    ABSENT,
    ConfigError,
    CrossCheckError,
    Finding,
    Problem,
    looks_secret,
    report_findings,
)


def test_a_problem_is_one_line() -> None:
    problem = Problem("group_data/rt_hosts.yaml", 14, "rt_app.priority", 120, "must be between 1 and 99", "use 90")
    assert str(problem) == (
        "group_data/rt_hosts.yaml:14: rt_app.priority = 120: must be between 1 and 99. Suggestion: use 90."
    )


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(None, None, "", ABSENT, "there are no hosts"), "there are no hosts."),
        (Problem("f", None, "", ABSENT, "cannot be read"), "f: cannot be read."),
        (Problem("f", 1, "a", None, "needs a value"), "f:1: a = null: needs a value."),
        (Problem("f", 1, "a", ABSENT, "x", "did you mean b?"), "f:1: a: x. Suggestion: did you mean b?"),
        (Problem("f", 1, "a", "0-1", "x", severity="warning"), 'f:1: warning: a = "0-1": x.'),
        (Problem("f", 1, "a", 1, "x", hosts=("h1",)), "f:1: a = 1: x. (host h1)"),
        (Problem("f", 1, "a", 1, "x", hosts=("h1", "h2")), "f:1: a = 1: x. (hosts h1, h2)"),
    ],
)
def test_parts_that_are_unknown_are_left_out(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_pasted_control_characters_reach_no_terminal() -> None:
    text = str(Problem("f", 1, "a\x1b[2J", "x\n\x1b[31m", "bad\nthing \ud800"))
    assert text.isprintable()


def test_long_values_are_cut() -> None:
    assert len(str(Problem("f", 1, "a", "x" * 10_000, "is long"))) < 200


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("filebeat.password", "hunter2"),
        ("API_TOKEN", "hunter2"),
        ("a.client_secret.0", "hunter2"),
        ("a", SecretStr("hunter2")),
        ("a", {"b": [{"password": "hunter2"}]}),
        ("a", [SecretStr("hunter2")]),
    ],
)
def test_secrets_never_leave(key: str, value: object) -> None:
    problem = Problem("f", 1, key, value, "is wrong")
    assert "hunter2" not in str(problem) + repr(problem) + json.dumps(problem.to_json())
    assert "***" in str(problem)


def test_ordinary_names_are_not_secret() -> None:
    assert not any(map(looks_secret, ("ssh.key", "rt_app.priority", "kernel.panic", "rt_kernel.packages")))


def test_json_has_a_value_only_when_there_is_one() -> None:
    assert Problem("f", 2, "a", None, "r", "s", hosts=("h",)).to_json() == {
        "severity": "error",
        "file": "f",
        "line": 2,
        "key": "a",
        "value": None,
        "reason": "r",
        "suggestion": "s",
        "hosts": ["h"],
    }
    assert "value" not in Problem("f", 2, "a", ABSENT, "r").to_json()


def test_the_error_counts_sorts_and_joins_hosts() -> None:
    error = ConfigError(
        [
            Problem("g.yaml", 9, "b", 1, "wrong", hosts=("rt1",)),
            Problem("g.yaml", 2, "c", 1, "odd", severity="warning"),
            *(Problem("g.yaml", 9, "b", 1, "wrong", hosts=(f"rt{n}",)) for n in range(2, 7)),
            Problem("f.yaml", 10, "a", 1, "wrong"),
        ]
    )
    assert str(error).splitlines() == [
        "2 errors and 1 warning in the configuration:",
        "  f.yaml:10: a = 1: wrong.",
        "  g.yaml:2: warning: c = 1: odd.",
        "  g.yaml:9: b = 1: wrong. (hosts rt1, rt2, rt3 and 3 more)",
    ]


def test_a_cross_check_error_needs_an_error() -> None:
    with pytest.raises(TypeError):
        CrossCheckError([Finding("a", 1, "odd", severity="warning")])


def test_findings_are_raised_or_handed_on() -> None:
    warning = Finding("a", 1, "odd", severity="warning")
    with pytest.raises(CrossCheckError) as caught:
        report_findings([warning, Finding("b", 1, "wrong")], None)
    assert len(caught.value.findings) == 2
    noted: list[Finding] = []
    report_findings([warning], {"warnings": noted})
    assert noted == [warning]
    report_findings([warning], None)
