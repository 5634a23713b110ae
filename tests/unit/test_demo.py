"""The demonstration: what it puts on the second machine, and where it says that can be looked at."""

from __future__ import annotations

from rtinfra.demo import BACKEND_IMAGES, URLS, backend_groups
from tests.unit.telemetry_site import shipped


def test_everything_that_was_built_is_shown() -> None:
    assert backend_groups(BACKEND_IMAGES) == ("gateways", "jaeger", "prometheus", "alertmanager", "lab_backends")


def test_without_go_there_is_what_debian_has() -> None:
    assert backend_groups(("alertmanager",)) == ("alertmanager",)


def test_a_gateway_needs_everything_it_sends_to() -> None:
    assert backend_groups(("otelcol", "prometheus", "alertmanager")) == ("prometheus", "alertmanager")


def test_addresses_are_those_of_the_shipped_settings() -> None:
    alertmanager = shipped("alertmanager")
    ports = {alertmanager.port, alertmanager.log_port, shipped("jaeger").ui_port, shipped("prometheus").port}
    assert set(URLS) == ports
