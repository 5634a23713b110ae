"""images/catalogue.yaml: every container image, its version, its licence and where it comes from."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rtinfra.config.document import load_document
from rtinfra.config.explain import did_you_mean
from rtinfra.config.types import AbsolutePath, SettingError, Settings
from rtinfra.local.errors import LocalError
from rtinfra.paths import PROJECT

CATALOGUE = PROJECT / "images" / "catalogue.yaml"
#: Where our images are said to be from; nothing is ever fetched from there.
REPOSITORY = "localhost/rtinfra"

#: How Go writes a version: v1.2.3.
GO_PREFIX = "v"

# Raised when the way of building changes without a change in the recipes.
_FORMAT = 1
# The grammar of a tag, https://github.com/opencontainers/distribution-spec (section "Pulling manifests").
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise SettingError("cannot be the tag of an image", "use letters, digits, dots and hyphens")
    return text


class ImageMissing(LocalError):
    """An image or package that is not there; the text says which command brings it."""


Tag = Annotated[str, AfterValidator(_tag)]


class DebianSource(Settings):
    """An image put together from Debian packages of the archive this computer is configured for."""

    suite: str = Field(pattern=r"^[a-z]+$", description="Debian release the packages are of", examples=["trixie"])
    packages: tuple[str, ...] = Field(min_length=1, description="packages; the first one's version is the image's")
    keep: tuple[AbsolutePath, ...] = Field(min_length=1, description="what of all their files goes into the image")
    certificates: bool = Field(description="whether Debian's bundle of certificate authorities is added")
    entrypoint: AbsolutePath = Field(description="program that the image runs; it knows --version")


class GoSource(Settings):
    """Static programs built here by Go; the modules are pinned by go.mod and go.sum of the directory.

    The `tool` lines of go.mod name the programs: the first is called as the image and is what it runs.
    """

    directory: str = Field(pattern=r"^images/[a-z0-9-]+$", description="recipe, a directory of the project")
    version_arguments: tuple[str, ...] = Field(min_length=1, description="arguments that make each say its version")
    version_variable: str | None = Field(description="Go variable that gets the version; null: none")
    version_prefix: str = Field(default=GO_PREFIX, description="what stands before the version in that variable")
    package: str | None = Field(
        pattern=r"^rtinfra-[a-z0-9-]+$", description="Debian package made of the first program; null: none"
    )


class RegistrySource(Settings):
    """The vendor's image."""

    repository: str = Field(pattern=r"^[a-z0-9.-]+(/[a-z0-9._-]+)+$", description="registry and name")
    tag: Tag = Field(description="the tag that `rtinfra images pull` resolves when there is no digest")
    digest: str | None = Field(
        pattern=r"^sha256:[0-9a-f]{64}$", description="digest that is pulled; null: not pinned yet"
    )


class CatalogueImage(Settings):
    """One image: exactly one of the three sources."""

    title: str = Field(description="what it is")
    version: Tag = Field(description="version of the program")
    licence: str = Field(pattern=r"^[A-Za-z0-9.+-]+$", description="SPDX identifier", examples=["Apache-2.0"])
    debian: DebianSource | None = None
    go: GoSource | None = None
    registry: RegistrySource | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.debian, self.go, self.registry)) != 1:
            raise SettingError("needs exactly one source", "keep one of debian, go and registry")
        return self

    @property
    def source(self) -> DebianSource | GoSource | RegistrySource:
        """The one source that is set."""
        found = self.debian or self.go or self.registry
        assert found is not None
        return found

    @property
    def kind(self) -> Literal["debian", "go", "registry"]:
        """Which source that is."""
        return "debian" if self.debian else "go" if self.go else "registry"

    def reference(self, name: str) -> str:
        """Return the name and tag the image has on hosts."""
        return f"{REPOSITORY}/{name}:{self.version}"

    def recipe(self, project: Path = PROJECT) -> str:
        """Return the sha256 over everything that decides what the image contains, but for what is fetched."""
        files = {}
        if self.go is not None:
            directory = project / self.go.directory
            paths = sorted(path for path in directory.rglob("*") if path.is_file())
            files = {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        described = self.model_dump(mode="json")
        if self.go is not None and self.go.version_prefix == GO_PREFIX:
            del described["go"]["version_prefix"]  # images made before there was this setting stay as they are
        content = {"format": _FORMAT, "image": described, "files": files}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Catalogue(Settings):
    """All images, by the name that roles use."""

    images: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")], CatalogueImage]

    def image(self, name: str) -> CatalogueImage:
        """Return an image by its name; raises ImageMissing."""
        if name not in self.images:
            raise ImageMissing(
                f"there is no image {name} in images/catalogue.yaml",
                did_you_mean(name, self.images) or "add it there",
            )
        return self.images[name]


def load_catalogue(path: Path = CATALOGUE) -> Catalogue:
    """Read the catalogue.

    Raises:
        ConfigError: it cannot be read or is wrong; every problem with its line.
    """
    shown = str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
    return load_document(Catalogue, path, shown)
