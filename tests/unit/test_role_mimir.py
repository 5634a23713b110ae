"""Mimir as configured (OB-10, OB-11, OB-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from roles.alertmanager.model import ALERTMANAGER
from roles.mimir.role import replication_factor, state
from roles.shape import FleetView, RoleState
from rtinfra.operations.resources import File
from tests.unit.telemetry_site import at, document, here, resource, shipped, view

MIMIR = "/etc/rtinfra/mimir/mimir.yaml"
OVERRIDES = "/etc/rtinfra/mimir/overrides.yaml"
OTHERS = (at("m2", "192.0.2.2"), at("m3", "192.0.2.3"))


def mimir(where: FleetView) -> RoleState:
    return state(shipped("mimir"), where)


def test_the_row_is_met() -> None:
    config = mimir(view(mimir=here()))
    loaded, overrides = document(config, MIMIR), document(config, OVERRIDES)["overrides"]
    assert loaded["target"] == "all,alertmanager"
    assert loaded["server"]["http_listen_port"] == 9009
    assert loaded["ruler"]["evaluation_interval"] == "1m"
    expected = {"prod": (10000, 50000, "360h"), "staging": (5000, 20000, "168h")}
    assert {
        name: (
            overrides[name]["ingestion_rate"],
            overrides[name]["max_global_series_per_user"],
            overrides[name]["compactor_blocks_retention_period"],
        )
        for name in expected
    } == expected
    assert overrides.keys() == {"prod", "staging", "infra-monitoring"}
    assert loaded["multitenancy_enabled"] is True


def test_exemplars_and_late_samples_are_accepted() -> None:
    config = mimir(view(mimir=here()))
    for limits in (document(config, MIMIR)["limits"], *document(config, OVERRIDES)["overrides"].values()):
        assert limits["max_global_exemplars_per_user"] > 0
        assert limits["out_of_order_time_window"] == "4h"


def paths(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, child in tree.items():
            if isinstance(child, str) and (key in ("dir", "directory", "rule_path") or key.endswith("_dir")):
                yield child
            yield from paths(child)


def test_no_two_parts_share_a_directory_or_one_inside_another() -> None:
    found = [f"{path}/" for path in paths(document(mimir(view(mimir=here())), MIMIR))]
    assert len(found) == 8
    for path in found:
        assert [other for other in found if other.startswith(path)] == [path]
        assert path.startswith("/data/")


@pytest.mark.parametrize(("members", "copies"), [(1, 1), (2, 1), (3, 3), (5, 3)])
def test_copies_follow_from_the_number_of_members(members: int, copies: int) -> None:
    assert replication_factor(members) == copies


def test_a_single_node_keeps_one_copy_everywhere() -> None:
    loaded = document(mimir(view(mimir=here())), MIMIR)
    assert loaded["ingester"]["ring"]["replication_factor"] == 1
    assert loaded["store_gateway"]["sharding_ring"]["replication_factor"] == 1
    assert loaded["alertmanager"]["sharding_ring"]["replication_factor"] == 1


def test_members_find_each_other() -> None:
    loaded = document(mimir(view(mimir=(here(), *OTHERS), garage=here())), MIMIR)
    assert loaded["memberlist"]["join_members"] == ["192.0.2.1:7946", "192.0.2.2:7946", "192.0.2.3:7946"]
    assert loaded["memberlist"]["advertise_addr"] == "192.0.2.1"
    assert loaded["ingester"]["ring"]["replication_factor"] == 3
    # Nothing is left to a guess from the names of network interfaces.
    for section, ring in (
        ("compactor", "sharding_ring"),
        ("distributor", "ring"),
        ("ingester", "ring"),
        ("store_gateway", "sharding_ring"),
        ("query_scheduler", "ring"),
        ("ruler", "ring"),
        ("alertmanager", "sharding_ring"),
    ):
        assert loaded[section][ring]["instance_addr"] == "192.0.2.1"
    assert loaded["frontend"]["address"] == "192.0.2.1"


def test_members_without_shared_storage_are_refused() -> None:
    with pytest.raises(ValueError, match="garage"):
        mimir(view(mimir=(here(), *OTHERS)))


def test_with_a_garage_each_part_has_its_prefix() -> None:
    loaded = document(mimir(view(mimir=here(), garage=here())), MIMIR)
    assert loaded["common"]["storage"]["backend"] == "s3"
    assert loaded["common"]["storage"]["s3"]["bucket_name"] == "mimir"
    sections = ("blocks_storage", "ruler_storage", "alertmanager_storage")
    assert len({loaded[section]["storage_prefix"] for section in sections}) == 3


def test_alerts_of_its_rules_go_to_the_alertmanagers() -> None:
    where = view(mimir=here(), alertmanager=here())
    port = where.members(ALERTMANAGER)[0].settings.port
    assert document(mimir(where), MIMIR)["ruler"]["alertmanager_url"] == f"http://192.0.2.1:{port}/"


def test_it_is_checked_by_mimir_before_it_goes_live_and_reports_nothing() -> None:
    config = mimir(view(mimir=here()))
    file = resource(config, MIMIR)
    assert isinstance(file, File) and file.validate is not None
    assert file.validate.endswith("/bin/mimir -modules -config.file=/etc/mimir/checked")
    assert document(config, MIMIR)["usage_stats"]["enabled"] is False
