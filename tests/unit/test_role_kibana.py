"""Kibana as configured and set up (OB-3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.kibana.role import DATA_VIEW, document, state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import Absent, File
from tests.unit.fake_api import run, serving
from tests.unit.telemetry_site import at, here, resource, shipped, view
from tests.unit.telemetry_site import document as yaml_of

YML = "/etc/rtinfra/kibana/kibana.yml"


def kibana(where: FleetView) -> RoleState:
    return state(shipped("kibana"), where)


def test_the_data_view_is_the_one_of_the_row() -> None:
    assert (DATA_VIEW["title"], DATA_VIEW["timeFieldName"]) == ("mxrc-logs-*", "@timestamp")
    assert document(shipped("kibana"), view(kibana=here(), elasticsearch=here()))["data_view"] == DATA_VIEW


def test_it_asks_every_member_of_the_cluster() -> None:
    where = view(kibana=here(), elasticsearch=(at("es1", "192.0.2.11"), at("es2", "192.0.2.12")))
    loaded = yaml_of(kibana(where), YML)
    assert loaded["elasticsearch.hosts"] == ["http://192.0.2.11:9200", "http://192.0.2.12:9200"]
    assert loaded["elasticsearch.username"] == "kibana_system"
    assert (loaded["server.host"], loaded["server.port"]) == ("192.0.2.1", 5601)


def test_passwords_and_keys_are_in_a_file_of_their_own() -> None:
    config = kibana(view(kibana=here(), elasticsearch=here()))
    (container,) = config.containers
    secrets = resource(config, "/etc/rtinfra/kibana/secrets.yml")
    assert isinstance(secrets, File) and secrets.secret and secrets.mode == "0600"
    loaded = yaml.safe_load(secrets.content)
    assert loaded["elasticsearch.password"] == "value-of-kibana_password"
    assert loaded["xpack.encryptedSavedObjects.encryptionKey"] == "value-of-kibana_encryption_key"
    assert not any("value-of" in word for word in (*container.command, *container.environment.values()))
    assert b"value-of" not in resource(config, YML).content  # type: ignore[attr-defined]


def test_the_superusers_password_is_where_the_container_does_not_look() -> None:
    config = kibana(view(kibana=here(), elasticsearch=here()))
    (container,) = config.containers
    assert not any(b"value-of-elastic_password" in file.content for file in container.config)
    path = document(shipped("kibana"), view(kibana=here(), elasticsearch=here()))["password_file"]
    file = resource(config, path)
    assert isinstance(file, File)
    assert (file.content, file.owner, file.mode) == (b"value-of-elastic_password", "root", "0600")
    assert not path.startswith(f"{container.config_dir}/")
    assert any(isinstance(path, Absent) and path.path == "/etc/rtinfra/kibana/elastic" for path in config.files)


def test_it_starts_after_its_user_has_a_password() -> None:
    (container,) = kibana(view(kibana=here(), elasticsearch=here())).containers
    assert container.after == ("rtinfra-elasticsearch-setup.service",)
    (elsewhere,) = kibana(view(kibana=here(), elasticsearch=at("es1", "192.0.2.11"))).containers
    assert elsewhere.after == ()


def test_without_elasticsearch_it_is_refused() -> None:
    with pytest.raises(ValueError, match="elasticsearch"):
        kibana(view(kibana=here()))


class Views:
    """What Kibana remembers."""

    def __init__(self) -> None:
        self.views: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        if method != "GET":
            assert "kbn-xsrf" in {name.lower() for name in headers}
        identity = path.removeprefix("/api/data_views/data_view").strip("/")
        if method == "GET":
            return (200, {"data_view": self.views[identity]}) if identity in self.views else (404, {})
        self.views.setdefault(identity or body["data_view"]["id"], {}).update(body["data_view"])
        return 200, {}


def test_the_setup_makes_the_data_view_once_and_mends_it(tmp_path: Path) -> None:
    views = Views()
    (tmp_path / "elastic").write_text("secret-of-elastic\n")
    with serving(views.answer) as server:
        wish = document(shipped("kibana"), view(kibana=here(), elasticsearch=here()))
        wish |= {"url": server.url, "password_file": str(tmp_path / "elastic")}
        for _ in range(2):
            done = run("kibana", wish, tmp_path)
            assert done.returncode == 0, done.stderr
        assert server.writes == [("POST", "/api/data_views/data_view")]
        assert views.views == {"mxrc-logs": DATA_VIEW}
        views.views["mxrc-logs"]["timeFieldName"] = "other"
        assert run("kibana", wish, tmp_path).returncode == 0
        assert server.writes[1:] == [("POST", "/api/data_views/data_view/mxrc-logs")]
    assert views.views["mxrc-logs"]["timeFieldName"] == "@timestamp"
