"""Grafana as configured: offline, its datasources, the links between them (OB-14, OB-15)."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from roles.grafana.role import state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import document, here, resource, shipped, telemetry, text, view

SOURCES = "/etc/rtinfra/grafana/provisioning/datasources/rtinfra.yaml"
EVERYTHING = ("prometheus", "alertmanager", "jaeger", "loki", "tempo", "mimir", "elasticsearch")


def everything(**changes: Any) -> FleetView:
    """A site with every backend on one host."""
    return view(shared=telemetry(**changes), grafana=here(), **{role: here() for role in EVERYTHING})


def grafana(where: FleetView) -> RoleState:
    return state(shipped("grafana"), where)


def sources(where: FleetView) -> dict[str, dict[str, Any]]:
    """Datasources by uid."""
    found = document(grafana(where), SOURCES)["datasources"]
    assert len({source["uid"] for source in found}) == len({source["name"] for source in found}) == len(found)
    return {source["uid"]: source for source in found}


def test_every_backend_and_tenant_has_a_datasource_with_a_fixed_uid() -> None:
    tenants = ("prod", "staging", "infra-monitoring")
    assert sources(everything()).keys() == {
        *("prometheus", "alertmanager", "jaeger", "elasticsearch"),
        *(f"{role}-{tenant}" for role in ("loki", "tempo", "mimir") for tenant in tenants),
    }
    assert sources(view(grafana=here(), prometheus=here())).keys() == {"prometheus"}
    assert sources(view(grafana=here())) == {}


def test_a_tenants_datasource_names_the_tenant() -> None:
    for identity, source in sources(everything()).items():
        role, _, tenant = identity.partition("-")
        if role in ("loki", "tempo", "mimir"):
            assert source["jsonData"]["httpHeaderName1"] == "X-Scope-OrgID"
            assert source["secureJsonData"]["httpHeaderValue1"] == tenant
        else:
            assert "httpHeaderName1" not in source["jsonData"]


def test_nobody_changes_them_by_hand_and_old_ones_go() -> None:
    loaded = document(grafana(everything()), SOURCES)
    assert (loaded["apiVersion"], loaded["prune"]) == (1, True)
    assert all(source["editable"] is False and source["access"] == "proxy" for source in loaded["datasources"])


def test_they_point_at_the_members() -> None:
    found = sources(everything())
    assert found["loki-prod"]["url"] == "http://192.0.2.1:3100"
    assert found["tempo-prod"]["url"] == "http://192.0.2.1:3200"
    assert found["mimir-prod"]["url"] == "http://192.0.2.1:9009/prometheus"
    assert found["elasticsearch"]["url"] == "http://192.0.2.1:9200"
    assert {source["type"] for source in found.values()} == {
        *("prometheus", "alertmanager", "jaeger", "loki", "tempo", "elasticsearch")
    }


def links(tree: Any) -> Iterator[str]:
    """Every uid that something refers to."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            if key in ("datasourceUid", "alertmanagerUid"):
                yield child
            else:
                yield from links(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from links(child)


@pytest.mark.parametrize(
    "missing", [(), *((role,) for role in EVERYTHING), ("jaeger", "tempo"), ("prometheus", "mimir")]
)
def test_no_link_leads_nowhere(missing: tuple[str, ...]) -> None:
    present = {role: here() for role in EVERYTHING if role not in missing}
    found = sources(view(grafana=here(), **present))
    assert set(links(list(found.values()))) <= found.keys()


@pytest.mark.parametrize(("traces", "target"), [("jaeger", "jaeger"), ("tempo", "tempo-prod")])
def test_logs_metrics_and_traces_lead_to_each_other(traces: str, target: str) -> None:
    found = sources(everything(traces=traces, logs="loki", metrics="mimir"))
    # Log -> trace.
    fields = {field["name"]: field for field in found["loki-prod"]["jsonData"]["derivedFields"]}
    assert all(field["datasourceUid"] == target for field in fields.values())
    match = re.search(fields["trace.id"]["matcherRegex"], '{"log.level":"error","trace.id":"4bf92f3577b34da6"}')
    assert match and match[1] == "4bf92f3577b34da6"
    assert fields["trace_id"]["matcherType"] == "label"
    (link,) = found["elasticsearch"]["jsonData"]["dataLinks"]
    assert (link["field"], link["datasourceUid"]) == ("trace.id", target)
    # Exemplar -> trace.
    for destination in found["mimir-prod"]["jsonData"]["exemplarTraceIdDestinations"]:
        assert destination["datasourceUid"] == target
    # Trace -> logs, trace -> metrics.
    data = found[target]["jsonData"]
    assert data["tracesToLogsV2"]["datasourceUid"] == "loki-prod"
    assert "$${__trace.traceId}" in data["tracesToLogsV2"]["query"]
    assert data["tracesToMetrics"]["datasourceUid"] == "mimir-prod"


def test_traces_of_one_tenant_never_lead_to_another() -> None:
    found = sources(everything(traces="tempo", logs="loki", metrics="mimir"))
    for identity, source in found.items():
        role, _, tenant = identity.partition("-")
        if role in ("loki", "tempo", "mimir"):
            for target in links(source):
                assert target == "alertmanager" or target.endswith(f"-{tenant}")


def test_a_single_dollar_is_only_used_to_read_a_file() -> None:
    """Grafana replaces $x in provisioning files by the environment."""
    single = re.findall(r"(?<!\$)\$(?!\$)[^\"]*", text(grafana(everything()), SOURCES))
    assert single == ["$__file{/etc/grafana/elastic_reader}"]


def test_passwords_are_in_files_only_grafana_reads() -> None:
    config = grafana(everything())
    for name, secret in (("admin_password", "grafana_admin_password"), ("elastic_reader", "elastic_reader_password")):
        file = resource(config, f"/etc/rtinfra/grafana/{name}")
        assert isinstance(file, File)
        assert (file.content, file.mode, file.secret) == (f"value-of-{secret}".encode(), "0600", True)
    (container,) = config.containers
    for file in container.config:
        assert file.secret or b"value-of" not in file.content


def test_it_asks_nobody_outside() -> None:
    ini = configparser.RawConfigParser()
    ini.read_string(text(grafana(everything()), "/etc/rtinfra/grafana/grafana.ini"))
    assert ini["server"]["http_port"] == "3000"
    assert ini["security"]["admin_password"] == "$__file{/etc/grafana/admin_password}"
    expected = {
        "analytics": {
            "reporting_enabled": "false",
            "check_for_updates": "false",
            "check_for_plugin_updates": "false",
        },
        "security": {"disable_gravatar": "true"},
        "plugins": {"preinstall_disabled": "true", "plugin_admin_enabled": "false"},
        "news": {"news_feed_enabled": "false"},
        "snapshots": {"external_enabled": "false"},
        "auth.anonymous": {"enabled": "false"},
    }
    for section, values in expected.items():
        for name, value in values.items():
            assert ini[section][name] == value


def test_the_home_page_is_a_dashboard_that_exists() -> None:
    config = grafana(everything())
    ini = configparser.RawConfigParser()
    ini.read_string(text(config, "/etc/rtinfra/grafana/grafana.ini"))
    path = ini["dashboards"]["default_home_dashboard_path"].replace("/etc/grafana", "/etc/rtinfra/grafana")
    assert json.loads(text(config, path))["title"] == "System overview"
    provider = document(config, "/etc/rtinfra/grafana/provisioning/dashboards/rtinfra.yaml")["providers"][0]
    assert (provider["options"]["path"], provider["allowUiUpdates"]) == ("/etc/grafana/dashboards", False)


def test_without_a_metrics_backend_there_is_no_dashboard() -> None:
    config = grafana(view(grafana=here(), loki=here()))
    (container,) = config.containers
    assert not [file.path for file in container.config if "/dashboards/" in file.path and file.path.endswith(".json")]
    assert "default_home_dashboard_path" not in text(config, "/etc/rtinfra/grafana/grafana.ini")
