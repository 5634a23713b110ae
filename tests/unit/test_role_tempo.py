"""Tempo as configured (OB-9, OB-11, OB-12)."""

from __future__ import annotations

from typing import Any

from roles.shape import FleetView, RoleState
from roles.tempo.role import state
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import document, here, resource, shipped, telemetry, view

TEMPO = "/etc/rtinfra/tempo/tempo.yaml"
OVERRIDES = "/etc/rtinfra/tempo/overrides.yaml"


def tempo(where: FleetView) -> RoleState:
    return state(shipped("tempo"), where)


def retentions(config: dict[str, Any]) -> tuple[str, str, str]:
    """Retention of the worker, of the scheduler, of tenants that nobody defined."""
    return (
        config["backend_worker"]["compaction"]["block_retention"],
        config["backend_scheduler"]["provider"]["compaction"]["compaction"]["block_retention"],
        config["overrides"]["defaults"]["compaction"]["block_retention"],
    )


def test_the_row_is_met() -> None:
    config = tempo(view(tempo=here(), mimir=here()))
    loaded, overrides = document(config, TEMPO), document(config, OVERRIDES)["overrides"]
    assert loaded["server"]["http_listen_port"] == 3200
    assert overrides["prod"]["compaction"]["block_retention"] == "336h"  # 14 d
    assert overrides["staging"]["compaction"]["block_retention"] == "168h"  # 7 d
    assert loaded["multitenancy_enabled"] is True
    assert loaded["metrics_generator"]["storage"]["remote_write"] == [
        {"url": "http://192.0.2.1:9009/api/v1/push", "send_exemplars": True}
    ]
    for limits in (loaded["overrides"]["defaults"], *overrides.values()):
        assert limits["metrics_generator"]["processors"] == ["service-graphs", "span-metrics"]


def test_worker_and_scheduler_agree() -> None:
    shared = telemetry(tenants={"prod": {"traces_retention": "30d"}})
    assert retentions(document(tempo(view(tempo=here(), shared=shared)), TEMPO)) == ("720h", "720h", "720h")


def test_a_tenant_has_every_limit_that_the_defaults_have() -> None:
    """An entry replaces the defaults: a limit it leaves out is zero."""

    def keys(tree: Any, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return {prefix}
        return {key for name, child in tree.items() for key in keys(child, f"{prefix}.{name}")}

    config = tempo(view(tempo=here(), prometheus=()))
    defaults = keys(document(config, TEMPO)["overrides"]["defaults"])
    for entry in document(config, OVERRIDES)["overrides"].values():
        assert keys(entry) == defaults
        assert entry["ingestion"]["rate_limit_bytes"] > 0


def test_no_section_of_the_old_generation() -> None:
    loaded = document(tempo(view(tempo=here())), TEMPO)
    assert not {"ingester", "compactor", "ingester_client", "metrics_generator_client"} & loaded.keys()
    # Flat overrides, such as overrides.block_retention, are refused.
    assert loaded["overrides"].keys() == {"per_tenant_override_config", "defaults"}


def test_without_a_metrics_backend_no_metrics_are_made() -> None:
    config = tempo(view(tempo=here()))
    assert "metrics_generator" not in document(config, TEMPO)
    for entry in document(config, OVERRIDES)["overrides"].values():
        assert entry["metrics_generator"]["processors"] == []


def test_spans_are_taken_from_other_hosts() -> None:
    protocols = document(tempo(view(tempo=here())), TEMPO)["distributor"]["receivers"]["otlp"]["protocols"]
    assert protocols["grpc"]["endpoint"].startswith("0.0.0.0:")
    assert protocols["http"]["endpoint"].startswith("0.0.0.0:")


def test_with_a_garage_blocks_are_kept_there() -> None:
    storage = document(tempo(view(tempo=here(), garage=here())), TEMPO)["storage"]["trace"]
    assert (storage["backend"], storage["s3"]["bucket"], storage["s3"]["forcepathstyle"]) == ("s3", "tempo", True)


def test_it_is_checked_by_tempo_before_it_goes_live() -> None:
    file = resource(tempo(view(tempo=here())), TEMPO)
    assert isinstance(file, File) and file.validate is not None
    assert file.validate.endswith("/tempo -config.verify -config.file=/etc/tempo/checked")
