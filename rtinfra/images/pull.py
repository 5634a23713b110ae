"""Vendors' images: fetched from their registries by digest, kept as archives of ours."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from rtinfra.images.image_catalogue import CATALOGUE, CatalogueImage, RegistrySource, load_catalogue
from rtinfra.images.image_store import LocalStore, Record
from rtinfra.images.oci import ArchiveError, repack, replacing
from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.file_lock import locked
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter

_TOOLS = (Tool("skopeo", "skopeo"),)
_PLATFORM = ("--override-os=linux", "--override-arch=amd64")


def pull(name: str, store: LocalStore, report: Reporter, catalogue: Path = CATALOGUE) -> tuple[LocalStore, bool]:
    """Fetch a vendor's image unless the store has it; return the store, and whether it was there already.

    Without a digest in the catalogue, the tag is resolved and the digest is written there: from then on everybody
    gets this very image.

    Raises:
        LocalError: it does not come from a registry, or the registry does not give it.
    """
    image = store.catalogue.image(name)
    if image.registry is None:
        raise LocalError(f"{name} is built here and not pulled", f"run: rtinfra images build {name}")
    if store.state(name) == "ready":
        return store, True
    programs.ensure(_TOOLS, report)
    store.directory.mkdir(parents=True, exist_ok=True)
    with locked(store.directory / ".lock", "fetching images", timeout=3600):
        if image.registry.digest is None:
            digest = _resolve(name, image.registry, report)
            _pin(name, digest, catalogue)
            store = LocalStore(store.directory, load_catalogue(catalogue))
            image = store.catalogue.image(name)
        _fetch(name, image, store, report)
    return store, False


def _resolve(name: str, source: RegistrySource, report: Reporter) -> str:
    """Ask the registry which digest the tag has now."""
    with report.step(f"Asking for the digest of {source.repository}:{source.tag}", usual=5):
        words = ["skopeo", "inspect", "--no-tags", *_PLATFORM, "--format={{.Digest}}"]
        said = _asked(name, source, [*words, f"docker://{source.repository}:{source.tag}"])
    return said.strip().splitlines()[-1]


def _fetch(name: str, image: CatalogueImage, store: LocalStore, report: Reporter) -> None:
    source = image.registry
    assert source is not None
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=store.directory) as work:
        layout = Path(work) / "layout"
        origin, target = f"docker://{source.repository}@{source.digest}", f"oci:{layout}:{image.reference(name)}"
        with report.step(f"Fetching {name} {image.version} from {source.repository}", usual=60):
            copy = ["skopeo", "copy", *_PLATFORM, "--quiet"]
            try:
                _asked(name, source, [*copy, "--preserve-digests", origin, target])
            except LocalError as error:
                # Images in Docker's older format become OCI images, with another digest but the same layers; what
                # was fetched is checked against the pinned digest all the same.
                if "preserve" not in error.detail:
                    raise
                _asked(name, source, [*copy, "--format=oci", origin, target])
        _require_platform(name, layout)
        store.forget(name)
        with report.step(f"Packing the image {name}", usual=5):
            digest = repack(layout, image.reference(name), store.archive_path(name))
    fetched = {"repository": source.repository, "digest": source.digest}
    store.write_record(name, Record(image.recipe(), digest, fetched))


def _require_platform(name: str, layout: Path) -> None:
    """Refuse the image of another processor: a digest may be that of any."""
    try:
        (entry,) = json.loads((layout / "index.json").read_text(encoding="utf-8"))["manifests"]
        manifest = json.loads((layout / "blobs" / Path(*entry["digest"].split(":"))).read_text(encoding="utf-8"))
        config = layout / "blobs" / Path(*manifest["config"]["digest"].split(":"))
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise ArchiveError(f"skopeo left no readable image layout in {layout}") from error
    if (found.get("os"), found.get("architecture")) != ("linux", "amd64"):
        raise LocalError(
            f"the digest of {name} in images/catalogue.yaml is an image for"
            f" {found.get('os')}/{found.get('architecture')}, not for linux/amd64",
            f"set the digest to null and run `rtinfra images pull {name}` again",
        )


def _asked(name: str, source: RegistrySource, command: list[str]) -> str:
    try:
        return programs.execute(command, timeout=3600).stdout
    except LocalError as error:
        raise LocalError(
            f"{name} could not be had from {source.repository}",
            f"on a computer that reaches it run `rtinfra images pull {name}`, then bring images/store (and"
            " images/catalogue.yaml, if the digest was not pinned) here; the last lines above say what failed",
            error.detail,
        ) from error


class _Representer(RoundTripRepresenter):
    """YAML writer that keeps `null`; ruamel.yaml leaves it away."""

    def represent_none(self, data: None) -> ScalarNode:
        """Return the node of a null."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _pin(name: str, digest: str, catalogue: Path) -> None:
    """Write a digest into the catalogue; comments and order stay."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096  # never wrap what somebody wrote on one line
    document = yaml.load(catalogue.read_text(encoding="utf-8"))
    document["images"][name]["registry"]["digest"] = digest
    with replacing(catalogue) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
