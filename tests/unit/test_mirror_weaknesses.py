"""What an audit against advisories finds: package, weakness, way out; and what it must not pass over."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtinfra.config import ConfigError
from rtinfra.images import LocalStore
from rtinfra.images.image_catalogue import Catalogue
from rtinfra.local.progress import Reporter
from rtinfra.mirror import components, weaknesses
from rtinfra.mirror import lock as locking
from rtinfra.mirror.cli import app
from rtinfra.mirror.components import Component
from rtinfra.mirror.ecosystems import GO, PYPI
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Lock, bundle_id
from rtinfra.mirror.waived import Waiver, load_waivers
from rtinfra.mirror.weaknesses import Weakness, find
from rtinfra.paths import PROJECT
from tests.unit.mirror_site import Site, site

NOW = datetime(2026, 11, 29, tzinfo=UTC)
DEBIAN = "Debian:13"
Events = list[dict[str, str]]


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def says(
    name: str, ecosystem: str = PYPI, package: str = "thing", events: Events | None = None, **more: Any
) -> dict[str, Any]:
    """Return an advisory about one package."""
    kind = "SEMVER" if ecosystem == GO else "ECOSYSTEM"
    affected: dict[str, Any] = {"package": {"ecosystem": ecosystem, "name": package}, **more.pop("affected", {})}
    affected["ranges"] = [
        {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "644124ecd0b6e417c527191f866daa05a5a2056d"}]},
        {"type": kind, "events": events or [{"introduced": "0"}, {"fixed": "2.0"}]},
    ]
    return {"id": name, "modified": "2026-11-20T00:00:00Z", "summary": "It breaks", "affected": [affected], **more}


def component(version: str, ecosystem: str = PYPI, name: str = "thing") -> Component:
    return Component(ecosystem, name, version, "some.lock:3", "renew it")


def held(
    folder: Path, packages: Sequence[Component], *advisories: dict[str, Any], waivers: Sequence[Waiver] = ()
) -> list[Weakness]:
    """Return the weaknesses that are found, and nothing else may be."""
    for number, content in enumerate(advisories):
        (folder / f"{number}.json").write_text(json.dumps(content))
    found = find(packages, [folder], waivers, NOW).findings
    weak = [one for one in found if isinstance(one, Weakness)]
    assert len(weak) == len(found), found
    return weak


def test_package_version_weakness_place_and_way_out_are_named(tmp_path: Path) -> None:
    (one,) = held(tmp_path, [component("1.4")], says("PYSEC-2026-1", aliases=["CVE-2026-1", "GHSA-aaaa-bbbb-cccc"]))
    assert one.problem == "thing 1.4 (PyPI) has CVE-2026-1 (GHSA-aaaa-bbbb-cccc, PYSEC-2026-1): It breaks"
    assert one.next_step == "2.0 or newer: renew it; or waive CVE-2026-1 until a day in audit-waivers.yaml"
    assert (one.file, one.severity, one.fixed) == ("some.lock:3", "error", "2.0")


BRANCHES = [{"introduced": "2.0.0"}, {"fixed": "2.0.6"}, {"introduced": "0"}, {"fixed": "1.26.17"}]
STANDARD = [{"introduced": "0"}, {"fixed": "1.21.9"}, {"introduced": "1.22.0-0"}, {"fixed": "1.22.2"}]


@pytest.mark.parametrize(
    "ecosystem, events, version, fixed",
    [
        (PYPI, BRANCHES, "1.26.16", "1.26.17"),
        (PYPI, BRANCHES, "1.26.17", None),
        (PYPI, BRANCHES, "2.0.5", "2.0.6"),
        (PYPI, BRANCHES, "2.0.0rc1", None),
        (PYPI, BRANCHES, "2.0.6", None),
        (PYPI, [{"introduced": "1.0"}, {"last_affected": "1.5"}], "1.5", "-"),
        (PYPI, [{"introduced": "1.0"}, {"last_affected": "1.5"}], "1.5.1", None),
        (PYPI, [{"introduced": "0"}], "0.0.dev1", "-"),
        (GO, STANDARD, "1.22.0", "1.22.2"),
        (GO, STANDARD, "1.22.0-rc.1", "1.22.2"),
        (GO, STANDARD, "1.21.10", None),
        (DEBIAN, [{"introduced": "0"}, {"fixed": "1:3.0-1~deb13u2"}], "1:3.0-1~deb13u1", "1:3.0-1~deb13u2"),
        (DEBIAN, [{"introduced": "0"}, {"fixed": "1:3.0-1~deb13u2"}], "1:3.0-1", None),
        (DEBIAN, [{"introduced": "0"}, {"fixed": "3.0-1"}], "1:0.1-1", None),
    ],
)  # fmt: skip
def test_a_version_is_weak_from_where_a_range_begins_to_where_it_ends(
    tmp_path: Path, ecosystem: str, events: Events, version: str, fixed: str | None
) -> None:
    found = held(tmp_path, [component(version, ecosystem)], says("X-1", ecosystem, events=events))
    assert [one.fixed or "-" for one in found] == ([fixed] if fixed else [])


def test_a_listed_version_is_weak_without_a_range(tmp_path: Path) -> None:
    listed = says("X-1", events=[{"introduced": "5"}], affected={"versions": ["1.4"]})
    assert [one.fixed for one in held(tmp_path, [component("1.4")], listed)] == [None]


def test_names_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    found = held(tmp_path, [component("1.0", name="some-thing")], says("X-1", package="Some_Thing"))
    assert [one.package for one in found] == ["some-thing"]


def test_what_several_databases_say_of_one_weakness_is_one_finding(tmp_path: Path) -> None:
    later = [{"introduced": "0"}, {"fixed": "2.1"}]
    found = held(
        tmp_path,
        [component("1.0")],
        says("PYSEC-2026-1", aliases=["GHSA-aaaa-bbbb-cccc"]),
        says("OTHER-1", aliases=["CVE-2026-1"], events=later),
        says("GHSA-aaaa-bbbb-cccc", aliases=["CVE-2026-1"]),
        says("PYSEC-2026-2", aliases=["CVE-2026-2"]),
    )
    # Mended is what every one of them calls mended.
    assert [(one.weakness, one.fixed) for one in found] == [("CVE-2026-1", "2.1"), ("CVE-2026-2", "2.0")]


def test_a_notice_of_debian_about_several_weaknesses_makes_them_no_single_one(tmp_path: Path) -> None:
    found = held(
        tmp_path,
        [component("1.0", DEBIAN)],
        says("DSA-1-1", DEBIAN, upstream=["CVE-2026-1", "CVE-2026-2"]),
        says("DEBIAN-CVE-2026-1", DEBIAN, upstream=["CVE-2026-1"]),
        says("DEBIAN-CVE-2026-2", DEBIAN, upstream=["CVE-2026-2"]),
    )
    assert [one.weakness for one in found] == ["CVE-2026-1", "CVE-2026-2", "DSA-1-1"]


def test_what_debian_has_not_mended_is_a_warning_and_what_it_calls_unimportant_is_none(tmp_path: Path) -> None:
    open_still: Events = [{"introduced": "0"}]
    (one,) = held(
        tmp_path,
        [component("1.0", DEBIAN)],
        says("DEBIAN-CVE-2026-1", DEBIAN, events=open_still),
        says("DEBIAN-CVE-2026-2", DEBIAN, affected={"ecosystem_specific": {"urgency": "unimportant"}}),
    )
    assert (one.severity, one.fixed) == ("warning", None)
    assert one.next_step.startswith("no version mends it yet: do without thing, or waive DEBIAN-CVE-2026-1")


def test_a_python_package_that_nobody_mends_fails(tmp_path: Path) -> None:
    (one,) = held(tmp_path, [component("1.0")], says("MAL-2026-1", events=[{"introduced": "0"}]))
    assert (one.severity, one.fixed) == ("error", None)


def test_another_release_of_debian_does_not_count(tmp_path: Path) -> None:
    other = says("DEBIAN-CVE-2026-1", "Debian:12", events=[{"introduced": "0"}, {"fixed": "9-1"}])
    assert held(tmp_path, [component("1.0", DEBIAN)], other, says("X", DEBIAN, "other")) == []


# ---- waivers ----------------------------------------------------------------------------------------------


def waiver(**changes: Any) -> Waiver:
    written = {"weakness": "CVE-2026-1", "package": "thing", "owner": "Kim", "reason": "not reachable"}
    return Waiver.model_validate({**written, "expires": "2026-11-29", **changes})


def test_a_waiver_counts_on_its_last_day_and_is_shown_with_its_reason(tmp_path: Path) -> None:
    (one,) = held(tmp_path, [component("1.0")], says("P-1", aliases=["CVE-2026-1"]), waivers=[waiver()])
    assert (one.severity, one.next_step) == ("waived", "until 2026-11-29 by Kim: not reachable")


def test_of_two_waivers_the_longer_one_counts(tmp_path: Path) -> None:
    both = [waiver(expires="2026-12-31"), waiver(expires="2026-11-01", owner="Lee")]
    (one,) = held(tmp_path, [component("1.0")], says("CVE-2026-1"), waivers=both)
    assert (one.severity, one.next_step) == ("waived", "until 2026-12-31 by Kim: not reachable")


def test_a_waiver_whose_day_has_passed_is_named_and_counts_no_more(tmp_path: Path) -> None:
    ended = waiver(weakness="P-1", expires="2026-11-28")
    (one,) = held(tmp_path, [component("1.0")], says("P-1", aliases=["CVE-2026-1"]), waivers=[ended])
    assert one.severity == "error"
    assert one.next_step.startswith("the waiver of Kim ended on 2026-11-28: 2.0 or newer: renew it; or waive")


@pytest.mark.parametrize("changes", [{"package": "other"}, {"weakness": "CVE-2026-9"}])
def test_a_waiver_of_something_else_waives_nothing_and_says_so(tmp_path: Path, changes: dict[str, str]) -> None:
    (tmp_path / "1.json").write_text(json.dumps(says("P-1", aliases=["CVE-2026-1"])))
    weak, useless = find([component("1.0")], [tmp_path], [waiver(**changes)], NOW).findings
    assert weak.severity == "error"
    assert (useless.severity, useless.file) == ("warning", "audit-waivers.yaml")
    assert "waives nothing" in useless.problem


def test_a_wrong_waiver_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "audit-waivers.yaml"
    path.write_text(
        "waivers:\n- weakness: CVE-2026-1\n  package: thing\n  owner: Kim\n  reason: x y z\n  expires: soon\n"
    )
    with pytest.raises(ConfigError, match=r"audit-waivers\.yaml:6: .*is not a day of the calendar"):
        load_waivers(path)
    assert load_waivers(tmp_path / "none") == ()
    assert load_waivers(PROJECT / "audit-waivers.yaml") == ()


# ---- nothing is passed over -------------------------------------------------------------------------------


def test_an_audit_without_advisories_of_a_kind_is_no_audit_of_it(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(says("P-1", package="other")))
    found = find([component("1.0"), component("1.0", GO), component("2.0", GO)], [tmp_path], (), NOW)
    (one,) = found.findings
    assert one.severity == "error"
    assert one.problem == "no advisory is about Go: 2 packages of it were not audited"
    assert found.summary == "3 packages held against advisories: Go 0, PyPI 1"


def test_old_advisories_are_told(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(says("P-1", package="other")))
    (one,) = find([component("1.0")], [tmp_path], (), NOW + timedelta(days=60)).findings
    assert one.severity == "warning"
    assert "the newest advisory about PyPI is of 2026-11-20" in one.problem


def test_versions_that_cannot_be_compared_are_told(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(says("P-1", events=[{"introduced": "0"}, {"fixed": "soon"}])))
    (one,) = find([component("1.0")], [tmp_path], (), NOW).findings
    assert "thing 1.0 cannot be held against P-1: 'soon' is no version" in one.problem
    assert one.severity == "error"


# ---- what is audited --------------------------------------------------------------------------------------


def test_everything_that_the_project_pins_is_asked_about() -> None:
    found = {(one.ecosystem, one.name): one for one in components.of_project(PROJECT)}
    assert found[PYPI, "pyinfra"].version.startswith("3.10")
    assert found[PYPI, "psycopg-binary"].where.startswith("requirements/")
    assert {"requirements/runtime.txt", "requirements/dev.txt", "requirements/preflight.txt"} == {
        one.where.partition(":")[0] for one in components.of_project(PROJECT)
    }
    for path in (PROJECT / "requirements").glob("*.txt"):
        pins = sum(1 for line in path.read_text().splitlines() if "==" in line)
        assert pins == sum(1 for one in components.of_project(PROJECT) if path.name in one.where)


def test_every_module_of_every_recipe_is_asked_about(tmp_path: Path) -> None:
    found = list(components.of_recipes(PROJECT, LocalStore(tmp_path)))
    for path in (PROJECT / "images").rglob("go.mod"):
        shown = str(path.relative_to(PROJECT))
        required = [line for line in path.read_text().splitlines() if " v" in line and "=>" not in line]
        assert len(required) == sum(1 for one in found if one.where.startswith(f"{shown}:")) > 0


def test_what_replaces_a_module_is_what_is_asked_about(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    project = tmp_path / "project"
    recipe = (
        "module x\n\nreplace example.org/old => example.org/new v2.0.0\n\nrequire (\n\texample.org/old v1.0.0\n"
        "\texample.org/other v0.0.0-20240101000000-0123456789ab // indirect\n)\n"
    )
    for image in store.catalogue.images.values():
        if image.go is not None:
            (project / image.go.directory).mkdir(parents=True)
            (project / image.go.directory / "go.mod").write_text(recipe)
    assert {(one.name, one.version) for one in components.of_recipes(project, store)} == {
        ("example.org/new", "2.0.0"),
        ("example.org/other", "0.0.0-20240101000000-0123456789ab"),
    }


@pytest.mark.parametrize(
    "name, text", [("requirements/runtime.txt", "thing>=1\n"), ("images/otelcol/go.mod", "go 1.25\n")]
)
def test_a_file_that_pins_nothing_is_refused(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(MirrorError, match=rf"{name} (pins nothing|requires no module)"):
        [*components.of_project(tmp_path), *components.of_recipes(tmp_path, LocalStore(tmp_path / "store"))]


def test_the_go_that_built_an_image_is_asked_about(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    name = next(name for name, image in store.catalogue.images.items() if image.go)
    record = {"recipe": "0", "digest": "sha256:0", "made_from": {"toolchain": "go1.25.3"}}
    (tmp_path / f"{name}-{store.catalogue.images[name].version}.json").write_text(json.dumps(record))
    found = [one for one in components.of_recipes(PROJECT, store) if one.name == "stdlib"]
    assert [(one.version, one.where) for one in found] == [("1.25.3", f"the Go that built the image {name}")]


def test_a_go_that_is_no_release_is_told_with_the_way_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    name = next(name for name, image in store.catalogue.images.items() if image.go)
    record = {"recipe": "0", "digest": "sha256:0", "made_from": {"toolchain": "devel go1.27-1a2b3c"}}
    (tmp_path / f"{name}-{store.catalogue.images[name].version}.json").write_text(json.dumps(record))
    with pytest.raises(MirrorError, match=f"the image {name} was built with another Go") as caught:
        list(components.of_recipes(PROJECT, store))
    assert f"`rtinfra images build --again {name}`" in caught.value.next_step


def kernel_lock(here: Site) -> Lock:
    """A lock with a package of another source, with a part of a third one in it; and a wheel."""
    image = here.package("linux-image-6.1", "6.1.192-2")
    stanza = (
        f"{image.stanza}Source: linux-signed-amd64 (6.1.192+2)\nBuilt-Using: linux (= 6.1.192-2), grub2 (= 2.12-9)\n"
    )
    lock = here.lock(wheels=[here.wheel("thing", "1.4")], images=[here.image("grafana", "13.2.1", "x")])
    origin = {
        "label": "Debian",
        "suite": "trixie",
        "date": NOW,
        "valid_until": None,
        "release_sha256": "0" * 64,
        "signed_by": ["0" * 40],
    }
    return Lock.model_validate(
        {
            **lock.model_dump(),
            "packages": [{**image.locked.model_dump(), "origin": "debian"}],
            "origins": {"debian": origin},
            "stanzas": here.put("index", stanza.encode(), "Packages"),
        }
    )


def test_packages_of_a_lock_are_asked_about_by_their_sources(here: Site) -> None:
    found = components.of_lock(kernel_lock(here), "mirror.lock.yaml", here.mirror.pool)
    assert [(one.ecosystem, one.name, one.version, one.where) for one in found] == [
        (PYPI, "thing", "1.4", "mirror.lock.yaml"),
        (DEBIAN, "linux-signed-amd64", "6.1.192+2", "mirror.lock.yaml: linux-image-6.1"),
        (DEBIAN, "linux", "6.1.192-2", "mirror.lock.yaml: linux-image-6.1"),
        (DEBIAN, "grub2", "2.12-9", "mirror.lock.yaml: linux-image-6.1"),
    ]


def test_packages_of_our_own_are_not_debians(here: Site) -> None:
    lock = here.lock([here.package("rtinfra-otelcol"), here.package("filebeat")])
    assert list(components.of_lock(lock, "x", here.mirror.pool)) == []
    # Nobody knows what a vendor put into a package.
    assert components.not_looked_into([lock], LocalStore()) == ["filebeat"]


def test_a_whole_audit_of_project_lock_and_images(here: Site, tmp_path: Path) -> None:
    project, advisories = tmp_path / "project", tmp_path / "advisories"
    (project / "requirements").mkdir(parents=True)
    (project / "requirements" / "runtime.txt").write_text("thing==1.4 \\\n    --hash=sha256:00\n")
    (project / "audit-waivers.yaml").write_text("waivers: []\n")
    locking.write(kernel_lock(here), project / "mirror.lock.yaml")
    store = LocalStore(tmp_path / "store")
    for image in store.catalogue.images.values():
        if image.go is not None:
            (project / image.go.directory).mkdir(parents=True)
            (project / image.go.directory / "go.mod").write_text("require golang.org/x/net v0.1.0\n")
    advisories.mkdir()
    for number, content in enumerate(
        [
            says("PYSEC-2026-1", aliases=["CVE-2026-1"]),
            says("GO-2026-1", GO, "golang.org/x/net", [{"introduced": "0"}, {"fixed": "0.2.0"}]),
            says("DEBIAN-CVE-2026-3", DEBIAN, "linux", [{"introduced": "0"}, {"fixed": "6.1.200-1"}]),
        ]
    ):
        (advisories / f"{number}.json").write_text(json.dumps(content))
    found = weaknesses.audit(project, project / "mirror.lock.yaml", here.mirror, store, [advisories], NOW, Reporter())
    assert found is not None
    recipes = [f"{image.go.directory}/go.mod:1" for image in store.catalogue.images.values() if image.go]
    assert [(one.file, one.severity) for one in found.findings if isinstance(one, Weakness)] == [
        (", ".join(recipes), "error"),
        ("mirror.lock.yaml: linux-image-6.1", "error"),
        ("requirements/runtime.txt:1, mirror.lock.yaml", "error"),
    ]
    last = found.findings[-1]
    assert (last.severity, last.problem) == (
        "warning",
        "nobody here knows what is in these images and packages: grafana",
    )


def test_advisories_that_a_bundle_brought_are_used_without_being_named(here: Site, tmp_path: Path) -> None:
    store, project = LocalStore(tmp_path / "store", Catalogue(images={})), tmp_path / "project"
    lock = kernel_lock(here)
    assert weaknesses.audit(project, project / "mirror.lock.yaml", here.mirror, store, [], NOW, Reporter()) is None
    files = []
    for ecosystem, package, version in ((PYPI, "thing", "2.0"), (DEBIAN, "linux", "6.1.200-1")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            content = says(f"{package}-1", ecosystem, package, [{"introduced": "0"}, {"fixed": version}])
            archive.writestr("1.json", json.dumps(content))
        blob = here.put("file", buffer.getvalue(), "advisories")
        files.append({"name": f"advisories-{package}.zip", **blob.model_dump(), "why": ["audits"]})
    lock = here.imported(Lock.model_validate({**lock.model_dump(), "files": files}))
    found = weaknesses.audit(project, project / "mirror.lock.yaml", here.mirror, store, [], NOW, Reporter())
    assert found is not None
    bundle = f"bundle {bundle_id(lock)}"
    assert [(one.file, one.weakness) for one in found.findings if isinstance(one, Weakness)] == [
        (f"{bundle}: linux-image-6.1", "linux-1"),
        (bundle, "thing-1"),
    ]


def test_the_command_fails_names_the_way_out_and_writes_json(tmp_path: Path) -> None:
    pinned = next(one for one in components.of_project(PROJECT) if one.name == "httpx")
    for ecosystem, package in ((PYPI, "httpx"), (GO, "example.org/none")):
        content = says(f"{ecosystem}-1", ecosystem, package, [{"introduced": "0"}, {"fixed": "999.0"}])
        (tmp_path / f"{ecosystem}.json").write_text(json.dumps(content | {"modified": datetime.now(UTC).isoformat()}))
    words = ["audit", "--advisories", str(tmp_path), "--directory", str(tmp_path / "mirror"), "--lock", "none.yaml"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert f"httpx {pinned.version} (PyPI) has PyPI-1: It breaks" in done.stdout
    assert "Next step: 999.0 or newer: `make lock` takes newer versions" in done.stdout
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    (one,) = told["findings"]
    assert (one["package"], one["version"], one["weakness"], one["fixed"]) == (
        "httpx",
        pinned.version,
        "PyPI-1",
        "999.0",
    )
    assert told["held"].endswith("Go 1, PyPI 1")


def test_without_weaknesses_the_command_succeeds_and_says_what_it_held_against_what(tmp_path: Path) -> None:
    for ecosystem in (PYPI, GO):
        content = says(f"{ecosystem}-1", ecosystem, "example.org/none") | {"modified": datetime.now(UTC).isoformat()}
        (tmp_path / f"{ecosystem}.json").write_text(json.dumps(content))
    words = ["audit", "--advisories", str(tmp_path), "--directory", str(tmp_path / "mirror"), "--lock", "none.yaml"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-2] == "everything is as it should be"
    assert done.stdout.splitlines()[-1].endswith("packages held against advisories: Go 1, PyPI 1")


@pytest.mark.parametrize("name", ["none.zip", "list.txt"])
def test_advisories_that_are_not_there_are_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text("none")
    done = CliRunner().invoke(app, ["audit", "--advisories", str(tmp_path / name), "--directory", str(tmp_path / "m")])
    assert done.exit_code == 1
    assert "Next step: docs/offline.md, Weaknesses" in done.stderr
