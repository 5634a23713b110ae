"""`rtinfra stack env-check`: what is looked at before programs are started, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from roles.fleet import load_hosts
from roles.host import HostConfig
from roles.jaeger.model import JAEGER
from rtinfra.config import Fleet
from rtinfra.deb import LocalPackage
from rtinfra.images import ImageMissing
from rtinfra.limits import project_limits
from rtinfra.operations.resources import File
from rtinfra.paths import PROJECT
from rtinfra.secrets import SecretError
from rtinfra.stack import surroundings
from rtinfra.stack_programs import programs_of
from tests.unit.stack_site import write_inventory


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet[HostConfig]:
    return load_hosts(PROJECT, write_inventory(tmp_path))


class Nothing:
    """Neither secrets nor images."""

    def read(self, name: str) -> bytes:
        raise SecretError(f"the secret {name} is not defined: put it there")

    def image(self, name: str) -> str:
        raise ImageMissing(f"there is no image {name}", "run `rtinfra images build`")

    def package(self, name: str) -> LocalPackage:
        raise ImageMissing(f"there is no package {name}", "build it")


class Everything(Nothing):
    """All of them."""

    def read(self, name: str) -> bytes:
        return b"value"

    def image(self, name: str) -> str:
        return f"{name}@sha256:ab"


def seen(**more: Any) -> surroundings.Surroundings:
    empty: dict[str, Any] = {"hashes": {}, "changed": {}, "started": {}, "owners": {}, "used_percent": 10}
    return surroundings.Surroundings(**{**empty, **more})


def results(
    fleet: Fleet[HostConfig], there: surroundings.Surroundings, local: Nothing
) -> Mapping[str, surroundings.Check]:
    host = fleet.hosts["backend"]
    own = programs_of(fleet, host)
    return {one.check: one for one in surroundings.checks(host, own, own, there, local, local)}


def deployed(fleet: Fleet[HostConfig]) -> dict[str, str]:
    return {file.path: file.sha256 for one in programs_of(fleet, fleet.hosts["backend"]) for file in one.config}


def test_all_is_well(fleet: Fleet[HostConfig]) -> None:
    found = results(fleet, seen(hashes=deployed(fleet)), Everything())
    assert not [one for one in found.values() if not one.ok]
    assert any(name.startswith("environment of otel-gateway-1") for name in found)


def test_every_failure_has_a_remedy(fleet: Fleet[HostConfig]) -> None:
    jaeger = fleet.hosts["backend"].config[JAEGER]
    assert jaeger is not None
    port = jaeger.ui_port
    there = seen(owners={port: ("/system.slice/nginx.service",)}, used_percent=91)
    found = results(fleet, there, Nothing())
    failed = {one.check: one for one in found.values() if not one.ok}
    assert {f"port {port}", "disk space", "image jaeger", "environment of otel-gateway-1"} <= failed.keys()
    assert all(one.remedy for one in failed.values())
    assert failed[f"port {port}"].found.endswith("taken by nginx.service")
    assert "images build" in failed["image jaeger"].remedy


def test_a_disk_is_full_from_where_the_alert_comes(fleet: Fleet[HostConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    full = round(100 * project_limits().disk_used_low_ratio)
    for used, is_enough in ((full - 1, True), (full, False)):
        assert results(fleet, seen(used_percent=used), Everything())["disk space"].ok is is_enough
    stricter = project_limits().model_copy(update={"disk_free_low_ratio": 0.5})
    monkeypatch.setattr(surroundings, "project_limits", lambda: stricter)
    found = results(fleet, seen(used_percent=50), Everything())["disk space"]
    assert not found.ok and "above 50 %" in found.remedy


def test_a_port_that_is_ours(fleet: Fleet[HostConfig]) -> None:
    jaeger = fleet.hosts["backend"].config[JAEGER]
    assert jaeger is not None
    group = "/backends.slice/jaeger.service/libpod-payload-ab"
    found = results(fleet, seen(owners={jaeger.ui_port: (group,)}), Everything())
    assert found[f"port {jaeger.ui_port}"].ok
    assert found[f"port {jaeger.ui_port}"].found.endswith("ours")


def test_settings_that_were_not_deployed_or_not_started_with(fleet: Fleet[HostConfig]) -> None:
    hashes = deployed(fleet)
    path = next(path for path in hashes if "otel-gateway-1" in path)
    name = "environment of otel-gateway-1"
    changed = results(fleet, seen(hashes={**hashes, path: "0"}), Everything())[name]
    assert not changed.ok and "differs from the settings" in changed.found
    times = {"changed": {path: 200}, "started": {"otel-gateway-1.service": 100}}
    stale = results(fleet, seen(hashes=hashes, **times), Everything())[name]
    assert not stale.ok and "rtinfra stack restart otel-gateway-1 --host backend" in stale.remedy


def test_answer_to_the_environment_script() -> None:
    text = """@@hashes
abc  /etc/rtinfra/jaeger/config.yaml
@@changed
1700000000 /etc/rtinfra/jaeger/config.yaml
@@started
1700000100 jaeger.service
@@listeners
LISTEN 0      4096       192.0.2.2:16686      0.0.0.0:*    users:(("jaeger",pid=77,fd=9))
LISTEN 0      128             [::]:22            [::]:*    users:(("sshd",pid=5,fd=4),("systemd",pid=1,fd=90))
LISTEN 0      128                *:9999             *:*
@@groups
/proc/77/cgroup:0::/backends.slice/jaeger.service/libpod-payload-ab
/proc/5/cgroup:0::/system.slice/ssh.service
@@disk
Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda1         12000000 6000000   6000000      50% /
"""
    found = surroundings.parse(text)
    assert found.hashes == {"/etc/rtinfra/jaeger/config.yaml": "abc"}
    assert found.changed == {"/etc/rtinfra/jaeger/config.yaml": 1700000000}
    assert found.started == {"jaeger.service": 1700000100}
    assert found.owners[16686] == ("/backends.slice/jaeger.service/libpod-payload-ab",)
    assert found.owners[22] == ("/system.slice/ssh.service", "")
    assert found.owners[9999] == ("",)
    assert found.used_percent == 50


def test_only_files_that_name_environment_or_tenants_are_compared(fleet: Fleet[HostConfig]) -> None:
    host = fleet.hosts["backend"]
    assert surroundings.labelled(host, File(path="/a", content=b"environment: prod\n"))
    assert not surroundings.labelled(host, File(path="/a", content=b"product: 1\n"))
