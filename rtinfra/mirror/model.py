"""The two documents of the mirror as typed values: the lock, and the manifest of a bundle.

A lock says what a mirror holds: every content with size and sha256, where it came from and why it is there. It names
origins by what their signed index says of itself, never by an address: the same lock is fetched through whatever
archives the connected machine is configured for. It is written for people: YAML in a stable order.

A manifest says what a bundle carries. It is written for programs: canonical JSON, signed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from rtinfra.config.types import Settings
from rtinfra.mirror.errors import MirrorError

Document = TypeVar("Document", bound=Settings)

#: Raised when a lock or manifest of today could no longer be read by an rtinfra of yesterday.
FORMAT = 1
#: Name of the lock in the project folder.
LOCK_NAME = "mirror.lock.yaml"
#: What names of files with advisories begin with; a .zip file of its ecosystem each.
ADVISORIES = "advisories-"
#: Origin of packages that came as files of this computer: vendors' packages, our own, local kernels.
LOCAL = "local"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hex digest."""

BundleId = Annotated[str, Field(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}$")]
"""By what a bundle is known."""

Kind = Literal["package", "index", "blob", "wheel", "file", "lock"]
"""package: a .deb; index: stanzas of packages; blob: of an image; wheel; file: anything else; lock: the lock itself."""


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone")
    # Far from the ends of what Python counts: an end is reckoned from it.
    if not 1970 <= value.year < 2200:
        raise ValueError("is not between 1970 and 2200")
    return value.astimezone(UTC).replace(microsecond=0)


Instant = Annotated[datetime, AfterValidator(_utc)]
"""A moment in UTC, to the second."""


def _file_name(name: str) -> str:
    # Names become paths on the closed side; a bundle must not write outside its folder.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._~%=@-]*", name):
        raise ValueError("is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
"""The name of a file without any directory."""


def _one_line(text: str) -> str:
    # A shell reads it as the rest of a line: nothing in it may begin another one.
    if not text.isprintable() or not text:
        raise ValueError("is empty, or has a line break or another control character in it")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""A text of one line."""

Size = Annotated[int, Field(ge=0, le=1 << 60, description="bytes")]
"""Bytes of a content: no more than file systems and programs count."""

Suite = Annotated[str, Field(pattern=r"^[a-z]+$", description="Debian release by code name")]
Architecture = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", description="dpkg architecture of all hosts")]


class Content(NamedTuple):
    """One content of the pool, with a name for people."""

    sha256: str
    size: int
    kind: Kind
    name: str


class Blob(Settings):
    """A content by its hash."""

    sha256: Sha256
    size: Size


class Origin(Settings):
    """An upstream archive, as its signed index described it when the lock was made."""

    label: str = Field(description="Origin and Label of its Release file, for people")
    suite: str = Field(description="Suite or Codename it was asked for by, for example trixie-security")
    date: Instant = Field(description="Date of its Release file")
    valid_until: Instant | None = Field(description="Valid-Until of its Release file, if it has one")
    release_sha256: Sha256 = Field(description="of the InRelease file whose signature was checked")
    signed_by: tuple[str, ...] = Field(min_length=1, description="fingerprints of the keys of its good signatures")


class LockedPackage(Settings):
    """A Debian package."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")
    version: str = Field(pattern=r"^[0-9A-Za-z.+:~-]+$")
    architecture: str = Field(pattern=r"^[a-z0-9-]+$")
    origin: str = Field(description="name of an origin of the lock, or `local`")
    path: str = Field(description="path below its archive; the file name alone for `local`")
    size: Size = Field(gt=0)
    sha256: Sha256
    why: tuple[str, ...] = Field(min_length=1, description="what asked for it: hosts' names, `base set`, ...")

    @property
    def file_name(self) -> str:
        """The usual name of its file: name, version without epoch, architecture."""
        return f"{self.name}_{self.version.partition(':')[2] or self.version}_{self.architecture}.deb"


class LockedImage(Settings):
    """A container image."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="its name in images/catalogue.yaml")
    version: str
    licence: str
    repository: str = Field(description="what hosts call it, without tag or digest: localhost/rtinfra/<name>")
    manifest: Blob
    media_type: str = Field(description="of the manifest")
    blobs: tuple[Blob, ...] = Field(min_length=1, description="configuration and layers")
    why: tuple[str, ...] = Field(min_length=1)

    @property
    def reference(self) -> str:
        """The pinned reference, as units name it."""
        return f"{self.repository}@sha256:{self.manifest.sha256}"


class LockedWheel(Settings):
    """A Python wheel."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="normalised project name")
    version: str
    file: FileName
    size: Size = Field(gt=0)
    sha256: Sha256
    why: tuple[str, ...] = Field(min_length=1)


class LockedFile(Settings):
    """Anything else: this tool itself, requirement files, advisories."""

    name: FileName
    size: Size
    sha256: Sha256
    why: tuple[str, ...] = Field(min_length=1)


class Lock(Settings):
    """Everything a mirror holds."""

    format: Literal[1]
    created: Instant
    suite: Suite
    architecture: Architecture
    valid_days: int = Field(gt=0, le=36500, description="how long a mirror or bundle made from this lock is good")
    stanzas: Blob = Field(description="stanzas of all packages, as their origins' signed indexes have them")
    origins: dict[str, Origin]
    packages: tuple[LockedPackage, ...]
    images: tuple[LockedImage, ...]
    wheels: tuple[LockedWheel, ...]
    files: tuple[LockedFile, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for package in self.packages:
            if package.origin != LOCAL and package.origin not in self.origins:
                raise ValueError(f"package {package.name} is from {package.origin}, which is no origin of this lock")
            if package.architecture not in (self.architecture, "all"):
                raise ValueError(
                    f"package {package.name} is for {package.architecture}, the lock is for {self.architecture}"
                )
        listed: tuple[tuple[str, list[str]], ...] = (
            ("package", [f"{package.name} {package.version}" for package in self.packages]),
            ("image", [image.name for image in self.images]),
            ("wheel", [wheel.file for wheel in self.wheels]),
            ("file", [file.name for file in self.files]),
        )
        for what, names in listed:
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{what} {twice} is listed twice")
        return self

    @property
    def id(self) -> str:
        """What the lock is known by: 16 hex digits of the sha256 of its content, comments and layout aside."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()[:16]

    @property
    def valid_until(self) -> datetime:
        """When a bundle made from this lock expires."""
        return self.created + timedelta(days=self.valid_days)

    def contents(self) -> tuple[Content, ...]:
        """Every content the pool must have, each once, in a stable order; the lock itself aside."""
        return tuple({content.sha256: content for content in self._contents()}.values())

    def _contents(self) -> Iterator[Content]:
        yield Content(self.stanzas.sha256, self.stanzas.size, "index", "Packages")
        for package in self.packages:
            yield Content(package.sha256, package.size, "package", package.file_name)
        for image in self.images:
            for blob in (image.manifest, *image.blobs):
                yield Content(blob.sha256, blob.size, "blob", f"{image.name} sha256:{blob.sha256[:12]}")
        for wheel in self.wheels:
            yield Content(wheel.sha256, wheel.size, "wheel", wheel.file)
        for file in self.files:
            yield Content(file.sha256, file.size, "file", file.name)


class Carried(Settings):
    """One content of a bundle's manifest."""

    sha256: Sha256
    size: Size
    kind: Kind
    name: Line
    inside: bool = Field(description="whether this bundle carries it; a delta leaves out what its base brought")


class Part(Settings):
    """One file of a bundle."""

    file: FileName
    size: Size = Field(gt=0)
    sha256: Sha256


class Manifest(Settings):
    """What a bundle carries and what the mirror will hold after it. Its signature covers everything."""

    format: Literal[1]
    id: BundleId = Field(description="time and id of its lock")
    base: BundleId | None = Field(description="id of the bundle that a delta builds on; null: complete in itself")
    created: Instant
    valid_until: Instant
    suite: Suite
    architecture: Architecture
    lock: Sha256 = Field(description="the content that is the lock, in its canonical form")
    contents: tuple[Carried, ...]
    parts: tuple[Part, ...] = Field(description="in order, one after the other, they are one tar archive")
    files: tuple[Part, ...] = Field(description="what else is in the folder: for installing and for people")

    def canonical(self) -> bytes:
        """The bytes that are signed and written."""
        return canonical(self.to_json())

    @property
    def carried(self) -> tuple[Carried, ...]:
        """What is in the parts, in the order it is there."""
        return tuple(content for content in self.contents if content.inside)


def bundle_id(lock: Lock) -> str:
    """The id of every bundle made from a lock: it sorts by time."""
    return f"{lock.created:%Y%m%dT%H%M%SZ}-{lock.id}"


def canonical(data: object) -> bytes:
    """JSON with sorted keys and nothing optional in it: equal data are equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def lock_content(lock: Lock) -> tuple[Content, bytes]:
    """The lock as a content of the pool: canonical JSON, so that its YAML may be commented freely."""
    data = canonical(lock.to_json())
    return Content(hashlib.sha256(data).hexdigest(), len(data), "lock", LOCK_NAME), data


def read_document(model: type[Document], data: bytes, shown: str) -> Document:
    """Read a lock or manifest from JSON; `shown` names it in messages.

    Raises:
        MirrorError: it is not one, or one of a newer rtinfra.
    """
    try:
        plain: Any = json.loads(data)
        return parse_document(model, plain, shown)
    except (ValueError, RecursionError) as error:
        raise MirrorError(f"{shown} is not readable: {error}", "carry it again from where it was made") from error


def parse_document(model: type[Document], plain: Any, shown: str) -> Document:
    """Read a lock or manifest from plain data.

    Raises:
        MirrorError: it is not one, or one of a newer rtinfra.
    """
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        raise MirrorError(
            f"{shown} has format {found!r}, this rtinfra reads format {FORMAT}",
            "use the rtinfra that the file was made with; a bundle carries it",
        )
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "the document"
        raise MirrorError(f"{shown} is wrong at {key}: {first['msg']}", "make it again where it came from") from error


def ordered(packages: Iterable[LockedPackage]) -> tuple[LockedPackage, ...]:
    """Packages in the order of locks and indexes."""
    return tuple(sorted(packages, key=lambda package: (package.name, package.architecture, package.version)))


def pool_path(sha256: str) -> PurePosixPath:
    """Where a content is, below the folder of a pool."""
    return PurePosixPath(sha256[:2], sha256)
