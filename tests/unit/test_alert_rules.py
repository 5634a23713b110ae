"""The alert rules: every metric exists, every alert is complete, and each fires when it should and not otherwise."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.prometheus.role import rule_files
from rtinfra.limits import project_limits
from rtinfra.metric_catalogue import exposed, load_catalogue, metric_names
from rtinfra.paths import PROJECT
from tests.unit.monitoring_tools import run

#: What hosts get but for the address of the runbook pages, by the name of the file.
RULES = {path.name: text for path, text in rule_files(project_limits()).items()}
RULE_TESTS = sorted((PROJECT / "tests" / "rules").glob("*.yml"))
CATALOGUE = load_catalogue()


def rules() -> Iterator[dict[str, Any]]:
    for text in RULES.values():
        for group in yaml.safe_load(text)["groups"]:
            yield from group["rules"]


ALERTS = [rule for rule in rules() if "alert" in rule]


def named(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


# ---- the rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", list(rules()), ids=named)
def test_every_metric_of_a_rule_exists(rule: dict[str, Any]) -> None:
    assert not metric_names(rule["expr"]) - CATALOGUE.keys()


@pytest.mark.parametrize("rule", ALERTS, ids=named)
def test_an_alert_says_how_urgent_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    urgency = rule["labels"]["severity"], rule["labels"]["priority"]
    assert urgency in (("critical", "P0"), ("warning", "P1"), ("none", "P1"))
    texts = rule["annotations"]
    assert texts.keys() == {"summary", "summary_ko", "description", "runbook_url"}
    assert re.search("[가-힣]", texts["summary_ko"])
    assert texts["runbook_url"] == f"RUNBOOKS/{rule['alert']}"


def test_names_are_unique() -> None:
    names = [named(rule) for rule in rules()]
    assert len(names) == len(set(names))


def test_only_the_watchdog_has_no_severity() -> None:
    assert [rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == "none"] == ["Watchdog"]


def test_every_recorded_metric_is_in_the_catalogue() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded == {metric.name for metric in CATALOGUE.values() if metric.program == "recorded"}


def test_every_application_metric_that_must_exist_is_watched_for_absence() -> None:
    """OB-16, the metrics that every application has from its start."""
    (missing,) = [rule for rule in ALERTS if rule["alert"] == "ApplicationMetricMissing"]
    assert metric_names(missing["expr"]) - {"up"} == {
        "mxrc_rt_cycle_count_total",
        "mxrc_rt_deadline_miss_count_total",
        "mxrc_rt_deadline_miss_rate",
        "mxrc_rt_jitter_us",
        "mxrc_rt_cycle_time_us_sum",
        "mxrc_numa_local_memory_percent",
        "mxrc_process_health_status",
        "mxrc_logging_events_total",
        "mxrc_tracing_sampling_rate",
    }
    # Each line names the same metric twice: what it looks for, and what it says is missing.
    told = re.findall(r'\(instance\) (\w+),\s+"metric", "(\w+)"', missing["expr"])
    assert len(told) == 9
    assert all(looked_for == said for looked_for, said in told)


def test_the_reference_workload_has_what_the_catalogue_says_of_it() -> None:
    source = (PROJECT / "roles" / "rt_app" / "workload" / "mxrc_reference" / "metrics.py").read_text(encoding="utf-8")
    names = {metric.name for metric in CATALOGUE.values() if metric.program == "mxrc"}
    assert not [name for name in sorted(names) if f'"{name}"' not in source]


@pytest.mark.parametrize("name", RULES)
def test_prometheus_takes_the_rules(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(RULES[name], encoding="utf-8")
    result = run("promtool", "check", "rules", "--lint-fatal", path)
    assert result.returncode == 0, result.stdout + result.stderr


# Days of samples are made for the rates at which an error budget burns.
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.name == "burn_rates.yml" else []) for path in RULE_TESTS],
    ids=lambda path: path.name,
)
def test_rules_fire_when_they_should(path: Path, tmp_path: Path) -> None:
    """promtool compares texts too; only texts.yml is about them, the others get the rules without."""
    for name, text in RULES.items():
        document = yaml.safe_load(text)
        if path.name != "texts.yml":
            for group in document["groups"]:
                for rule in group["rules"]:
                    rule.pop("annotations", None)
        (tmp_path / name).write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    result = run("promtool", "test", "rules", shutil.copy(path, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_been_seen_firing_and_silent() -> None:
    fired, silent = set(), set()
    for path in RULE_TESTS:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for expected in case.get("alert_rule_test", ()):
                (fired if expected.get("exp_alerts") else silent).add(expected["alertname"])
    names = {rule["alert"] for rule in ALERTS}
    assert not names - fired
    # The one that is always on cannot be silent.
    assert not names - silent - {"Watchdog"}


# ---- the catalogue ----------------------------------------------------------------------------------------


def test_a_histogram_is_known_by_its_series() -> None:
    assert CATALOGUE["mxrc_rt_cycle_time_us_sum"].name == "mxrc_rt_cycle_time_us"
    assert "mxrc_rt_cycle_time_us" not in CATALOGUE


@pytest.mark.parametrize(
    "text",
    [
        "p:\n  a: {type: counter}\n",
        "p:\n  a: {type: number, meaning: x}\n",
        "p:\n  a: {type: gauge, meaning: x, b: 1}\n",
    ],
)
def test_an_incomplete_entry_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="a needs a type"):
        load_catalogue(path)


def test_a_name_of_two_programs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text("p:\n  a: {type: summary, meaning: x}\nq:\n  a_sum: {type: gauge, meaning: x}\n")
    with pytest.raises(ValueError, match="a_sum is of p and of q"):
        load_catalogue(path)


def test_what_a_program_exposes() -> None:
    page = '# HELP a_total Something.\n# TYPE a_total counter\na_total 1\n# TYPE b histogram\nb_bucket{le="1"} 0\n'
    assert exposed(page) == {"a_total": "counter", "b": "histogram"}


# ---- names in expressions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ("vector(1)", set()),
        ("sum by (host) (rate(a_total[5m])) / on (host) group_left (role) b", {"a_total", "b"}),
        ("sum without(cpu) (a)", {"a"}),
        ("sum(a) by (b)", {"a"}),
        ("a unless on (instance) b offset 5m", {"a", "b"}),
        ('a{b="c", d=~"e|f"} > bool 0.5', {"a"}),
        ("job:a:rate5m and max_over_time(b[1h:5m] offset 1d)", {"job:a:rate5m", "b"}),
        ('{__name__="a", b="c"}', {"a"}),
        ('label_replace(a, "b", "$1", "c", "(d)")', {"a"}),
        ("topk(3, a) or quantile(0.99, b) == inf", {"a", "b"}),
        ("histogram_quantile(0.9, sum by (le) (rate(a_bucket[$__rate_interval])))", {"a_bucket"}),
        ('a{host="$host", b="${c:regex}"} * ${d}', {"a"}),
        ("rate(a[$__range:]) # a comment with b", {"a"}),
        ("count_values('version', a) AND b", {"a", "b"}),
        ("-a ^ 1e-3 % 0x1F @ end()", {"a"}),
        ('sum by (host, operation) (a{result="err"}\n unless last_over_time(a[1h] offset 5m)) > 0', {"a"}),
    ],
)
def test_metric_names(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names


@pytest.mark.parametrize("expression", ["sum((a)", "a)", 'a{b="c}', "a[5m", "a ; b", "rate(a[5m)]", 'a{b="c"'])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"not PromQL|without"):
        metric_names(expression)


names = st.from_regex(r"\A[a-z]{3}_[a-z0-9_:]{1,12}\Z")
selectors = st.builds(
    lambda name, label, value: (f"{name}{{{label}={value}}}", {name}),
    names,
    st.sampled_from(("host", "le", "job")),
    # Whatever stands in a string is no metric.
    st.text(alphabet="abc(){}[]#'` ,=", max_size=10).map(lambda text: f'"{text}"'),
)


def _combine(children: st.SearchStrategy[tuple[str, set[str]]]) -> st.SearchStrategy[tuple[str, set[str]]]:
    operators = st.sampled_from((" + ", " and on (host) ", " unless ignoring(job) ", " > bool ", "/", " or "))
    functions = st.sampled_from(("rate({}[5m])", "sum by (host, le) ({})", "({})", "-{}", "sum({}) without (host)"))
    return st.one_of(
        st.builds(lambda a, sign, b: (f"{a[0]}{sign}{b[0]}", a[1] | b[1]), children, operators, children),
        st.builds(lambda a, around: (around.format(a[0]), a[1]), children, functions),
    )


@settings(deadline=None)
@given(st.recursive(selectors, _combine, max_leaves=8))
def test_names_are_found_however_an_expression_is_built(built: tuple[str, set[str]]) -> None:
    expression, expected = built
    assert metric_names(expression) == expected


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        found = metric_names(text)
    except ValueError:
        return
    assert all(name in text for name in found)
