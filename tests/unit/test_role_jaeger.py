"""The `jaeger` role: traces, on the disk."""

from __future__ import annotations

import pytest

from roles.jaeger import role as jaeger
from roles.shape import RoleState
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import document, resource, shipped, view

CONFIG = "/etc/rtinfra/jaeger/config.yaml"


@pytest.fixture
def part() -> RoleState:
    return jaeger.state(shipped("jaeger", retention="3d"), view("j", "192.0.2.21"))


def test_spans_are_on_the_disk_before_they_are_acknowledged(part: RoleState) -> None:
    config = document(part, CONFIG)
    badger = config["extensions"]["jaeger_storage"]["backends"]["disk"]["badger"]
    assert badger["ephemeral"] is False
    assert badger["consistency"] is True
    pipeline = config["service"]["pipelines"]["traces"]
    assert "processors" not in pipeline
    assert config["exporters"]["jaeger_storage_exporter"] == {"trace_storage": "disk"}


def test_speed_may_be_worth_more_than_the_last_seconds() -> None:
    part = jaeger.state(shipped("jaeger", sync_writes=False), view("j", "192.0.2.21"))
    badger = document(part, CONFIG)["extensions"]["jaeger_storage"]["backends"]["disk"]["badger"]
    assert badger["consistency"] is False


def test_what_it_stores_is_in_the_data_directory(part: RoleState) -> None:
    (container,) = part.containers
    (inside,) = container.data.values()
    directories = document(part, CONFIG)["extensions"]["jaeger_storage"]["backends"]["disk"]["badger"]["directories"]
    assert all(path.startswith(f"{inside}/") for path in directories.values())


def test_retention(part: RoleState) -> None:
    badger = document(part, CONFIG)["extensions"]["jaeger_storage"]["backends"]["disk"]["badger"]
    assert badger["ttl"] == {"spans": f"{3 * 24 * 3600}s"}


def test_it_listens_where_others_look(part: RoleState) -> None:
    config = document(part, CONFIG)
    extensions, protocols = config["extensions"], config["receivers"]["otlp"]["protocols"]
    assert extensions["jaeger_query"]["http"]["endpoint"] == "192.0.2.21:16686"
    assert extensions["jaeger_query"]["grpc"]["endpoint"] == "192.0.2.21:16685"
    assert protocols["grpc"]["endpoint"] == "192.0.2.21:14317"
    (container,) = part.containers
    assert container.ready == "http://192.0.2.21:13135/status"
    assert extensions["healthcheckv2"]["http"]["endpoint"] == "192.0.2.21:13135"


def test_the_configuration_is_checked_before_it_goes_live(part: RoleState) -> None:
    file = resource(part, CONFIG)
    assert isinstance(file, File)
    assert file.validate is not None
    assert "/jaeger validate --config=file:" in file.validate
    assert file.restarts == ("jaeger.service",)
