"""Alloy as configured (OB-7)."""

from __future__ import annotations

import re

from roles.alloy.role import state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import here, resource, shipped, telemetry, text, view

CONFIG = "/etc/rtinfra/alloy/config.alloy"


def alloy(where: FleetView) -> RoleState:
    return state(shipped("alloy"), where)


def full() -> FleetView:
    return view(alloy=here(), loki=here(), tempo=here(), mimir=here())


def block(config: str, name: str) -> str:
    """The text of a block of the top level, for example `otelcol.processor.batch "prod"`."""
    match = re.search(rf"^{re.escape(name)} \{{\n(.*?)^\}}", config, re.MULTILINE | re.DOTALL)
    assert match, name
    return match[1]


def test_the_row_is_met() -> None:
    config = text(alloy(full()), CONFIG)
    receiver = block(config, 'otelcol.receiver.otlp "default"')
    assert '"0.0.0.0:4317"' in receiver and '"0.0.0.0:4318"' in receiver
    limiter = block(config, 'otelcol.processor.memory_limiter "default"')
    assert 'limit          = "512MiB"' in limiter
    assert f'spike_limit    = "{512 * 1024 * 20 // 100}KiB"' in limiter
    (container,) = alloy(full()).containers
    assert "--server.http.listen-addr=192.0.2.1:12345" in container.command
    assert "--disable-reporting" in container.command


def test_every_exporter_retries_from_1_to_30_seconds_for_5_minutes() -> None:
    config = text(alloy(full()), CONFIG)
    exporters = re.findall(r'^otelcol\.exporter\.otlphttp "\w+"', config, re.MULTILINE)
    assert len(exporters) == 9
    for exporter in exporters:
        body = block(config, exporter)
        assert re.findall(r'(\w+_interval|max_elapsed_time)\s+= "(\w+)"', body) == [
            ("initial_interval", "1s"),
            ("max_interval", "30s"),
            ("max_elapsed_time", "5m"),
        ]


def test_each_tenant_has_its_batches_and_its_header() -> None:
    config = text(alloy(full()), CONFIG)
    for tenant in telemetry().tenants:
        label = tenant.replace("-", "_")
        kept = block(config, f'otelcol.processor.filter "{label}"')
        assert kept.count(f'resource.attributes["tenant_id"] != "{tenant}"') == 3
        assert f"otelcol.processor.batch.{label}.input" in kept
        for signal, endpoint in (
            ("logs", "http://192.0.2.1:3100/otlp"),
            ("traces", "http://192.0.2.1:24318"),
            ("metrics", "http://192.0.2.1:9009/otlp"),
        ):
            assert f"otelcol.exporter.otlphttp.{label}_{signal}.input" in block(
                config, f'otelcol.processor.batch "{label}"'
            )
            body = block(config, f'otelcol.exporter.otlphttp "{label}_{signal}"')
            assert f'endpoint = "{endpoint}"' in body
            assert f'"X-Scope-OrgID" = "{tenant}"' in body


def test_every_component_that_is_named_exists() -> None:
    for where in (full(), view(alloy=here(), loki=here()), view(alloy=here(), prometheus=here())):
        config = text(alloy(where), CONFIG)
        defined = {f"{kind}.{label}" for kind, label in re.findall(r'^([\w.]+) "(\w+)" \{', config, re.MULTILINE)}
        used = set(re.findall(r"((?:otelcol|prometheus)\.[\w.]+)\.(?:input|receiver|targets)\b", config))
        assert used <= defined
        # What nobody uses would be a tenant or a signal that goes nowhere.
        assert defined - used == {
            name for name in defined if name.startswith(("otelcol.receiver.otlp", "prometheus.scrape"))
        }


def test_the_memory_limit_comes_first() -> None:
    receiver = block(text(alloy(full()), CONFIG), 'otelcol.receiver.otlp "default"')
    assert set(re.findall(r"\[(.*?)\]", receiver)) == {"otelcol.processor.memory_limiter.default.input"}


def test_data_of_nobody_is_seen_by_those_who_look_after_the_stack() -> None:
    transform = block(text(alloy(full()), CONFIG), 'otelcol.processor.transform "tenant"')
    assert transform.count('set(attributes["tenant_id"], "infra-monitoring")') == 3
    assert '"^(prod|staging|infra-monitoring)$"' in transform


def test_it_reports_on_itself_into_the_infra_tenant() -> None:
    config = text(alloy(full()), CONFIG)
    target = "otelcol.processor.batch.infra_monitoring.input"
    assert target in block(config, 'otelcol.receiver.prometheus "self"')
    assert target in block(config, 'otelcol.receiver.loki "self"')
    assert target in block(config, "tracing")


def test_a_signal_that_nobody_stores_is_not_taken_in() -> None:
    config = text(alloy(view(alloy=here(), loki=here())), CONFIG)
    receiver = block(config, 'otelcol.receiver.otlp "default"')
    assert "traces = []" in receiver and "metrics = []" in receiver and "logs = []" not in receiver


def test_it_is_checked_by_alloy_before_it_goes_live() -> None:
    file = resource(alloy(full()), CONFIG)
    assert isinstance(file, File) and file.validate is not None
    assert file.validate.endswith("/bin/alloy validate /etc/alloy/checked")
