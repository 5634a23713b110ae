"""Images and packages of our own as the offline mirror has them: its clients need no files of this computer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from rtinfra.deb import LocalPackage
from rtinfra.images.image_catalogue import REPOSITORY, Catalogue, ImageMissing, load_catalogue


class MirroredStore:
    """What is on a mirror: `digests` of images by repository, as its registry calls it, and tag."""

    def __init__(self, digests: Mapping[tuple[str, str], str], catalogue: Catalogue | None = None) -> None:
        self._digests = digests
        self._given = catalogue

    @cached_property
    def catalogue(self) -> Catalogue:
        """All images there may be; raises ConfigError when images/catalogue.yaml is wrong."""
        return self._given or load_catalogue()

    def image(self, name: str) -> str:
        """Return the pinned reference of an image in the catalogue's version; raises ImageMissing."""
        version = self.catalogue.image(name).version
        digest = self._digests.get((f"{REPOSITORY.partition('/')[2]}/{name}", version))
        if digest is None:
            raise ImageMissing(
                f"image {name} {version} is not on the mirror",
                "make the lock again on the connected computer (`rtinfra mirror lock`), then carry a new bundle in",
            )
        return f"{REPOSITORY}/{name}@{digest}"

    def package(self, name: str) -> LocalPackage:
        """Return a package by the name it is installed by; the mirror has one version of it, apt finds out which."""
        image = self.catalogue.images.get(name)
        package = image.go.package if image is not None and image.go is not None else None
        return LocalPackage(Path(name), package or name, "")
