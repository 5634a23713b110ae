"""Garage as configured and set up (OB-12)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from roles.garage.role import document, replication_factor, state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from tests.unit.fake_api import Server, run, serving
from tests.unit.telemetry_site import at, here, resource, shipped, text, view

OTHERS = (at("s2", "192.0.2.2"), at("s3", "192.0.2.3"))
TOML = "/etc/rtinfra/garage/garage.toml"


def garage(where: FleetView) -> RoleState:
    return state(shipped("garage"), where)


def test_the_configuration_is_what_garage_reads() -> None:
    config = garage(view(garage=here()))
    loaded = tomllib.loads(text(config, TOML))
    assert loaded["replication_factor"] == 1
    assert loaded["s3_api"] == {"s3_region": "garage", "api_bind_addr": "192.0.2.1:3900"}
    assert loaded["rpc_public_addr"] == "192.0.2.1:3901"
    assert loaded["admin"]["api_bind_addr"] == "192.0.2.1:3903"
    assert "rpc_secret" not in loaded and "admin_token" not in loaded["admin"]


@pytest.mark.parametrize(("members", "copies"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_copies_follow_from_the_number_of_members(members: int, copies: int) -> None:
    assert replication_factor(members) == copies


def test_secrets_are_files_only_garage_reads() -> None:
    """It refuses to start when others can read them."""
    config = garage(view(garage=here()))
    loaded = tomllib.loads(text(config, TOML))
    for inside in (loaded["rpc_secret_file"], loaded["admin"]["admin_token_file"]):
        file = resource(config, inside.replace("/etc/garage", "/etc/rtinfra/garage"))
        assert isinstance(file, File)
        assert (file.mode, file.owner, file.secret) == ("0600", "rtinfra-garage", True)


def test_only_the_first_member_sets_the_cluster_up() -> None:
    assert garage(view("s2", "192.0.2.2", garage=(at("rt1", "192.0.2.1"), here()))).units == ()
    (unit,) = garage(view(garage=(here(), *OTHERS))).units
    assert unit.name == "rtinfra-garage-setup.service"


class Cluster:
    """Nodes that share what they know; each has a server of its own."""

    def __init__(self) -> None:
        self.joined: set[str] = {"id-0"}
        self.roles: dict[str, dict[str, Any]] = {}
        self.staged: list[dict[str, Any]] = []
        self.version = 0
        self.keys: dict[str, str] = {}
        self.buckets: dict[str, list[dict[str, Any]]] = {}

    def node(self, number: int) -> Any:
        def answer(method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
            if path == "/health":
                return (200 if self.roles else 503), {}
            if headers.get("Authorization") != "Bearer secret-token":
                return 403, {}
            name, _, query = path.removeprefix("/v2/").partition("?")
            return getattr(self, name)(number, query, body)

        return answer

    def GetNodeInfo(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        assert query == "node=self"
        return 200, {"success": {f"id-{number}": {"nodeId": f"id-{number}"}}, "error": {}}

    def GetClusterStatus(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        return 200, {"nodes": [{"id": name, "isUp": True} for name in self.joined]}

    def ConnectClusterNodes(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        self.joined |= {peer.partition("@")[0] for peer in body}
        return 200, [{"success": True, "error": None} for _ in body]

    def GetClusterLayout(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        return 200, {"version": self.version, "roles": list(self.roles.values())}

    def UpdateClusterLayout(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        assert {change["id"] for change in body["roles"]} <= self.joined
        self.staged = body["roles"]
        return 200, {}

    def ApplyClusterLayout(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        assert body["version"] == self.version + 1
        self.version += 1
        self.roles |= {change["id"]: change for change in self.staged}
        return 200, {}

    def GetKeyInfo(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        key = query.removeprefix("id=")
        return (200, {"accessKeyId": key}) if key in self.keys else (404, {})

    def ImportKey(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        self.keys[body["accessKeyId"]] = body["secretAccessKey"]
        return 200, {}

    def GetBucketInfo(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        name = query.removeprefix("globalAlias=")
        return (200, {"id": name, "keys": self.buckets[name]}) if name in self.buckets else (404, {})

    def CreateBucket(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        self.buckets[body["globalAlias"]] = []
        return 200, {"id": body["globalAlias"], "keys": []}

    def AllowBucketKey(self, number: int, query: str, body: Any) -> tuple[int, Any]:
        entry = {"accessKeyId": body["accessKeyId"], "permissions": body["permissions"]}
        self.buckets[body["bucketId"]].append(entry)
        return 200, {}


def expected(directory: Path, where: FleetView, servers: list[Server]) -> dict[str, Any]:
    found = document(shipped("garage"), where)
    for key, value in (("token_file", "secret-token"), ("key_id_file", "GK01"), ("key_file", "secret-key")):
        found[key] = str(directory / key)
        (directory / key).write_text(f"{value}\n")
    for node, server in zip(found["nodes"], servers, strict=True):
        node["admin"] = server.url
    return found


@pytest.mark.slow
def test_three_nodes_become_a_cluster_with_buckets_and_a_key_once(tmp_path: Path) -> None:
    cluster = Cluster()
    where = view(garage=(here(), *OTHERS))
    with serving(cluster.node(0)) as one, serving(cluster.node(1)) as two, serving(cluster.node(2)) as three:
        wish = expected(tmp_path, where, [one, two, three])
        done = run("garage", wish, tmp_path)
        assert done.returncode == 0, done.stderr
        connected = [body for _, path, body in one.calls if path == "/v2/ConnectClusterNodes"]
        written = len(one.writes)
        again = run("garage", wish, tmp_path)
        assert again.returncode == 0 and not again.stdout, again.stderr
        assert len(one.writes) == written and not two.writes and not three.writes
    assert connected == [["id-1@192.0.2.2:3901", "id-2@192.0.2.3:3901"]]
    assert {role["zone"] for role in cluster.roles.values()} == {"rt1", "s2", "s3"}
    assert all(role["capacity"] == 50 * 2**30 for role in cluster.roles.values())
    assert cluster.keys == {"GK01": "secret-key"}
    assert cluster.buckets.keys() == {"loki", "tempo", "mimir"}
    for (entry,) in cluster.buckets.values():
        assert entry == {"accessKeyId": "GK01", "permissions": {"read": True, "write": True, "owner": False}}
    assert "secret" not in done.stdout + done.stderr


def test_more_space_changes_the_layout_of_that_node_only(tmp_path: Path) -> None:
    cluster = Cluster()
    with serving(cluster.node(0)) as server:
        wish = expected(tmp_path, view(garage=here()), [server])
        assert run("garage", wish, tmp_path).returncode == 0
        wish["nodes"][0]["capacity"] *= 2
        done = run("garage", wish, tmp_path)
    assert done.stdout == "applied a layout with 1 changes\n"
    assert (cluster.version, cluster.roles["id-0"]["capacity"]) == (2, 100 * 2**30)
