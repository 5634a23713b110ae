"""The `preflight` role: what a host gets, what is refused, and that secrets are for the account alone."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.mirror_place import Mirror
from roles.preflight import role as preflight
from roles.preflight.role import CONFIGURATION, SERVICE, TIMER
from roles.rt_app.model import NON_RT_UNIT, RT_UNIT
from roles.secrets import secret_names
from roles.shape import FleetView, RoleState
from roles.shared import TEXTFILE_DIRECTORY
from rtinfra.operations.resources import Directory, File
from rtinfra.preflight.main import load_json
from rtinfra.preflight.settings import PreflightSettings
from tests.unit.mirror_fleet import PLACE
from tests.unit.telemetry_site import at, here, resource, shipped, text, view

UNIT = f"/etc/systemd/system/{SERVICE}"
SETTINGS = f"{CONFIGURATION}/settings.json"
FULL: dict[str, Any] = {
    "checks": {
        "required_secrets": ["exchange_key"],
        "redis": {"url": "redis://127.0.0.1:6379/0", "password_secret": "redis_password", "slow": "20ms"},
        "apis": [{"name": "orders", "url": "http://192.0.2.8/health/", "token_secret": "orders_token", "slow": "1s"}],
    },
    "notify": {"slack": {"url_secret": "slack_webhook"}},
    "environment_file": "/etc/mxrc/environment",
}


def rt_site(**members: Any) -> FleetView:
    return view(is_rt=True, agents=here(), gateways=at("gw", "192.0.2.10"), rt_app=here(), **members)


@pytest.mark.parametrize(
    ("wheels", "is_supplied", "from_index"),
    [("carried", False, False), ("index", False, True), ("carried", True, True)],
)
def test_hosts_that_use_the_mirror_get_their_wheels_from_it(wheels: str, is_supplied: bool, from_index: bool) -> None:
    mirror = Mirror(PLACE, is_served=False, is_used=True) if is_supplied else None
    where = replace(rt_site(), mirror=mirror)
    (environment,) = preflight.state(shipped("preflight", wheels=wheels), where).environments
    assert environment.from_index is from_index


@pytest.fixture
def part() -> RoleState:
    """A real-time host, with an alert log elsewhere."""
    return preflight.state(shipped("preflight", **FULL), rt_site(alertmanager=at("ops", "192.0.2.20")))


def directives(part: RoleState, path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text(part, path).splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_it_runs_every_ten_minutes_as_an_account_of_its_own_off_the_isolated_cores(part: RoleState) -> None:
    assert directives(part, f"/etc/systemd/system/{TIMER}")["OnUnitInactiveSec"] == ["10min"]
    found = directives(part, UNIT)
    assert found["Slice"] == ["agents.slice"]
    assert found["CPUAffinity"] == found["AllowedCPUs"] == ["0-1"]
    assert found["User"] == ["rtinfra-preflight"]
    assert found["SuccessExitStatus"] == ["1 2"]
    assert found["EnvironmentFile"] == ["-/etc/mxrc/environment"]
    assert [unit.name for unit in part.units] == [TIMER]


def test_the_program_on_the_host_can_read_its_settings(part: RoleState, tmp_path: Any) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text(part, SETTINGS))
    settings = load_json(path)
    assert type(settings) is PreflightSettings
    assert settings.checks.realtime is not None and settings.checks.realtime.housekeeping == "0-1"
    assert settings.notify.runbooks_url == "http://192.0.2.20:9095/runbooks"
    assert settings.checks.application.url == "http://127.0.0.1:8080/health/ready"
    # Of an API the address is taken as it is written.
    assert settings.checks.apis[0].url.endswith("/health/")


def test_a_host_without_isolated_cores_is_asked_for_none() -> None:
    found = preflight.state(shipped("preflight"), view(agents=here(), gateways=at("gw", "192.0.2.10")))
    settings = json.loads(text(found, SETTINGS))
    assert settings["checks"]["realtime"] is None
    assert settings["checks"]["application"]["url"] is None
    assert "CPUAffinity" not in directives(found, UNIT)
    assert "AllowedCPUs" not in text(found, preflight.COMMAND)


def test_settings_and_secrets_are_for_the_account_alone(part: RoleState) -> None:
    names = {"exchange_key", "redis_password", "orders_token", "slack_webhook"}
    found = {path.path: path for path in part.files if path.path.startswith(CONFIGURATION)}
    assert {path.rpartition("/")[2] for path in found if "/secrets/" in path} == names
    for path in found.values():
        if isinstance(path, File):
            assert (path.mode, path.owner) == ("0600", "rtinfra-preflight")
            assert path.secret == ("/secrets/" in path.path)
    directory = resource(part, f"{CONFIGURATION}/secrets")
    # Root's: in a folder of its own the account could lay a link where root writes.
    assert isinstance(directory, Directory) and (directory.mode, directory.owner) == ("0750", "root")
    assert directory.group == "rtinfra-preflight"


def test_on_demand_it_has_the_sandbox_of_its_unit(part: RoleState, tmp_path: Path) -> None:
    """Run for real, with a systemd-run that tells its arguments: quotes of the shell are part of it."""
    (tmp_path / "systemd-run").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "systemd-run").chmod(0o755)
    script = text(part, preflight.COMMAND)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = ["sh", "-c", script, "rtinfra-preflight", "--json"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    found = sorted(line.removeprefix("--property=") for line in said if line.startswith("--property="))
    unit = text(part, UNIT).partition("[Service]")[2]
    elsewhere = ("Type=", "User=", "Group=", "ExecStart=", "SuccessExitStatus=")
    required = sorted(line for line in unit.splitlines() if line and line[0] != "#" and not line.startswith(elsewhere))
    assert found == required
    assert len(found) > 27
    assert {"--uid=rtinfra-preflight", "--gid=rtinfra-preflight", "--json"} <= set(said)


def test_no_value_of_a_secret_is_anywhere_else(part: RoleState) -> None:
    for path in part.files:
        if isinstance(path, File) and not path.secret:
            assert b"value-of-" not in path.content
    assert "value-of-" not in repr(part)


def test_the_account_exists_before_what_belongs_to_it(part: RoleState) -> None:
    (account,) = part.accounts
    assert isinstance(account, File)
    assert account.content.decode().splitlines()[-1].startswith("u rtinfra-preflight - ")


def test_a_host_without_agents_is_refused() -> None:
    with pytest.raises(ValueError, match="put the host into the group agents too"):
        preflight.state(shipped("preflight"), view(gateways=at("gw", "192.0.2.10"), agents=at("gw", "192.0.2.10")))


def test_its_metrics_are_where_node_exporter_looks(part: RoleState) -> None:
    assert json.loads(text(part, SETTINGS))["textfile_directory"] == TEXTFILE_DIRECTORY
    assert TEXTFILE_DIRECTORY in directives(part, UNIT)["ReadWritePaths"]


@pytest.mark.parametrize(
    ("path", "reason"), [("/srv/preflight", "must be below /var/lib"), ("/var/lib", "others use too")]
)
def test_a_state_directory_that_systemd_cannot_make_is_refused(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        preflight.state(shipped("preflight", state_directory=path), rt_site())


def test_the_shipped_settings_name_the_units_of_the_application() -> None:
    assert shipped("preflight").checks.realtime.units == (RT_UNIT, NON_RT_UNIT)


def test_secrets_of_lists_are_found_too() -> None:
    found = dict(secret_names(shipped("preflight", **FULL)))
    assert found["checks.apis.0.token_secret"] == "orders_token"
    assert found["checks.required_secrets.0"] == "exchange_key"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"environment": "PROD"}, "paper"),
        ({"environment": "dev"}, "paper"),
        ({"namespace": "Rtinfra"}, "pattern"),
        ({"checks": {"guards": [{"name": "live", "prod": "on"}]}}, "either variable or file"),
        ({"checks": {"variables": [{"name": "A", "pattern": "("}]}}, "not a regular expression"),
        ({"checks": {"postgres": {"conninfo": "host=x password=y", "slow": "1s"}}}, "without a password"),
        ({"checks": {"postgres": {"conninfo": "postgresql://a:b@c/d", "slow": "1s"}}}, "pattern"),
        ({"checks": {"redis": {"url": "redis://:word@127.0.0.1", "slow": "1s"}}}, "pattern"),
        ({"checks": {"apis": [{"name": "a", "url": "http://u:p@h/", "slow": "1s"}]}}, "user name or password"),
        ({"checks": {"application": {"url": "http://h/", "command": ["/x"]}}}, "both url and command"),
        ({"checks": {"application": {"command": ["x"]}}}, "absolute path"),
        ({"notify": {"telegram": {"token_secret": "UPPER", "chat_id": 1}}}, "pattern"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        shipped("preflight", **changes)
