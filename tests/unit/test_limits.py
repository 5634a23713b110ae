"""Limits stand once: whoever uses one follows it, as metrics/limits.yaml says, and nobody has one of its own."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from roles.alertmanager.alert_log import alert_log
from roles.grafana.dashboards import dashboards
from roles.grafana.panels import to_json
from roles.prometheus.role import RULES, rule_files
from rtinfra import runner
from rtinfra.config import ConfigError
from rtinfra.config.types import Duration, SettingError
from rtinfra.limits import LIMITS, NAMES, Limits, check_places, filled, load_limits, project_limits
from rtinfra.paths import PROJECT
from tests.project import Project
from tests.unit.monitoring_tools import run
from tests.unit.telemetry_site import here, view

COMPLIANCE = PROJECT / "tests" / "compliance"
SHIPPED = project_limits()
SITE = view(prometheus=here())


# ---- who uses what ----------------------------------------------------------------------------------------


def alerts(limits: Limits) -> dict[str, dict[str, Any]]:
    """Every alert as Prometheus gets it, by name."""
    return {
        rule["alert"]: rule
        for text in rule_files(limits).values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def panels(limits: Limits) -> dict[str, dict[str, Any]]:
    """Every panel as Grafana gets it, by dashboard, place and title."""
    return {
        f"{board.uid} {panel['id']}: {panel['title']}": panel
        for board in dashboards(SITE, limits)
        for panel in to_json(board)["panels"]
    }


@cache
def controls() -> Mapping[str, frozenset[str]]:
    """Limits that each control reads, itself or in a function of its file that it calls."""
    found: dict[str, frozenset[str]] = {}
    for path in COMPLIANCE.glob("test_*.py"):
        functions = {
            node.name: node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        for function in functions.values():
            called = {node.func.id for node in ast.walk(function) if is_call_of_name(node)}
            bodies = [function, *(functions[name] for name in called & functions.keys())]
            read = {node.attr for body in bodies for node in ast.walk(body) if isinstance(node, ast.Attribute)}
            for name in identities(function):
                found[name] = frozenset(read & NAMES)
    return found


def is_call_of_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def identities(function: ast.FunctionDef) -> Iterator[str]:
    """The id of the control that a function is."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            yield from (str(word.value.value) for word in decorator.keywords if word.arg == "id")  # type: ignore[attr-defined]


def told() -> dict[str, str]:
    """The comment above each limit."""
    text = LIMITS.read_text(encoding="utf-8")
    return {name: comment for comment, name in re.findall(r"((?:^#.*\n)+)^(\w+):", text, re.MULTILINE)}


def users(comment: str, kind: str) -> set[str]:
    """Whom a comment names after `kind`."""
    found = re.search(rf"{kind}: (.+?)\.(?: [A-Z]|$)", " ".join(comment.replace("#", " ").split()))
    return set(found[1].split(", ")) if found else set()


def changed(name: str) -> Limits:
    """The limits with a little less or more of one; each stays on its side of the others."""
    value = getattr(SHIPPED, name)
    other: object
    if isinstance(value, Duration):
        other = Duration.parse(f"{round(value.milliseconds) - 50}ms")
    elif isinstance(value, str):
        other = f"{value}|zfs"
    else:
        other = value + 1 if isinstance(value, int) else 0.97 * value
    return SHIPPED.model_copy(update={name: other})


LIMIT_NAMES = sorted(Limits.model_fields)


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_a_changed_limit_reaches_whom_its_comment_names_and_nobody_else(name: str) -> None:
    comment, after = told()[name], changed(name)
    before_alerts, before_panels = alerts(SHIPPED), panels(SHIPPED)
    assert users(comment, "Alerts") == {one for one, rule in alerts(after).items() if rule != before_alerts[one]}
    moved = {one.partition(": ")[2] for one, panel in panels(after).items() if panel != before_panels[one]}
    assert users(comment, "Panels") == moved
    # What is used is free to be a part of what follows from it.
    derived = {name, name.replace("_free_", "_used_")}
    assert users(comment, "Controls") == {one for one, read in controls().items() if read & derived}


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_a_limit_is_used(name: str) -> None:
    assert re.search(r"(?:Alerts|Panels|Controls): ", told()[name])


def test_the_alert_log_has_the_limit_of_the_panel() -> None:
    """It runs with Python alone and has the number itself."""
    assert SHIPPED.watchdog_silence.seconds == alert_log.WATCHDOG_SECONDS


# What a copy of the project says after its limits were changed: a rule, a panel, and verdicts of controls.
_ASK = """
import json, sys
import rtinfra
from types import SimpleNamespace
from roles.grafana.dashboards import dashboards
from roles.grafana.panels import to_json
from roles.prometheus.role import rule_files
from roles.rt_app.model import RT_APP
from rtinfra.limits import project_limits
from rtinfra.verify.expect import Mismatch
from tests.compliance.test_latency import test_deadline_misses
from tests.unit.telemetry_site import here, view

def holds(rate):
    process = SimpleNamespace(metrics_port=1)
    config = {RT_APP: SimpleNamespace(rt_process=process)}
    answers = SimpleNamespace(metrics=lambda port: {"mxrc_rt_deadline_miss_rate": rate})
    try:
        test_deadline_misses(answers, SimpleNamespace(is_virtual=False), config)
    except Mismatch as error:
        return str(error.observation.expected)
    return True

panels = [panel for board in dashboards(view(prometheus=here())) for panel in to_json(board)["panels"]]
steps = [panel["fieldConfig"]["defaults"]["thresholds"]["steps"] for panel in panels if panel["title"] == "Miss rate"]
print(json.dumps({
    "from": rtinfra.__file__,
    "rules": "".join(rule_files(project_limits()).values()),
    "panels": [one[-1]["value"] for one in steps],
    "control": [holds(0.0002), holds(0.0009)],
}))
"""


@pytest.mark.parametrize(("limit", "control"), [("0.0001", False), ("0.0005", True)])
def test_in_a_copy_of_the_project_a_change_reaches_rule_panel_and_control(
    tmp_path: Path, limit: str, control: bool
) -> None:
    project = Project.copy_to(tmp_path)
    for part in (COMPLIANCE, PROJECT / "tests" / "unit"):
        shutil.copytree(part, tmp_path / "tests" / part.name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "unit" / "__init__.py").touch()
    if control:
        project.edit("metrics/limits.yaml", "deadline_miss_ratio: 0.0001\n", f"deadline_miss_ratio: {limit}\n")
    asked = subprocess.run(
        [sys.executable, "-c", _ASK],
        cwd=tmp_path,
        env=runner.environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    said = json.loads(asked.stdout)
    assert Path(said["from"]).is_relative_to(tmp_path)
    assert f"mxrc:deadline_miss:ratio_rate1h > 14.4 * {limit}" in said["rules"]
    assert said["panels"] == [float(limit), float(limit)]
    expected = f"less than {100 * float(limit):g} %"
    assert said["control"] == [control or expected, expected]


@pytest.mark.parametrize(
    ("period", "jitter", "red"), [(1000, 99, False), (1000, 150, True), (20000, 1500, False), (20000, 2500, True)]
)
@pytest.mark.parametrize("says_period", [True, False])
def test_jitter_is_red_where_the_alert_comes(
    tmp_path: Path, period: int, jitter: int, red: bool, says_period: bool
) -> None:
    """Relative to the period in both; an application that does not say its period is one of 1 ms to both."""
    if not says_period and period != SHIPPED.assumed_period_us:
        red = True
    (panel,) = [panel for name, panel in panels(SHIPPED).items() if name.endswith(": Jitter")]
    limit = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]
    assert limit["color"] == "red"
    expression = panel["targets"][0]["expr"].replace("$host", ".*")
    series = [("mxrc_rt_jitter_us", jitter), *([("mxrc_rt_period_us", period)] if says_period else ())]
    alert = {"exp_labels": {"host": "h", "severity": "warning", "priority": "P1"}}
    case = {
        "interval": "15s",
        "input_series": [{"series": f'{name}{{host="h"}}', "values": f"{value}x40"} for name, value in series],
        "alert_rule_test": [{"eval_time": "5m", "alertname": "JitterHigh", "exp_alerts": [alert] if red else []}],
        "promql_expr_test": [
            {
                "expr": f"({expression}) > bool {limit['value']}",
                "eval_time": "5m",
                "exp_samples": [{"labels": "{}", "value": int(red)}],
            }
        ],
    }
    rules = yaml.safe_load(rule_files(SHIPPED)[RULES / "application.rules.yml"])
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    test = tmp_path / "test.yml"
    test.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [case]}))
    result = run("promtool", "test", "rules", test)
    assert result.returncode == 0, result.stdout + result.stderr


# ---- nobody has one of its own ----------------------------------------------------------------------------

#: A number behind a comparison that is a state, not a limit: 0 and 1, and what mxrc_process_health_status says.
_COMPARED = re.compile(r"[<>]=?\s*(?:bool\s+)?([0-9.]+)|[=!]=\s*([0-9.]+)")
_STATES = {"0", "1"}
_HEALTH = {"0", "1", "2", "3", "4", "5"}


def own_limits(expression: str) -> set[str]:
    """Numbers that a PromQL expression compares with, but for states."""
    without_strings = re.sub(r'"[^"]*"', "", expression)
    found = set()
    for ordered, same in _COMPARED.findall(without_strings):
        states = _HEALTH if "mxrc_process_health_status" in expression else _STATES
        if (ordered or same) not in (_STATES if ordered else states):
            found.add(ordered or same)
    return found


@pytest.mark.parametrize(
    ("expression", "own"),
    [
        ("a > 0 or b == 1 and c < 1", set()),
        ('rate(a{b="> 5"}[5m]) / c > 0.05', {"0.05"}),
        ("mxrc_process_health_status == 4", set()),
        ("mxrc_process_health_status > 4", {"4"}),
        ("time() - a > bool 1800", {"1800"}),
        ("a > [[queue_fill_ratio]]", set()),
    ],
)
def test_a_limit_of_ones_own_is_found(expression: str, own: set[str]) -> None:
    assert own_limits(expression) == own


def test_no_rule_has_a_limit_of_its_own() -> None:
    for path in RULES.glob("*.rules.yml"):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                assert not own_limits(rule["expr"]), rule
                for text in rule.get("annotations", {}).values():
                    assert not re.search(r"[0-9] ?%|[0-9]배", text), text


def test_no_panel_has_a_limit_of_its_own() -> None:
    """Steps of panels can only be limits or 1: the type says so. What remains are expressions and texts."""
    for path in (PROJECT / "metrics" / "dashboards").glob("*.yaml"):
        for row in yaml.safe_load(path.read_text(encoding="utf-8"))["rows"]:
            for panel in row["panels"]:
                assert not any(own_limits(query["expression"]) for query in panel["queries"]), panel["title"]
                assert set(re.findall(r"[0-9.]+ ?%", panel["description"])) <= {"100 %"}, panel["title"]
                assert all(step in (None, 1) or step in NAMES for step in panel.get("steps", {}).values())


#: Numbers of controls that are no limits of what is looked at, by file, each with its reason.
NO_LIMITS: Mapping[str, Mapping[str, set[float]]] = {
    "test_agents.py": {"quantile of a delay": {0.99}, "what a quick and a slow writer do": {10_000, 120}},
    "test_alerting.py": {"patience": {60, 180}},
    "test_application.py": {"tolerances of what is compared with a setting": {0.1, 0.75, 5.0}},
    "test_backends.py": {"rounds of a question, dashboards that there are": {4}, "patience": {120}},
    "test_drift.py": {"patience": {600}},
    "test_failover.py": {"patience, attempts": {3, 180}, "fed at least twice a period": {1.5}},
    "test_interrupts.py": {"patience": {60}},
    "test_isolation.py": {"what no program can lock, in kB": {64}, "rt.slice and what everything else is in": {2}},
    "test_latency.py": {"quantile that jitter is": {0.99}},
    "test_prerequisites.py": {"cores on each side, a setting of nobody": {2}},
    "test_tracing_cost.py": {"patience": {3}, "the load that the cost is stated for": {0.8, 5}},
}


_NEITHER = {0.0, 1.0, 1e3, 1e6, 1e9}


def numbers(path: Path) -> Iterator[float]:
    """Fractions anywhere in a file, and whole numbers that get a name or are expected; no conversions of units."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [node.value for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value]
    bounds = [
        node.args[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("expect.below", "expect.at_least")
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value not in _NEITHER:
            is_bound = type(node.value) is int and (node in named or node in bounds)
            if isinstance(node.value, float) or is_bound:
                yield node.value


@pytest.mark.parametrize("path", sorted(COMPLIANCE.glob("test_*.py")), ids=lambda path: path.name)
def test_no_control_has_a_limit_of_its_own(path: Path) -> None:
    known = set().union(*NO_LIMITS.get(path.name, {}).values())
    assert set(numbers(path)) <= known


# ---- the file and its places ------------------------------------------------------------------------------


def wrong(tmp_path: Path, old: str, new: str) -> str:
    """What is said of a file of limits with something else in it."""
    text = LIMITS.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = tmp_path / "limits.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_limits(path)
    (problem,) = error.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("queue_fill_ratio: 0.7", "queue_fill_ratio: 70", "queue_fill_ratio = 70: Must be"),
        ("recovery: 5s", "recovery: soon", 'recovery = "soon": Is not a time span'),
        (
            "disk_free_low_ratio: 0.15",
            "disk_free_low_ratio: 0.01",
            "disk_free_critical_ratio must be less than",
        ),
        ("check_age_long: 2d", "check_age_long: 1d", "check_age must be less than check_age_long"),
    ],
)
def test_a_wrong_limit_is_refused_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said.lower() in wrong(tmp_path, old, new).lower()


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="queue_fill_early_ratio must be less than queue_fill_ratio"):
        Limits.model_validate({**SHIPPED.model_dump(), "queue_fill_ratio": 0.4})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[[deadline_miss_ratio]]", "0.0001"),
        ("[[deadline_miss_ratio:percent]]", "0.01 %"),
        ("[[deadline_miss_ratio:one_in]]", "1 in 10000"),
        ("[[deadline_burn_fast_factor:whole]] times", "14 times"),
        ("[[numa_local_percent:percent]]", "95 %"),
        ("[[disk_used_critical_ratio:percent]]", "95 %"),
        ("x[[[http_error_window:range]]] > [[check_age]]", "x[5m] > 93600"),
        ("[[health_answer:range]] [[health_answer:span]]", "500ms 500 milliseconds"),
        ("[[service_silence:korean]] [[check_age_long:span]]", "2분 2 days"),
        ('{{ $labels.host }} a[5m] {b=~"$host"}', '{{ $labels.host }} a[5m] {b=~"$host"}'),
    ],
)
def test_places_are_filled(text: str, shown: str) -> None:
    assert filled(text, SHIPPED) == shown


@pytest.mark.parametrize("text", ["[[queue_fil_ratio]]", "[[queue_fill_ratio:pct]]", "[[ queue_fill_ratio ]]", "[[]]"])
def test_a_place_for_no_limit_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"names no limit|has no known form"):
        filled(text, SHIPPED)


@given(st.text(alphabet="[]a_:queue fill0{}$", max_size=30))
def test_any_text_is_filled_or_refused(text: str) -> None:
    try:
        check_places(text)
    except SettingError:
        return
    assert filled(text, SHIPPED) == text or "[[" in text
