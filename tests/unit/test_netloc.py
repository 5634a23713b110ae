"""host:port, URLs and what is rendered from them, with addresses of both families."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from roles.agents import role as agents
from roles.gateways import role as gateways
from roles.jaeger import role as jaeger
from roles.prometheus import role as prometheus
from rtinfra.netloc import netloc, url
from tests.unit.telemetry_site import at, document, here, shipped, text, view

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(ADDRESSES, st.integers(1, 65535))
def test_what_is_put_together_can_be_taken_apart(address: IPv4Address | IPv6Address, port: int) -> None:
    parts = urlsplit(url(str(address), port, "/x"))
    assert parts.hostname is not None
    assert (parts.hostname, parts.port, parts.path) == (str(address).lower(), port, "/x")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1:80"),
        ("station.example.net", "station.example.net:80"),
        ("fd00::20", "[fd00::20]:80"),
        ("fe80::1%eth0", "[fe80::1%25eth0]:80"),
    ],
)
def test_brackets_are_for_ipv6_alone(host: str, expected: str) -> None:
    assert netloc(host, 80) == expected


def test_a_site_of_ipv6_addresses_alone() -> None:
    """Every address that one program is told of another is one it can connect to."""
    station = "fd00::20"
    members = {
        "gateways": at("station", station),
        "prometheus": at("station", station),
        "jaeger": at("station", station),
    }
    where = view("station", station, agents=at("robot", "fd00::10"), **{**members, "prometheus": here()})
    endpoint = document(jaeger.state(shipped("jaeger"), where), "/etc/rtinfra/jaeger/config.yaml")
    assert endpoint["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "[fd00::20]:14317"
    config = document(prometheus.state(shipped("prometheus"), where), "/etc/rtinfra/prometheus/prometheus.yml")
    targets = {target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]}
    assert {"[fd00::20]:9090", "[fd00::10]:9100"} <= targets
    route = yaml.safe_load(text(gateways.state(shipped("gateways"), where), "/etc/rtinfra/otel-gateway-1/config.yaml"))
    assert route["exporters"]["otlp_grpc/traces-prod"]["endpoint"] == "[fd00::20]:14317"
    robot = view("robot", "fd00::10", agents=here(), **members)
    assert "fd00::20 otel-gateways" in text(agents.state(shipped("agents"), robot), "/etc/otelcol/hosts")
