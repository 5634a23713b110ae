"""Loki as configured (OB-8, OB-11, OB-12)."""

from __future__ import annotations

import pytest

from roles.loki.role import state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import at, document, here, resource, shipped, telemetry, text, view

LOKI = "/etc/rtinfra/loki/loki.yaml"
OVERRIDES = "/etc/rtinfra/loki/overrides.yaml"


def loki(where: FleetView) -> RoleState:
    return state(shipped("loki"), where)


def test_the_row_is_met() -> None:
    config = document(loki(view(loki=here())), LOKI)
    (schema,) = config["schema_config"]["configs"]
    assert (schema["store"], schema["schema"], schema["index"]["period"]) == ("tsdb", "v13", "24h")
    assert config["limits_config"]["retention_period"] == "168h"
    assert config["limits_config"]["allow_structured_metadata"] is True
    assert config["pattern_ingester"]["enabled"] is True
    assert config["server"]["http_listen_port"] == 3100
    assert config["auth_enabled"] is True


def test_retention_is_applied_and_not_only_set() -> None:
    compactor = document(loki(view(loki=here())), LOKI)["compactor"]
    assert compactor["retention_enabled"] is True
    assert compactor["delete_request_store"] == "filesystem"


def test_every_tenant_has_its_own_retention() -> None:
    shared = telemetry(tenants={"staging": {"logs_retention": "2d"}, "prod": {"logs_retention": "90min"}})
    config = loki(view(loki=here(), shared=shared))
    overrides = document(config, OVERRIDES)["overrides"]
    assert {name: entry["retention_period"] for name, entry in overrides.items()} == {
        "prod": "90m",
        "staging": "48h",
        "infra-monitoring": "168h",
    }
    assert document(config, LOKI)["runtime_config"]["file"] == "/etc/loki/overrides.yaml"


def test_it_is_checked_by_loki_before_it_goes_live() -> None:
    file = resource(loki(view(loki=here())), LOKI)
    assert isinstance(file, File) and file.validate is not None
    assert file.validate.endswith("/usr/bin/loki -verify-config -config.file=/etc/loki/checked")
    assert file.restarts == ("loki.service",)


@pytest.mark.parametrize(("garage", "setup"), [(here(), "rtinfra-garage-setup.service"), (at("s3", "192.0.2.9"), None)])
def test_with_a_garage_records_are_kept_there(garage: object, setup: str | None) -> None:
    config = loki(view(loki=here(), garage=garage))  # type: ignore[arg-type]
    (container,) = config.containers
    loaded = document(config, LOKI)
    address = "192.0.2.1" if setup else "192.0.2.9"
    assert loaded["common"]["storage"]["s3"]["endpoint"] == f"{address}:3900"
    assert loaded["common"]["storage"]["s3"]["region"] == "garage"
    assert loaded["schema_config"]["configs"][0]["object_store"] == "s3"
    assert loaded["compactor"]["delete_request_store"] == "s3"
    # The buckets must be there before Loki starts, when this host makes them.
    assert container.after == ((setup,) if setup else ())


def test_the_key_is_in_no_readable_file() -> None:
    config = loki(view(loki=here(), garage=here()))
    file = resource(config, "/etc/rtinfra/loki/s3.env")
    assert isinstance(file, File)
    assert (file.mode, file.secret, file.owner) == ("0600", True, "rtinfra-loki")
    assert file.content == b"S3_KEY_ID=value-of-garage_s3_key_id\nS3_KEY_SECRET=value-of-garage_s3_key\n"
    assert "value-of" not in text(config, LOKI)
    (container,) = config.containers
    assert container.environment_files == (file.path,) and "-config.expand-env=true" in container.command
    assert "value-of" not in repr(container)


def test_nothing_is_reported_to_the_outside() -> None:
    assert document(loki(view(loki=here())), LOKI)["analytics"]["reporting_enabled"] is False


def test_it_is_ready_at_its_port() -> None:
    (container,) = loki(view(loki=here())).containers
    assert container.ready == "http://192.0.2.1:3100/ready"
    assert container.account.uid == 425
