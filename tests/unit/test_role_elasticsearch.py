"""Elasticsearch as configured and set up (OB-2)."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from roles.elasticsearch.role import ROLE, document, index_template, lifecycle, state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import Absent, Directory, File
from tests.unit.fake_api import run, serving
from tests.unit.telemetry_site import at, here, resource, shipped, telemetry, text, view

TLS = {"ca_secret": "es_ca", "certificate_secret": "es_cert", "key_secret": "es_key"}
OTHERS = (at("es2", "192.0.2.2"), at("es3", "192.0.2.3"))
SETUP_UNIT = "/etc/systemd/system/rtinfra-elasticsearch-setup.service"


def elasticsearch(where: FleetView, **changes: Any) -> RoleState:
    return state(shipped("elasticsearch", **changes), where)


def test_the_index_template_is_the_one_of_the_row() -> None:
    template = index_template(shipped("elasticsearch"), view(elasticsearch=here()), None)
    assert template["index_patterns"] == ["mxrc-logs-*"]
    assert template["priority"] >= 500
    assert template["template"]["mappings"]["properties"] == {
        "@timestamp": {"type": "date"},
        "log.level": {"type": "keyword"},
        "process.name": {"type": "keyword"},
        "message": {"type": "text"},
        "trace.id": {"type": "keyword"},
        "mxrc.task_id": {"type": "keyword"},
    }


def test_records_are_found_within_half_a_second_and_one_node_needs_no_copies() -> None:
    index = index_template(shipped("elasticsearch"), view(elasticsearch=here()), None)["template"]["settings"]["index"]
    assert (index["refresh_interval"], index["number_of_replicas"]) == ("500ms", 0)
    several = view(elasticsearch=(here(), *OTHERS))
    assert (
        index_template(shipped("elasticsearch"), several, None)["template"]["settings"]["index"]["number_of_replicas"]
        == 1
    )


def test_logs_are_deleted_when_the_youngest_record_of_an_index_is_old_enough() -> None:
    assert lifecycle(view(), None)["phases"]["delete"] == {
        "min_age": "192h",
        "actions": {"delete": {}},
    }  # 7 d and a day
    longer = telemetry(tenants={"staging": {"logs_retention": "30d"}})
    assert lifecycle(view(shared=longer), None)["phases"]["delete"]["min_age"] == f"{31 * 24}h"
    template = index_template(shipped("elasticsearch"), view(), None)
    assert template["template"]["settings"]["index"]["lifecycle"] == {"name": "mxrc-logs"}


def test_indices_of_one_tenant_live_as_long_as_its_logs() -> None:
    where = view(elasticsearch=here(), shared=telemetry(tenants={"staging": {"logs_retention": "30d"}}))
    put = document(shipped("elasticsearch"), where)["put"]
    general, own = put["/_index_template/mxrc-logs"], put["/_index_template/mxrc-logs-prod"]
    assert own["index_patterns"] == ["mxrc-logs-prod-*"]
    assert own["priority"] > general["priority"]
    # Elasticsearch refuses two templates of one priority that fit the same index.
    assert index_template(shipped("elasticsearch"), where, "prod-b")["priority"] > own["priority"]
    assert own["template"]["mappings"] == general["template"]["mappings"]
    assert own["template"]["settings"]["index"]["lifecycle"] == {"name": "mxrc-logs-prod"}
    ages = {path: body["policy"]["phases"]["delete"]["min_age"] for path, body in put.items() if "_ilm" in path}
    assert (ages["/_ilm/policy/mxrc-logs-prod"], ages["/_ilm/policy/mxrc-logs-staging"]) == ("192h", f"{31 * 24}h")


def test_security_is_on_and_the_password_is_only_in_a_file() -> None:
    config = elasticsearch(view(elasticsearch=here()))
    (container,) = config.containers
    assert container.environment["xpack.security.enabled"] == "true"
    assert container.environment["ELASTIC_PASSWORD_FILE"] == f"{container.config_mount}/password"
    password = resource(config, "/etc/rtinfra/elasticsearch/password")
    assert isinstance(password, File)
    assert (password.content, password.mode, password.secret) == (b"value-of-elastic_password", "0600", True)
    for file in config.files:
        if isinstance(file, File) and not file.secret:
            assert b"value-of" not in file.content
    assert not any("value-of" in value for value in container.environment.values())


def test_one_node_is_a_cluster_by_itself() -> None:
    (container,) = elasticsearch(view(elasticsearch=here())).containers
    assert container.environment["discovery.type"] == "single-node"
    assert "cluster.initial_master_nodes" not in container.environment


def test_several_nodes_find_each_other_and_prove_who_they_are() -> None:
    where = view(elasticsearch=(here(), *OTHERS))
    config = elasticsearch(where, transport_tls=TLS)
    (container,) = config.containers
    values = container.environment
    assert values["discovery.seed_hosts"] == "192.0.2.1:9300,192.0.2.2:9300,192.0.2.3:9300"
    assert values["cluster.initial_master_nodes"] == "rt1,es2,es3"
    assert "discovery.type" not in values
    assert values["xpack.security.transport.ssl.enabled"] == "true"
    key = resource(config, "/etc/rtinfra/elasticsearch/node.key")
    assert isinstance(key, File) and key.secret
    assert values["xpack.security.transport.ssl.key"] == f"{container.config_mount}/node.key"


def test_several_nodes_without_certificates_are_refused() -> None:
    with pytest.raises(ValueError, match="transport_tls"):
        elasticsearch(view(elasticsearch=(here(), *OTHERS)))


def test_only_one_member_sets_the_cluster_up() -> None:
    second = view("es2", "192.0.2.2", elasticsearch=(at("rt1", "192.0.2.1"), here()))
    assert elasticsearch(second, transport_tls=TLS).units == ()
    first = view(elasticsearch=(here(), *OTHERS))
    assert [unit.name for unit in elasticsearch(first, transport_tls=TLS).units] == [
        "rtinfra-elasticsearch-setup.service"
    ]


def test_heap_and_kernel_are_as_it_wants_them() -> None:
    config = elasticsearch(view(elasticsearch=here()), heap_mb=700)
    assert text(config, "/etc/rtinfra/elasticsearch/java.env") == "ES_JAVA_OPTS=-Xms700m -Xmx700m\n"
    file = resource(config, "/etc/sysctl.d/60-rtinfra-elasticsearch.conf")
    assert isinstance(file, File)
    assert b"vm.max_map_count = 1048576\n" in file.content
    assert [action.command for action in file.actions] == [f"sysctl -q -p {file.path}"]


def test_the_image_runs_under_any_number_in_group_0() -> None:
    (container,) = elasticsearch(view(elasticsearch=here())).containers
    assert (container.account.uid, container.group, container.writable_root) == (429, 0, True)


def test_the_setup_runs_again_when_what_it_makes_changes() -> None:
    config = elasticsearch(view(elasticsearch=here()))
    unit = text(config, SETUP_UNIT)
    assert "Requires=elasticsearch.service\nAfter=elasticsearch.service" in unit
    assert "RemainAfterExit=yes" in unit
    for path in ("/etc/rtinfra/elasticsearch/setup.json", SETUP_UNIT):
        assert resource(config, path).restarts == ("rtinfra-elasticsearch-setup.service",)
    assert json.loads(text(config, "/etc/rtinfra/elasticsearch/setup.json"))["user"] == "elastic"


def test_filebeat_gets_a_user_that_may_only_add_records() -> None:
    agents = shipped("agents", logs="filebeat", filebeat={"username": "shipper", "password_secret": "shipper_password"})
    found = document(shipped("elasticsearch"), view(elasticsearch=here(), agents=here(agents)))
    assert found["users"]["shipper"]["roles"] == ["rtinfra-writer"]
    (indices,) = found["put"]["/_security/role/rtinfra-writer"]["indices"]
    assert indices["names"] == ["mxrc-logs-*"] and "delete" not in indices["privileges"]
    quiet = document(shipped("elasticsearch"), view(elasticsearch=here(), agents=here()))
    assert quiet["users"].keys() == {"rtinfra-reader", "rtinfra-gateways"}


def test_the_gateways_may_only_add_records_to_the_indices_of_tenants() -> None:
    limits = telemetry().tenants["prod"].model_dump(mode="json")
    where = view(elasticsearch=here(), shared=telemetry(tenants={"site-b": limits}))
    found = document(shipped("elasticsearch"), where)
    assert found["users"]["rtinfra-gateways"]["roles"] == ["rtinfra-gateways"]
    role = found["put"]["/_security/role/rtinfra-gateways"]
    (indices,) = role["indices"]
    assert set(indices["privileges"]) == {"create_doc", "auto_configure"}
    assert set(indices["names"]) == {f"mxrc-logs-{tenant}-*" for tenant in where.telemetry.tenants}
    assert "mxrc-logs-site-b-*" in indices["names"]
    assert (role["cluster"], role["applications"], role["run_as"]) == ([], [], [])
    assert ROLE.store is not None and ROLE.store.password is not None
    assert (ROLE.store.user, ROLE.store.password(shipped("elasticsearch"))) == (
        "rtinfra-gateways",
        "elastic_writer_password",
    )


def test_no_container_sees_a_secret_of_the_setup() -> None:
    """The superuser's password is in the one file that the image reads at its first start, and nowhere else it sees."""
    config = elasticsearch(view(elasticsearch=here(), kibana=here()))
    (container,) = config.containers
    mounted = {file.path for file in container.config if isinstance(file, File) and file.secret}
    assert mounted == {f"{container.config_dir}/password"}
    secrets = {file.path: file for file in config.files if isinstance(file, File) and file.secret}
    assert {path.rpartition("/")[0] for path in secrets} == {"/etc/rtinfra/elasticsearch-setup"}
    for file in secrets.values():
        assert (file.owner, file.group, file.mode) == ("root", "root", "0600")
        assert file.restarts == ("rtinfra-elasticsearch-setup.service",)
    folder = resource(config, "/etc/rtinfra/elasticsearch-setup")
    assert isinstance(folder, Directory) and (folder.owner, folder.mode) == ("root", "0700")
    asked = document(shipped("elasticsearch"), view(elasticsearch=here(), kibana=here()))
    assert {asked["password_file"], *(account["password_file"] for account in asked["users"].values())} == set(secrets)
    # An upgraded host loses those that lay in the mount.
    gone = {path.path for path in config.files if isinstance(path, Absent)}
    assert {f"{container.config_dir}/user-{user}" for user in ("rtinfra-reader", "kibana_system")} <= gone


# ---- the script -------------------------------------------------------------------------------------------


class Cluster:
    """What Elasticsearch remembers, given back as its documentation says: with defaults, numbers as text."""

    def __init__(self, passwords: dict[str, str]) -> None:
        self.passwords = dict(passwords)
        self.roles: dict[str, list[str]] = {"kibana_system": ["kibana_system"]}
        self.objects: dict[str, Any] = {}

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        user, _, password = base64.b64decode(headers["Authorization"].split()[1]).decode().partition(":")
        if self.passwords.get(user) != password:
            return 401, {}
        if path.startswith("/_cluster/health"):
            return 200, {"status": "yellow"}
        if path == "/_security/_authenticate":
            return 200, {"username": user, "roles": self.roles.get(user, [])}
        assert user == "elastic"
        if method == "GET":
            return self.told(path)
        if path.startswith("/_security/user/"):
            name = path.split("/")[3]
            self.passwords[name] = body["password"]
            if not path.endswith("/_password"):
                self.roles[name] = body["roles"]
        else:
            self.objects[path] = body
        return 200, {"acknowledged": True}

    def told(self, path: str) -> tuple[int, Any]:
        """Answer to `GET /_ilm/policy/NAME`, `/_index_template/NAME`, `/_security/role/NAME`."""
        kind, _, name = path.rpartition("/")
        if path not in self.objects:
            return 404, {} if kind == "/_security/role" else {"error": {}, "status": 404}
        kept = copy.deepcopy(self.objects[path])
        if kind == "/_index_template":
            index = kept["template"]["settings"]["index"]
            index |= {key: str(value) for key, value in index.items() if isinstance(value, int)}
            return 200, {"index_templates": [{"name": name, "index_template": {**kept, "composed_of": []}}]}
        if kind == "/_ilm/policy":
            kept["policy"]["phases"]["hot"]["min_age"] = "0ms"
            kept["policy"]["phases"]["delete"]["actions"]["delete"]["delete_searchable_snapshot"] = True
            return 200, {name: {"version": 1, "modified_date": "2026-01-01T00:00:00Z", **kept, "in_use_by": {}}}
        for indices in kept["indices"]:
            indices |= {"allow_restricted_indices": False, "privileges": sorted(indices["privileges"])}
        return 200, {name: {**kept, "metadata": {}, "transient_metadata": {"enabled": True}}}


def expected(url: str, directory: Path) -> dict[str, Any]:
    """The document of a site with Kibana, its secrets in files of a directory."""
    found = document(shipped("elasticsearch"), view(elasticsearch=here(), kibana=here()))
    found["url"], found["password_file"] = url, str(directory / "password")
    (directory / "password").write_text("secret-of-elastic\n")
    for user, account in found["users"].items():
        account["password_file"] = str(directory / user)
        (directory / user).write_text(f"secret-of-{user}\n")
    return found


def test_the_setup_makes_template_lifecycle_and_users_once(tmp_path: Path) -> None:
    cluster = Cluster({"elastic": "secret-of-elastic"})
    with serving(cluster.answer) as server:
        wish = expected(server.url, tmp_path)
        first = run("elasticsearch", wish, tmp_path)
        users = [path for _, path in server.writes if "/user/" in path]
        second = run("elasticsearch", wish, tmp_path)
        users_again = [path for _, path in server.writes if "/user/" in path]
        writes = len(server.writes)
        third = run("elasticsearch", wish, tmp_path)
        assert (third.returncode, third.stdout, len(server.writes)) == (0, "", writes), "it asks, and changes nothing"
        # What somebody changed is put back, and nothing else.
        cluster.objects["/_security/role/rtinfra-gateways"]["indices"][0]["privileges"].append("delete")
        cluster.objects["/_security/role/rtinfra-reader"]["cluster"] = ["all"]
        cluster.objects["/_ilm/policy/mxrc-logs"]["policy"]["phases"]["delete"]["min_age"] = "1h"
        del cluster.objects["/_index_template/mxrc-logs-prod"]
        changed = run("elasticsearch", wish, tmp_path)
        assert sorted(changed.stdout.splitlines()) == [
            "set /_ilm/policy/mxrc-logs",
            "set /_index_template/mxrc-logs-prod",
            "set /_security/role/rtinfra-gateways",
            "set /_security/role/rtinfra-reader",
        ]
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert cluster.objects == wish["put"]
    assert cluster.passwords == {
        "elastic": "secret-of-elastic",
        "kibana_system": "secret-of-kibana_system",
        "rtinfra-reader": "secret-of-rtinfra-reader",
        "rtinfra-gateways": "secret-of-rtinfra-gateways",
    }
    assert cluster.roles["rtinfra-gateways"] == ["rtinfra-gateways"]
    assert cluster.roles["rtinfra-reader"] == ["rtinfra-reader"]
    assert len(users) == 3 and users_again == users
    for done in (first, second):
        assert "secret-of" not in done.stdout + done.stderr


def test_a_refusal_is_said_without_a_secret(tmp_path: Path) -> None:
    with serving(Cluster({"elastic": "another"}).answer) as server:
        done = run("elasticsearch", expected(server.url, tmp_path), tmp_path)
    assert done.returncode == 1
    assert "401" in done.stderr and "secret-of" not in done.stderr


@pytest.mark.slow
def test_the_setup_waits_for_a_node_that_is_starting(tmp_path: Path) -> None:
    cluster = Cluster({"elastic": "secret-of-elastic"})
    refused = iter((503, 503))

    def answer(method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        if (status := next(refused, None)) is not None:
            return status, {}
        return cluster.answer(method, path, headers, body)

    with serving(answer) as server:
        done = run("elasticsearch", expected(server.url, tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
