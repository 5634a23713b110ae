"""The image catalogue and the store: what is refused, what is missing, and what brings it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rtinfra.config import ConfigError
from rtinfra.config.merge import Located
from rtinfra.config.yaml import load_yaml
from rtinfra.images import ImageMissing, LocalStore
from rtinfra.images.image_catalogue import (
    CATALOGUE,
    Catalogue,
    CatalogueImage,
    GoSource,
    RegistrySource,
    load_catalogue,
)
from rtinfra.images.image_store import Record
from rtinfra.images.oci import Entry, Image, write
from rtinfra.paths import PROJECT

DIGEST = f"sha256:{'ab' * 32}"
NAMES = {
    *("otelcol", "jaeger", "prometheus", "alertmanager", "grafana", "loki", "tempo", "mimir", "alloy"),
    *("elasticsearch", "kibana", "garage"),
}


def registry_image(digest: str | None) -> CatalogueImage:
    source = RegistrySource(repository="registry.example/vendor/demo", tag="v1.0", digest=digest)
    return CatalogueImage(title="Demo", version="1.0", licence="Apache-2.0", registry=source)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    images = {"demo": registry_image(DIGEST), "loose": registry_image(None)}
    return LocalStore(tmp_path, Catalogue(images=images))


def fill(store: LocalStore, name: str, recipe: str | None = None) -> str:
    image = store.catalogue.image(name)
    entries = (Entry("demo", 0o755, b"program"),)
    digest = write(Image(image.reference(name), entries, "/demo"), store.archive_path(name))
    store.write_record(name, Record(recipe or image.recipe(), digest))
    return digest


# ---- the shipped catalogue ---------------------------------------------------------------------------------


def test_the_shipped_catalogue_has_every_image_that_roles_use() -> None:
    catalogue = load_catalogue()
    assert set(catalogue.images) == NAMES
    used = re.compile(r'^(?:IMAGE|NAME) = "([a-z]+)"$', re.MULTILINE)
    for path in PROJECT.glob("roles/*/deploy.py"):
        text = path.read_text(encoding="utf-8")
        if "store.image(" in text:
            assert set(used.findall(text)) & catalogue.images.keys(), path


def keys(tree: Located) -> Iterator[int]:
    if isinstance(tree.value, Mapping):
        for child in tree.value.values():
            assert child.place is not None
            yield child.place.line
            yield from keys(child)


def test_every_key_of_the_shipped_catalogue_has_a_comment_right_above_it() -> None:
    lines = CATALOGUE.read_text(encoding="utf-8").splitlines()
    bare = [number for number in keys(load_yaml(CATALOGUE, "catalogue")) if "#" not in lines[number - 2]]
    assert not bare


def test_what_is_built_is_pinned_by_files_of_the_repository() -> None:
    for name, image in load_catalogue().images.items():
        if image.go is None:
            continue
        recipe = PROJECT / image.go.directory
        for go_mod in recipe.rglob("go.mod"):
            sums = go_mod.with_name("go.sum").read_text(encoding="utf-8")
            assert re.search(r"^go [0-9.]+$", go_mod.read_text(encoding="utf-8"), re.MULTILINE), name
            assert all(re.fullmatch(r"\S+ \S+ h1:\S{44}", line) for line in sums.splitlines()), name
            replaced = re.findall(r"^replace (\S+) =>", go_mod.read_text(encoding="utf-8"), re.MULTILINE)
            unpinned = [
                f"{module} {version}"
                for module, version in re.findall(r"^\t(\S+) (v\S+)", go_mod.read_text(encoding="utf-8"), re.MULTILINE)
                if module not in replaced and f"{module} {version}/go.mod h1:" not in sums
            ]
            assert not unpinned, f"{name}: {unpinned}"


def test_the_collectors_manifest_has_the_version_of_the_catalogue() -> None:
    manifest = load_yaml(PROJECT / "images/otelcol/manifest.yaml", "manifest").plain()
    assert isinstance(manifest, dict)
    version = load_catalogue().images["otelcol"].version
    assert str(manifest["dist"]["version"]) == version
    builder = (PROJECT / "images/otelcol/builder/go.mod").read_text(encoding="utf-8")
    assert f"go.opentelemetry.io/collector/cmd/builder v{version}" in builder


# ---- what is wrong in a catalogue --------------------------------------------------------------------------

WRONG = """\
images:
  demo:
    title: Demo
    version: 1.0+x
    licence: Apache-2.0
    registry:
      repository: registry.example/demo
      tag: v1
      digest: sha256:12
      mirror: other
  bare:
    title: Bare
    version: "1"
    licence: MIT
"""


def test_a_wrong_catalogue_is_told_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        load_catalogue(path)
    told = {problem.key: problem for problem in caught.value.problems}
    assert told["images.demo.version"].line == 4
    assert told["images.demo.registry.digest"].line == 9
    assert told["images.demo.registry.mirror"].line == 10
    assert told["images.bare"].reason == "needs exactly one source"


# ---- recipes ----------------------------------------------------------------------------------------------


def test_a_recipe_changes_with_every_file_and_setting(tmp_path: Path) -> None:
    source = GoSource(directory="images/x", version_arguments=("version",), version_variable=None, package=None)
    image = CatalogueImage(title="X", version="1", licence="MIT", go=source)
    directory = tmp_path / "images" / "x"
    directory.mkdir(parents=True)
    (directory / "go.mod").write_text("module x\n")
    first = image.recipe(tmp_path)
    assert image.recipe(tmp_path) == first
    (directory / "go.mod").write_text("module x \n")
    second = image.recipe(tmp_path)
    (directory / "deeper").mkdir()
    (directory / "deeper" / "file").touch()
    third = image.recipe(tmp_path)
    fourth = image.model_copy(update={"version": "2"}).recipe(tmp_path)
    assert len({first, second, third, fourth}) == 4


def test_a_setting_left_as_it_was_made_before_changes_no_recipe(tmp_path: Path) -> None:
    """Nobody builds an image again because another one needed a new setting."""
    settings = {"directory": "images/x", "version_arguments": ("version",), "version_variable": "x.v", "package": None}
    image = CatalogueImage(title="X", version="1", licence="MIT", go=GoSource(**settings))
    written = CatalogueImage(title="X", version="1", licence="MIT", go=GoSource(**settings, version_prefix="v"))
    other = CatalogueImage(title="X", version="1", licence="MIT", go=GoSource(**settings, version_prefix=""))
    assert image.recipe(tmp_path) == written.recipe(tmp_path)
    assert image.recipe(tmp_path) != other.recipe(tmp_path)


# ---- the store --------------------------------------------------------------------------------------------


def test_a_complete_image_is_given_by_its_pinned_reference(store: LocalStore) -> None:
    digest = fill(store, "demo")
    assert store.image("demo") == f"localhost/rtinfra/demo@{digest}"
    assert store.archive("demo").name == "demo-1.0.tar"
    assert store.state("demo") == "ready"


def test_a_missing_image_says_which_command_brings_it(store: LocalStore) -> None:
    with pytest.raises(ImageMissing) as caught:
        store.image("demo")
    assert caught.value.message == "image demo 1.0 is not in images/store"
    assert "run `rtinfra images pull demo`" in caught.value.next_step


def test_an_image_that_is_not_pinned_says_how_to_pin_it(store: LocalStore) -> None:
    with pytest.raises(ImageMissing) as caught:
        store.archive("loose")
    assert "its digest is not known yet" in caught.value.message
    assert "`rtinfra images pull loose`, which resolves the tag v1.0, pins its digest" in caught.value.next_step


def test_an_image_of_an_older_recipe_is_not_deployed(store: LocalStore) -> None:
    fill(store, "demo", recipe="another")
    with pytest.raises(ImageMissing, match="made by another recipe"):
        store.image("demo")


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_archive_is_not_deployed(store: LocalStore, content: bytes) -> None:
    fill(store, "demo")
    store.archive_path("demo").write_bytes(content)
    with pytest.raises(ImageMissing, match="not complete"):
        store.image("demo")


def test_an_archive_without_its_record_counts_as_missing(store: LocalStore) -> None:
    """An interrupted build: the record is written last."""
    fill(store, "demo")
    store.forget("demo")
    assert store.state("demo") == "missing"


def test_an_unknown_name_gets_a_suggestion(store: LocalStore) -> None:
    with pytest.raises(ImageMissing, match="did you mean demo"):
        store.image("demp")


def test_an_image_without_a_package_says_so(store: LocalStore) -> None:
    fill(store, "demo")
    with pytest.raises(ImageMissing, match="no Debian package of demo"):
        store.package("demo")
