"""The roles mirror_server and mirror_client: what they put on hosts, and what is refused before anything changes."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.composition import compose
from roles.drift.model import EXPECTED
from roles.fleet import load_checked_hosts, load_hosts, view_of
from roles.host import HostConfig
from roles.mirror_client import role as client
from roles.mirror_place import MirrorPlace
from roles.mirror_server import role as server
from roles.mirror_server.model import MIRROR_SERVER, REGISTRY_UNIT, WEB_UNIT
from roles.prerequisites import check_roles
from roles.shape import FleetView
from roles.target import Target
from rtinfra.config import ConfigError, Fleet
from rtinfra.facts.mirror import MirrorState
from rtinfra.images import ImageMissing, LocalStore, MirroredStore
from rtinfra.images.image_catalogue import load_catalogue
from rtinfra.operations.resources import File, Resource
from rtinfra.paths import PROJECT
from rtinfra.wheelhouse import Wheelhouse
from tests.unit.mirror_fleet import INDEX, LIVE, NOW, PEM, PLACE
from tests.unit.telemetry_site import FakeSecrets, FakeStore
from tests.unit.test_prerequisites import GOOD

HOSTS = """hosts:
  mirror: {groups: [mirror_server, mirror_client], ssh: {address: 192.0.2.5}}
  robot: {groups: [mirror_client], ssh: {address: 192.0.2.1}}
"""


def fleet(tmp_path: Path, text: str = HOSTS) -> Fleet[HostConfig]:
    (tmp_path / "hosts.yaml").write_text(text)
    return load_hosts(PROJECT, tmp_path / "hosts.yaml")


def refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "hosts.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_checked_hosts(PROJECT, tmp_path / "hosts.yaml")
    return str(caught.value)


def contents(paths: list[Resource]) -> dict[str, str]:
    return {path.path: path.content.decode() for path in paths if isinstance(path, File)}


def view_from(hosts: Fleet[HostConfig], name: str) -> FleetView:
    return view_of(hosts, hosts.hosts[name], FakeStore(), FakeSecrets(), distribution="debian-13")


def place_of(hosts: Fleet[HostConfig], name: str) -> MirrorPlace | None:
    mirror = view_from(hosts, name).mirror
    return mirror.place if mirror else None


def serving(view: FleetView, served: MirrorState = LIVE) -> FleetView:
    """Return the view once the mirror's host was asked what it serves."""
    assert view.mirror is not None
    return replace(view, mirror=replace(view.mirror, live=served.release))


# ---- where the mirror is ----------------------------------------------------------------------------------


def test_a_client_uses_the_only_mirror_there_is(tmp_path: Path) -> None:
    hosts = fleet(tmp_path)
    assert place_of(hosts, "robot") == PLACE
    assert place_of(hosts, "mirror") == PLACE


def test_a_client_without_a_mirror_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, "hosts:\n  robot: {groups: [mirror_client], ssh: {address: 192.0.2.1}}\n")
    assert "no host of the inventory is in the group mirror_server" in said
    assert "mirror_client.server" in said


def test_with_two_mirrors_a_client_has_to_name_one(tmp_path: Path) -> None:
    two = HOSTS + "  other: {groups: [mirror_server], ssh: {address: 192.0.2.6}}\n"
    said = refusal(tmp_path, two)
    assert "several hosts in the group mirror_server: mirror, other" in said
    chosen = two.replace("192.0.2.1}", "192.0.2.1}, settings: {mirror_client: {server: other}}")
    hosts = fleet(tmp_path, chosen)
    place = place_of(hosts, "robot")
    assert place is not None
    assert place.host == "other"


def test_a_mirror_that_no_host_serves_is_refused(tmp_path: Path) -> None:
    text = HOSTS.replace("192.0.2.1}", "192.0.2.1}, settings: {mirror_client: {server: robot}}")
    assert "the mirror's host robot is not in the group mirror_server" in refusal(tmp_path, text)


def test_a_server_that_is_a_client_uses_itself(tmp_path: Path) -> None:
    two = HOSTS + "  other: {groups: [mirror_server], ssh: {address: 192.0.2.6}}\n"
    text = two.replace("192.0.2.5}", "192.0.2.5}, settings: {mirror_client: {server: other}}")
    assert "it serves a mirror itself and uses that one, not other's" in refusal(tmp_path, text)


def test_ports_of_the_mirror_are_claimed(tmp_path: Path) -> None:
    text = HOSTS.replace("192.0.2.5}", "192.0.2.5}, settings: {mirror_server: {registry_port: 443}}")
    assert "is already taken by mirror_server.port" in refusal(tmp_path, text)


def test_a_certificate_that_every_deploy_would_renew_is_refused(tmp_path: Path) -> None:
    text = HOSTS.replace("192.0.2.5}", "192.0.2.5}, settings: {mirror_server: {certificate: {server_days: 60}}}")
    assert "every deploy would make a new certificate" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("address", "url", "listeners"),
    [
        ("192.0.2.5", "https://192.0.2.5:443", ["443"]),
        ("2001:db8::5", "https://[2001:db8::5]:443", ["443", "[::]:443"]),
        ("mirror.example.net", "https://mirror.example.net:443", ["443"]),
    ],
)
def test_addresses(address: str, url: str, listeners: list[str]) -> None:
    place = replace(PLACE, address=address)
    assert place.url == url
    assert server.listeners(place) == listeners


# ---- refused before anything changes ----------------------------------------------------------------------


def problems(tmp_path: Path, name: str, served: MirrorState, clock: int | None = None, **state: str) -> str:
    hosts = fleet(tmp_path)
    seen = replace(GOOD, clock=int(NOW.timestamp()) if clock is None else clock, **state)
    found = check_roles(hosts.hosts[name], serving(view_from(hosts, name), served), seen)
    return "\n".join(str(problem) for problem in found if problem.severity == "error")


def test_a_good_mirror(tmp_path: Path) -> None:
    assert problems(tmp_path, "robot", LIVE) == ""
    assert problems(tmp_path, "mirror", LIVE) == ""


@pytest.mark.parametrize("name", ["robot", "mirror"])
def test_nothing_published_names_the_commands_to_type(tmp_path: Path, name: str) -> None:
    said = problems(tmp_path, name, replace(LIVE, release=None))
    assert "/srv/rtinfra-mirror" in said
    assert "has no published release on mirror" in said
    assert "`rtinfra mirror import`" in said
    assert "`rtinfra mirror publish`" in said


def test_a_clock_behind_the_release_is_refused_with_both_times(tmp_path: Path) -> None:
    behind = int((INDEX.date - timedelta(days=2)).timestamp())
    said = problems(tmp_path, "robot", LIVE, behind)
    assert "2025-12-30 00:00:00 UTC" in said
    assert "2026-01-01 00:00:00 UTC" in said
    assert "date -u -s" in said
    assert problems(tmp_path, "robot", LIVE, int(INDEX.date.timestamp()) - 5) == "", "apt allows ten seconds"


def test_an_expired_release_is_refused_and_signing_anew_explained(tmp_path: Path) -> None:
    assert INDEX.valid_until is not None
    said = problems(tmp_path, "robot", LIVE, int((INDEX.valid_until + timedelta(days=1)).timestamp()))
    assert "was valid until 2026-06-30 00:00:00 UTC" in said
    assert "rtinfra mirror publish --again" in said


def test_packages_of_another_distribution_or_architecture_are_refused(tmp_path: Path) -> None:
    assert "runs bookworm, and the mirror has packages of trixie" in problems(
        tmp_path, "robot", LIVE, codename="bookworm"
    )
    assert "is arm64, and the mirror has packages for amd64" in problems(tmp_path, "robot", LIVE, architecture="arm64")


# ---- the server -------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> dict[str, str]:
    settings = fleet(tmp_path).hosts["mirror"].config[MIRROR_SERVER]
    return contents(server.files(settings, PLACE))


def test_nginx_serves_over_tls_only(served: dict[str, str]) -> None:
    text = served["/etc/nginx/nginx.conf"]
    assert re.findall(r"^\s*listen (.*);$", text, re.MULTILINE) == ["443 ssl"]
    assert "root /srv/rtinfra-mirror/published/current;" in text
    assert "if ($request_method !~ ^(GET|HEAD)$)" in text
    assert "sites-enabled" not in text, "the page that Debian's nginx serves over plain HTTP"
    assert "server_tokens off;" in text
    assert "autoindex off;" in text


def test_the_registry_is_read_only_and_for_this_host_alone(served: dict[str, str]) -> None:
    settings = yaml.safe_load(served["/etc/docker/registry/config.yml"])
    assert settings["http"] == {"addr": "127.0.0.1:5000"}
    storage = settings["storage"]
    assert storage["filesystem"] == {"rootdirectory": "/srv/rtinfra-mirror/published/current/registry"}
    assert storage["maintenance"]["readonly"] == {"enabled": True}
    assert storage["delete"] == {"enabled": False}
    assert "cache" not in storage, "what is cached would outlive the release it is of"


def test_the_servers_own_packages_come_from_its_own_disk() -> None:
    (text,) = contents(server.source(PLACE, INDEX)).values()
    assert "URIs: file:/srv/rtinfra-mirror/published/current/apt\n" in text
    assert "Signed-By: /srv/rtinfra-mirror/published/current/key.asc\n" in text


def test_the_certificate_is_for_address_name_and_what_else_is_set(tmp_path: Path) -> None:
    text = HOSTS.replace(
        "192.0.2.5}", "192.0.2.5}, settings: {mirror_server: {certificate: {names: [mirror.example.net]}}}"
    )
    settings = fleet(tmp_path, text).hosts["mirror"].config[MIRROR_SERVER]
    assert server.names(settings, PLACE) == ["192.0.2.5", "mirror", "mirror.example.net"]


# ---- clients ----------------------------------------------------------------------------------------------


@pytest.fixture
def pointed() -> dict[str, str]:
    return contents(client.files(PLACE, False, LIVE))


def test_one_source_with_our_key_only(pointed: dict[str, str]) -> None:
    fields = dict(re.findall(r"^([A-Z][\w-]+): (.*)$", pointed[client.SOURCE], re.MULTILINE))
    assert fields == {
        "Types": "deb",
        "URIs": "https://192.0.2.5:443/apt",
        "Suites": "trixie",
        "Components": "main",
        "Signed-By": client.KEY,
    }
    assert LIVE.release is not None
    assert pointed[client.KEY].encode() == LIVE.release.key


def test_the_mirrors_own_host_reads_its_own_disk() -> None:
    text = contents(client.files(PLACE, True, LIVE))[client.SOURCE]
    assert "URIs: file:/srv/rtinfra-mirror/published/current/apt\n" in text


def test_apt_believes_only_what_is_signed_and_valid(pointed: dict[str, str]) -> None:
    text = pointed[client.APT_CONFIGURATION]
    for line in (
        f'Acquire::https::192.0.2.5::CAInfo "{client.AUTHORITY}";',
        'Acquire::Check-Valid-Until "true";',
        'Acquire::Check-Date "true";',
        'Acquire::AllowInsecureRepositories "false";',
        'APT::Install-Recommends "false";',
        'Acquire::https::Proxy::192.0.2.5 "DIRECT";',
    ):
        assert line in text
    assert pointed[client.AUTHORITY].encode() == PEM


def test_a_rollback_of_the_mirror_takes_packages_back(pointed: dict[str, str]) -> None:
    assert "Pin: release o=rtinfra\nPin-Priority: 1001\n" in pointed[client.PREFERENCES]


def test_pip_knows_one_index(pointed: dict[str, str]) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(pointed[client.PIP])
    settings = dict(parser["global"])
    assert settings["index-url"] == "https://192.0.2.5:443/wheels/simple/"
    assert settings["cert"] == client.AUTHORITY
    assert settings["use-deprecated"] == "legacy-certs"
    assert not settings.keys() & {"extra-index-url", "find-links", "trusted-host"}
    by_name = contents(client.files(replace(PLACE, address="mirror.example.net"), False, LIVE))
    assert "use-deprecated" not in by_name[client.PIP]


def test_images_come_from_the_mirror_and_all_others_are_refused(pointed: dict[str, str]) -> None:
    registries = tomllib.loads(pointed[client.REGISTRIES])
    assert registries["registry"] == [{"prefix": "localhost/rtinfra", "location": "192.0.2.5:443/rtinfra"}]
    assert registries["unqualified-search-registries"] == []
    policy = json.loads(pointed[client.IMAGE_POLICY])
    assert policy["default"] == [{"type": "reject"}]
    assert list(policy["transports"]["docker"]) == ["localhost/rtinfra"]
    assert pointed["/etc/containers/certs.d/192.0.2.5:443/ca.crt"].encode() == PEM


def test_the_paths_that_are_taken_back_are_those_that_are_written(pointed: dict[str, str]) -> None:
    assert sorted(client.paths(PLACE)) == sorted(pointed)
    assert set(client.REPLACED) <= pointed.keys()


def test_without_a_certificate_nothing_is_written() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        client.files(PLACE, False, replace(LIVE, authority=None))


# ---- what comes from where --------------------------------------------------------------------------------

DIGEST = "sha256:" + "ab" * 32


def test_images_are_those_of_the_live_release() -> None:
    version = load_catalogue().image("jaeger").version
    store = MirroredStore({("rtinfra/jaeger", version): DIGEST})
    assert store.image("jaeger") == f"localhost/rtinfra/jaeger@{DIGEST}"
    with pytest.raises(ImageMissing, match=r"prometheus .* is not on the mirror"):
        store.image("prometheus")
    with pytest.raises(ImageMissing, match="is not on the mirror"):
        MirroredStore({("rtinfra/jaeger", "0.0.1"): DIGEST}).image("jaeger")


def target(tmp_path: Path, settings: str = "") -> Target:
    text = HOSTS.replace("[mirror_client]", "[mirror_client, gateways, agents, jaeger, prometheus]")
    hosts = fleet(tmp_path, text.replace("192.0.2.1}", f"192.0.2.1}}{settings}"))
    return Target(compose(serving(view_from(hosts, "robot"))))


def test_a_client_gets_our_own_packages_and_images_from_the_mirror(tmp_path: Path) -> None:
    supplied = target(tmp_path)
    own = [package for state in supplied.composed.states.values() for package in state.local_packages]
    assert own
    assert supplied.composed.local_packages == []
    assert {package.name for package in own} <= set(supplied.composed.packages)
    assert supplied.image_archives
    assert set(supplied.image_archives.values()) == {None}


def test_a_client_that_is_switched_off_gets_them_from_this_computer(tmp_path: Path) -> None:
    switched_off = target(tmp_path, ", settings: {mirror_client: {enabled: false}}")
    assert not switched_off.view.is_supplied
    own = [package for state in switched_off.composed.states.values() for package in state.local_packages]
    assert switched_off.composed.local_packages == own


def test_a_client_needs_no_images_on_this_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_self: LocalStore, name: str) -> str:
        raise ImageMissing(f"{name} is not in images/store", "build it")

    monkeypatch.setattr(LocalStore, "image", missing)
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS.replace("[mirror_client]", "[mirror_client, jaeger]"))
    load_checked_hosts(PROJECT, path)
    path.write_text(HOSTS.replace("[mirror_client]", "[jaeger]"))
    with pytest.raises(ConfigError, match="jaeger is not in images/store"):
        load_checked_hosts(PROJECT, path)


def test_a_client_needs_no_wheels_on_this_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_self: Wheelhouse, _python: str) -> bool:
        return False

    monkeypatch.setattr(Wheelhouse, "has", nothing)
    # What else this computer may lack is no matter here.
    monkeypatch.setattr(LocalStore, "image", FakeStore.image)
    monkeypatch.setattr(LocalStore, "package", FakeStore.package)
    groups = "[mirror_client, gateways, agents, jaeger, prometheus, preflight]"
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS.replace("[mirror_client]", groups))
    load_checked_hosts(PROJECT, path)
    path.write_text(HOSTS.replace("[mirror_client]", groups.replace("mirror_client, ", "")))
    with pytest.raises(ConfigError, match="needs Python wheels, and none are on this computer"):
        load_checked_hosts(PROJECT, path)


# ---- what the hosts hold themselves against ---------------------------------------------------------------


def expected_by(host: Target) -> dict[str, Any]:
    (document,) = [path for path in host.composed.paths if path.path == EXPECTED]
    assert isinstance(document, File)
    found: dict[str, Any] = json.loads(document.content)
    return found


def test_a_client_watches_the_files_that_it_can_know_beforehand(tmp_path: Path) -> None:
    watched = {entry["path"] for entry in expected_by(target(tmp_path))["files"]}
    assert watched & set(client.paths(PLACE)) == {path.path for path in client.settled_files(PLACE)}
    off = expected_by(target(tmp_path, ", settings: {mirror_client: {enabled: false}}"))
    assert not {entry["path"] for entry in off["files"]} & set(client.paths(PLACE)), "what was there before is back"


def test_the_files_known_beforehand_are_those_that_are_written(pointed: dict[str, str]) -> None:
    for path in client.settled_files(PLACE):
        assert isinstance(path, File)
        assert pointed[path.path] == path.content.decode()


def test_the_server_watches_what_it_serves_by(tmp_path: Path) -> None:
    hosts = fleet(tmp_path)
    settings = hosts.hosts["mirror"].config[MIRROR_SERVER]
    expected = expected_by(Target(compose(serving(view_from(hosts, "mirror")))))
    paths = {path.path for path in (*server.source(PLACE, INDEX), *server.files(settings, PLACE))}
    assert paths <= {entry["path"] for entry in expected["files"]}
    assert {WEB_UNIT, REGISTRY_UNIT} <= {unit["name"] for unit in expected["units"]}
    assert set(settings.packages) <= expected["packages"].keys()
