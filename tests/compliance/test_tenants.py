"""Tenants: each has the retention and the limits that are set, read back from the running programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from roles.host import HostConfig
from roles.loki import model as loki_model
from roles.loki.model import LOKI
from roles.mimir import model as mimir_model
from roles.mimir.model import MIMIR
from roles.shape import FleetView
from roles.tempo import model as tempo_model
from roles.tempo.model import TEMPO
from rtinfra.facts.http import HttpAnswer
from rtinfra.verify import expect, telemetry
from rtinfra.verify.look.answers import Answers


def _yaml(answer: HttpAnswer) -> Mapping[str, Any]:
    expect.equal(answer.status, 200, f"HTTP status of {answer.url}")
    document: Mapping[str, Any] = yaml.safe_load(answer.body)
    return document


def _overrides(answer: HttpAnswer, view: FleetView) -> Mapping[str, Mapping[str, Any]]:
    overrides: Mapping[str, Mapping[str, Any]] = _yaml(answer).get("overrides") or {}
    expect.nothing(sorted(view.telemetry.tenants.keys() - overrides.keys()), "tenants it does not know")
    return overrides


@pytest.mark.every_host
@pytest.mark.control(id="OB-11.1", severity="high", title="What the host sends belongs to a tenant that is defined")
def test_tenant_is_defined(view: FleetView) -> None:
    telemetry_settings = view.telemetry
    known = sorted(telemetry_settings.tenants)
    expect.that(telemetry_settings.tenant in known, telemetry_settings.tenant, f"one of {', '.join(known)}", "tenant")


@pytest.mark.on("loki")
@pytest.mark.control(id="OB-11.10", severity="high", title="Loki keeps each tenant's logs as long as it is set")
def test_loki_retention(answers: Answers, config: HostConfig, view: FleetView) -> None:
    for name, tenant in view.telemetry.tenants.items():
        limits = _yaml(answers.last(view.url(config[LOKI].port, f"{loki_model.LIMITS_PAGE}?tenant={name}")))
        telemetry.same_duration(limits.get("retention_period"), tenant.logs_retention, f"retention of {name}")


@pytest.mark.on("loki")
@pytest.mark.control(id="OB-11.11", severity="high", title="Loki really deletes logs that are too old")
def test_loki_deletes(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[LOKI].port, loki_model.CONFIG_PAGE)))
    expect.entries(seen["compactor"], {"retention_enabled": True}, "compactor")
    expect.that(bool(seen["compactor"].get("delete_request_store")), "nothing", "a store", "list of what to delete")


@pytest.mark.on("loki")
@pytest.mark.control(id="OB-11.12", severity="critical", title="Loki keeps tenants apart")
def test_loki_separates(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[LOKI].port, loki_model.CONFIG_PAGE)))
    expect.entries(seen, {"auth_enabled": True}, "Loki")


@pytest.mark.on("tempo")
@pytest.mark.control(id="OB-11.20", severity="high", title="Tempo keeps each tenant's traces as long as it is set")
def test_tempo_retention(answers: Answers, config: HostConfig, view: FleetView) -> None:
    overrides = _overrides(answers.last(view.url(config[TEMPO].port, tempo_model.OVERRIDES_PAGE)), view)
    for name, tenant in view.telemetry.tenants.items():
        retention = overrides[name].get("compaction", {}).get("block_retention")
        telemetry.same_duration(retention, tenant.traces_retention, f"retention of {name}")


@pytest.mark.on("tempo")
@pytest.mark.control(id="OB-11.21", severity="critical", title="Tempo keeps tenants apart")
def test_tempo_separates(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[TEMPO].port, tempo_model.CONFIG_PAGE)))
    expect.entries(seen, {"multitenancy_enabled": True}, "Tempo")


@pytest.mark.on("mimir")
@pytest.mark.control(id="OB-11.30", severity="high", title="Mimir keeps each tenant's metrics as long as it is set")
def test_mimir_retention(answers: Answers, config: HostConfig, view: FleetView) -> None:
    overrides = _overrides(answers.last(view.url(config[MIMIR].port, mimir_model.RUNTIME_CONFIG_PAGE)), view)
    for name, tenant in view.telemetry.tenants.items():
        retention = overrides[name].get("compactor_blocks_retention_period")
        telemetry.same_duration(retention, tenant.metrics_retention, f"retention of {name}")


@pytest.mark.on("mimir")
@pytest.mark.control(id="OB-11.31", severity="high", title="Mimir holds each tenant to the limits that are set")
def test_mimir_limits(answers: Answers, config: HostConfig, view: FleetView) -> None:
    overrides = _overrides(answers.last(view.url(config[MIMIR].port, mimir_model.RUNTIME_CONFIG_PAGE)), view)
    for name, tenant in view.telemetry.tenants.items():
        found = {key: float(value) for key, value in overrides[name].items() if isinstance(value, int | float)}
        required = {
            "ingestion_rate": float(tenant.samples_per_second),
            "max_global_series_per_user": float(tenant.series),
        }
        expect.entries(found, required, f"limits of {name}")


@pytest.mark.on("mimir")
@pytest.mark.control(id="OB-11.32", severity="critical", title="Mimir keeps tenants apart")
def test_mimir_separates(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[MIMIR].port, mimir_model.CONFIG_PAGE)))
    expect.entries(seen, {"multitenancy_enabled": True}, "Mimir")
