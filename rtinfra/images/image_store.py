"""What has to be on this computer before a deploy: OCI archives of images, and our own Debian packages."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rtinfra import deb
from rtinfra.deb import LocalPackage
from rtinfra.images.image_catalogue import REPOSITORY, Catalogue, CatalogueImage, ImageMissing, load_catalogue
from rtinfra.images.oci import ArchiveError, read_digest, replacing
from rtinfra.paths import PROJECT

STORE = PROJECT / "images" / "store"


@dataclass(frozen=True)
class Record:
    """How an archive came about. It is written last: an archive with its record is complete.

    Attributes:
        recipe: `CatalogueImage.recipe()` it was made by.
        digest: digest of the image's manifest.
        made_from: what was used that the recipe does not pin: the Go toolchain, versions of Debian packages.
    """

    recipe: str
    digest: str
    made_from: dict[str, Any] = field(default_factory=dict)


class LocalStore:
    """The folder `images/store` of the project."""

    def __init__(self, directory: Path = STORE, catalogue: Catalogue | None = None) -> None:
        self.directory = directory
        self._given = catalogue

    @cached_property
    def catalogue(self) -> Catalogue:
        """All images there may be; raises ConfigError when images/catalogue.yaml is wrong."""
        return self._given or load_catalogue()

    def image(self, name: str) -> str:
        """Return the pinned reference of an image, as hosts know it after loading; raises ImageMissing."""
        return f"{REPOSITORY}/{name}@{read_digest(self.archive(name))}"

    def archive(self, name: str) -> Path:
        """Return the OCI archive of an image; raises ImageMissing."""
        self._require(name)
        return self.archive_path(name)

    def package(self, name: str) -> LocalPackage:
        """Return a Debian package; raises ImageMissing.

        `name` is an image of the catalogue that a package is made with, or the name of a vendor's package whose file
        somebody put into the store.
        """
        if name not in self.catalogue.images:
            return self._vendor_package(name)
        self._require(name)
        path = self.package_path(name)
        if path is None:
            raise ImageMissing(
                f"there is no Debian package of {name}: images/catalogue.yaml names none",
                f"set the package of {name} there, or install another one",
            )
        try:
            return deb.read(path)
        except ValueError as error:
            raise ImageMissing(str(error), f"run: rtinfra images build --again {name}") from error

    def _vendor_package(self, name: str) -> LocalPackage:
        found = []
        # Vendors write filebeat-9.5.4-amd64.deb, Debian filebeat_9.5.4_amd64.deb.
        for path in sorted(self.directory.glob(f"{name}[-_]*.deb")):
            try:
                package = deb.read(path)
            except ValueError as error:
                raise ImageMissing(str(error), "put the vendor's file there again") from error
            if package.name == name:
                found.append(package)
        if len(found) == 1:
            return found[0]
        files = ", ".join(package.path.name for package in found)
        raise ImageMissing(
            f"images/store has several packages {name}: {files}" if found else f"no package {name} is in images/store",
            "keep one of them" if found else f"put the vendor's file there, for example {name}-<version>-amd64.deb",
        )

    def state(self, name: str) -> str:
        """Return `ready`, or why the image cannot be used: `missing`, `outdated`, `damaged`, `not pinned`."""
        image = self.catalogue.image(name)
        record = self.record(name)
        if record is None:
            return "not pinned" if image.registry and image.registry.digest is None else "missing"
        if record.recipe != image.recipe():
            return "outdated"
        package = self.package_path(name)
        try:
            whole = read_digest(self.archive_path(name)) == record.digest and (package is None or package.is_file())
        except ArchiveError:
            whole = False
        return "ready" if whole else "damaged"

    def record(self, name: str) -> Record | None:
        """Return how the archive of an image came about; None when there is none."""
        try:
            return Record(**json.loads(self._path(name, "json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write_record(self, name: str, record: Record) -> None:
        """Say that the archive (and package) of an image is complete."""
        text = json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"
        with replacing(self._path(name, "json")) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def forget(self, name: str) -> None:
        """Take the record away: what is there is about to change."""
        self._path(name, "json").unlink(missing_ok=True)

    def archive_path(self, name: str) -> Path:
        """Return where the archive of an image is, or would be."""
        return self._path(name, "tar")

    def package_path(self, name: str) -> Path | None:
        """Return where the Debian package of an image is, or would be; None when there is none."""
        go = self.catalogue.image(name).go
        return self._path(go.package, "deb", name) if go is not None and go.package is not None else None

    def _path(self, stem: str, suffix: str, name: str | None = None) -> Path:
        return self.directory / f"{stem}-{self.catalogue.image(name or stem).version}.{suffix}"

    def _require(self, name: str) -> None:
        state = self.state(name)
        if state != "ready":
            image = self.catalogue.image(name)
            raise ImageMissing(_REASONS[state].format(f"image {name} {image.version}"), how_to_get(name, image))


_REASONS = {
    "missing": "{} is not in images/store",
    "not pinned": "{} is not in images/store, and its digest is not known yet",
    "outdated": "{} in images/store was made by another recipe than the one in images/ now",
    "damaged": "{} in images/store is not complete",
}


def how_to_get(name: str, image: CatalogueImage) -> str:
    """Return what brings an image into the store."""
    if image.registry is None:
        return f"run: rtinfra images build {name}"
    if image.registry.digest is None:
        return (
            f"on a computer that reaches {image.registry.repository.partition('/')[0]} run"
            f" `rtinfra images pull {name}`, which resolves the tag {image.registry.tag}, pins its digest in"
            " images/catalogue.yaml and fetches it; bring the folder images/ here"
        )
    return (
        f"run `rtinfra images pull {name}`, on a connected computer if this one does not reach"
        f" {image.registry.repository.partition('/')[0]}, and bring images/store here"
    )
