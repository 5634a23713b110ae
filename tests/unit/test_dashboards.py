"""The dashboards: every datasource and every metric exists, everything that must be shown is, and it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.grafana.dashboard_file import DASHBOARDS, WIDTH, load_dashboard
from roles.grafana.dashboards import dashboards
from roles.grafana.datasource_file import datasources
from roles.grafana.panels import to_json
from roles.shape import FleetView
from rtinfra.config import ConfigError
from rtinfra.metric_catalogue import load_catalogue, metric_names
from tests.unit.telemetry_site import here, telemetry, view

# OB-16.
APPLICATION = {
    "mxrc_rt_cycle_count_total",
    "mxrc_rt_deadline_miss_count_total",
    "mxrc_rt_deadline_miss_rate",
    "mxrc_rt_jitter_us",
    "mxrc_rt_cycle_time_us_sum",
    "mxrc_numa_local_memory_percent",
    "mxrc_process_health_status",
    "mxrc_logging_events_total",
    "mxrc_tracing_sampling_rate",
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "rbac_permission_checks_total",
    "approval_requests_total",
    "mcp_tool_executions_total",
    "system_resource_usage",
}
# PF-2, with the namespace rtinfra.
PREFLIGHT = {
    "rtinfra_preflight_runs_total",
    "rtinfra_preflight_last_success",
    "rtinfra_preflight_duration_seconds_sum",
    "rtinfra_preflight_checks_total",
    "rtinfra_preflight_realcheck_redis_latency_seconds_bucket",
    "rtinfra_preflight_realcheck_postgres_latency_seconds_bucket",
    "rtinfra_preflight_ready_for_live",
}
DRIFT = {"rtinfra_drift_items", "rtinfra_drift_found", "rtinfra_drift_last_run_timestamp_seconds"}
COMPLIANCE = {"rtinfra_compliance_controls", "rtinfra_compliance_last_run_timestamp_seconds"}

SITES = {
    "prometheus": view(prometheus=here()),
    "mimir": view(mimir=here(), shared=telemetry(metrics="mimir")),
    "both": view(prometheus=here(), mimir=here(), shared=telemetry(metrics="mimir", tenant="staging")),
}


def boards(where: FleetView) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(to_json(board))) for board in dashboards(where)]


def panels(where: FleetView) -> Iterator[dict[str, Any]]:
    """Every panel that shows something."""
    for board in boards(where):
        yield from (panel for panel in board["panels"] if panel["type"] != "row")


def used_metrics(where: FleetView) -> set[str]:
    return {name for panel in panels(where) for target in panel["targets"] for name in metric_names(target["expr"])}


def test_there_are_the_four_dashboards() -> None:
    found = boards(SITES["prometheus"])
    assert {board["title"] for board in found} == {
        "System overview",
        "RT host",
        "Telemetry pipeline",
        "Preflight and compliance",
    }
    assert len({board["uid"] for board in found}) == 4


@pytest.mark.parametrize("name", SITES)
def test_every_datasource_of_a_panel_is_provisioned(name: str) -> None:
    where = SITES[name]
    provisioned = {source["uid"]: source["type"] for source in datasources(where)}
    for board in boards(where):
        for item in (*board["panels"], *board["templating"]["list"]):
            sources = [item["datasource"]] if "datasource" in item else []
            sources += [target["datasource"] for target in item.get("targets", ())]
            for source in sources:
                assert provisioned[source["uid"]] == source["type"], item.get("title")


def test_with_mimir_each_dashboard_looks_at_the_tenant_that_has_its_data() -> None:
    found = {
        board["title"]: {panel["datasource"]["uid"] for panel in board["panels"] if panel["type"] != "row"}
        for board in boards(SITES["both"])
    }
    assert found["RT host"] == {"mimir-staging"}
    assert found["Telemetry pipeline"] == {"mimir-infra-monitoring"}


def test_every_metric_is_in_the_catalogue() -> None:
    assert used_metrics(SITES["prometheus"]) <= load_catalogue().keys()


def test_every_label_that_is_asked_for_is_one_of_the_metric() -> None:
    # What scraping adds to all metrics, and what PromQL itself makes.
    common = {"job", "instance", "host", "role", "tenant", "environment", "le"}
    catalogue = load_catalogue()
    for panel in panels(SITES["prometheus"]):
        for target in panel["targets"]:
            known = common.union(*(catalogue[name].labels for name in metric_names(target["expr"])))
            legend = set(_words(target["legendFormat"]))
            assert legend <= known, panel["title"]


def _words(legend: str) -> Iterator[str]:
    for part in legend.split("{{")[1:]:
        yield part.partition("}}")[0]


def test_all_application_metrics_are_shown() -> None:
    assert used_metrics(SITES["prometheus"]) >= APPLICATION


def test_preflight_and_compliance_are_shown_in_rows_of_their_own() -> None:
    (board,) = [found for found in boards(SITES["prometheus"]) if found["uid"] == "rtinfra-preflight"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for panel in board["panels"]:
        if panel["type"] == "row":
            current = rows.setdefault(panel["title"], [])
        else:
            current.append(panel)
    metrics = {
        title: {name for panel in inside for target in panel["targets"] for name in metric_names(target["expr"])}
        for title, inside in rows.items()
    }
    assert len(rows["Preflight"]) >= 4
    assert metrics["Preflight"] >= PREFLIGHT
    assert metrics["Compliance"] >= COMPLIANCE
    assert metrics["Drift"] >= DRIFT


def test_ids_are_unique_and_the_same_every_time() -> None:
    for board, again in zip(boards(SITES["prometheus"]), boards(SITES["prometheus"]), strict=True):
        assert board == again
        identities = [panel["id"] for panel in board["panels"]]
        assert identities == list(range(1, len(identities) + 1))


def test_no_two_panels_overlap_and_none_leaves_the_page() -> None:
    for board in boards(SITES["prometheus"]):
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] >= 0 and place["x"] + place["w"] <= WIDTH
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_it_can_be_read_by_people_outside_it() -> None:
    """Every panel says what it shows, in a unit; the first row answers whether all is well, in colours."""
    for board in boards(SITES["prometheus"]):
        first = [panel for panel in board["panels"] if panel["type"] != "row"][:3]
        assert all(panel["type"] == "stat" for panel in first)
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            assert panel["description"].endswith(".") and len(panel["title"]) <= 32
            assert panel["fieldConfig"]["defaults"]["unit"]
        for panel in first[:2]:
            colours = {step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]}
            assert {"green", "red"} <= colours


# ---- the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_is_called_what_its_dashboard_is(path: Path) -> None:
    assert load_dashboard(path).uid == f"rtinfra-{path.stem}"


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("kind: number", "kind: pie", "rows.0.panels.0.kind", "must be one of number, graph, bars"),
        ("max(otel", "max((otel", "rows.0.panels.0.queries.0.expression", "is not PromQL: ( without its end"),
        (
            "orange: watchdog_silence,",
            "orange: watchdog,",
            "rows.0.panels.5.steps.orange",
            "did you mean watchdog_silence",
        ),
        ("red: watchdog_silence_long", "red: disk_ignored_types", "rows.0.panels.5.steps.red", "must be the name"),
        ("red: watchdog_silence_long", "red: 600", "rows.0.panels.5.steps.red", ""),
        (
            "{green: null, orange: watch",
            "{green: 1, orange: watch",
            "rows.0.panels.5",
            "no other, has the threshold null",
        ),
        ("unit: s\n        steps", "units: s\n        steps", "rows.0.panels.5.units", "did you mean unit?"),
        ("fires came.", "fires came [[once]].", "rows.0.panels.5.description", "[[once]] names no limit"),
        ("width: 8", "width: 25", "rows.1.panels.0.width", "must be"),
        ("metrics: monitoring", "metrics: all", "metrics", "must be one of own, monitoring"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(tmp_path: Path, old: str, new: str, key: str, said: str) -> None:
    text = (DASHBOARDS / "telemetry.yaml").read_text(encoding="utf-8")
    path = tmp_path / "telemetry.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_dashboard(path)
    (problem,) = error.value.problems
    # The line of the key; of a panel as a whole, its first.
    place = text[: text.index("title: Alerting proves" if key == "rows.0.panels.5" else old)].count("\n") + 1
    assert (problem.file, problem.line, problem.key) == (str(path), place, key)
    assert said.lower() in str(problem).lower()
