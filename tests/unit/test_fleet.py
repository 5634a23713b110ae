"""What only the whole inventory can tell: tenants, who sends where, secrets, images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from roles.fleet import load_checked_hosts, load_hosts, view_of
from roles.jaeger.model import JAEGER
from roles.preflight.model import PREFLIGHT
from roles.rt_app.model import RT_APP
from roles.shared import TELEMETRY
from rtinfra.config import ConfigError
from rtinfra.paths import PROJECT
from tests.unit.telemetry_site import FakeSecrets, FakeStore

BACKENDS = ["gateways", "jaeger", "prometheus", "alertmanager"]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def everything_is_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roles.fleet.LocalStore", FakeStore)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an inventory: groups by host, and settings of the host they are for."""

    def inventory(groups: dict[str, list[str]], **settings: object) -> Path:
        path = tmp_path / "hosts.yaml"
        hosts = {
            name: {
                "groups": of,
                "ssh": {"address": f"192.0.2.{number}"},
                "settings": settings.get(name, {}),
            }
            for number, (name, of) in enumerate(groups.items(), start=1)
        }
        with path.open("w") as stream:
            YAML().dump({"hosts": hosts}, stream)
        return path

    return inventory


def refusals(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_checked_hosts(PROJECT, path)
    return str(error.value)


def test_a_whole_site_is_accepted_and_everybody_knows_the_others(write: Write) -> None:
    path = write({"robot": ["rt_hosts", "agents"], "station": BACKENDS}, station={"telemetry": {"address": "10.0.0.2"}})
    fleet = load_checked_hosts(PROJECT, path)
    view = view_of(fleet, fleet.hosts["robot"], FakeStore(), FakeSecrets())
    assert view.address == "192.0.2.1", "the address of ssh, since no other is set"
    (jaeger,) = view.members(JAEGER)
    assert jaeger.url(jaeger.settings.ui_port) == "http://10.0.0.2:16686"
    (application,) = view.members(RT_APP)
    assert application.settings.rt_process.metrics_port == 9090


def test_an_unknown_tenant(write: Write) -> None:
    path = write({"station": BACKENDS}, station={"telemetry": {"tenant": "nobody"}})
    text = refusals(path)
    assert "telemetry.tenant" in text
    assert "use one of prod, staging, infra-monitoring" in text


def test_agents_without_a_gateway(write: Write) -> None:
    assert "put a host into the group gateways" in refusals(write({"robot": ["rt_hosts", "agents"]}))


def test_gateways_without_what_they_send_to(write: Write) -> None:
    text = refusals(write({"station": ["gateways", "prometheus", "alertmanager"]}))
    assert 'telemetry.traces = "jaeger"' in text
    assert "put a host into the group jaeger" in text
    assert "telemetry.metrics" not in text


def test_a_secret_that_is_not_defined_is_named_with_the_line_that_asks_for_it(write: Write) -> None:
    path = write({"station": BACKENDS}, station={"alertmanager": {"webhook": {"url_secret": "nowhere"}}})
    text = refusals(path)
    assert "alertmanager.webhook.url_secret" in text
    assert "RTINFRA_SECRET_NOWHERE" in text
    assert "hosts.yaml:" in text


def test_ports_of_all_roles_of_a_host_are_compared(write: Write) -> None:
    path = write({"station": BACKENDS}, station={"jaeger": {"ui_port": 9093}})
    assert "is already taken by" in refusals(path)


def test_an_image_that_is_not_in_the_store(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtinfra.images import LocalStore

    monkeypatch.setattr("roles.fleet.LocalStore", lambda: LocalStore(tmp_path / "empty"))
    text = refusals(write({"station": BACKENDS}))
    assert "rtinfra images build jaeger" in text
    assert "rtinfra images build prometheus" in text


def test_a_role_that_cannot_work_in_this_fleet_says_why(write: Write) -> None:
    path = write({"station": [*BACKENDS, "kibana"]}, station={})
    text = refusals_without_secrets(path)
    assert "needs a host of the group elasticsearch" in text


def refusals_without_secrets(path: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roles.fleet.operator_secrets", lambda environment=None: FakeSecrets())
        return refusals(path)


def test_a_section_of_a_role_that_the_host_is_not_in_is_refused_with_its_place(write: Write) -> None:
    text = refusals(write({"plain": []}, plain={"mirror_server": {"port": 444}}))
    assert re.search(r"hosts\.yaml:\d+: .*mirror_server", text)
    assert "is for hosts of the group mirror_server, and this host is not in it" in text
    assert "put the host into the group mirror_server, or remove the section" in text


def test_settings_of_real_time_hosts_alone_are_one_mistake_for_each_section(write: Write) -> None:
    lines = [line for line in refusals(write({"plain": ["lab"]})).splitlines() if "is for hosts of the group" in line]
    document = YAML(typ="safe").load(PROJECT / "group_data" / "lab.yaml")
    assert len(lines) == len(document.keys() & {"cpu", "prerequisites", "rt_kernel", "rt_tuning", "rt_app"})
    assert all("group_data/lab.yaml:" in line for line in lines)


def test_a_section_that_is_taken_back_is_no_section(write: Write) -> None:
    load_checked_hosts(PROJECT, write({"plain": []}, plain={"mirror_server": None}))


def test_a_gateway_that_agents_know_by_name_only(write: Write) -> None:
    path = write(
        {"robot": ["rt_hosts", "agents"], "station": BACKENDS}, station={"telemetry": {"address": "gw.example"}}
    )
    text = refusals(path)
    assert "station has a name: gw.example" in text
    assert "set telemetry.address of station to its IP address" in text


def test_two_services_at_the_last_port(write: Write) -> None:
    text = refusals(write({"station": BACKENDS}, station={"jaeger": {"ui_port": 65535, "grpc_port": 65535}}))
    assert "is already taken by" in text


@pytest.mark.parametrize(
    ("environment", "tenant", "preflight"),
    [("dev", "staging", "paper"), ("staging", "staging", "staging"), ("prod", "prod", "prod")],
)
def test_one_value_switches_the_environment(write: Write, environment: str, tenant: str, preflight: str) -> None:
    """OF-3; one that is set itself stays."""
    settings = {"telemetry": {"environment": environment}}
    path = write(
        {"robot": ["preflight"], "other": ["preflight"]},
        robot=settings,
        other={
            "telemetry": {"environment": environment, "tenant": "infra-monitoring"},
            "preflight": {"environment": "paper"},
        },
    )
    hosts = load_hosts(PROJECT, path).hosts
    robot, other = hosts["robot"].config, hosts["other"].config
    assert robot[TELEMETRY].tenant == tenant
    assert robot[PREFLIGHT].environment_in(robot[TELEMETRY].environment) == preflight
    assert other[TELEMETRY].tenant == "infra-monitoring"
    assert other[PREFLIGHT].environment_in(other[TELEMETRY].environment) == "paper"


def test_a_secret_that_nobody_defined_is_named(write: Write) -> None:
    path = write({"station": BACKENDS}, station={"alertmanager": {"webhook": {"url_secret": "nowhere_defined"}}})
    text = refusals(path)
    assert "alertmanager.webhook.url_secret" in text and "the secret nowhere_defined is not defined" in text
    assert "RTINFRA_SECRET_NOWHERE_DEFINED" in text
