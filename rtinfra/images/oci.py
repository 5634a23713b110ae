"""OCI images as files: one archive per image, the same bytes for the same content.

An archive is the tar of an image layout (https://github.com/opencontainers/image-spec, image-layout.md) as the
`oci-archive` transport of containers/image reads it. `podman load` names the image after the annotation
`org.opencontainers.image.ref.name` of its entry in index.json and keeps the manifest as it is, so that
`<name>@<digest of the manifest>` resolves afterwards. index.json is the first member: the digest is read without
looking at the layers.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

#: What every file in an image or package of ours says it was changed at: 2026-01-01T00:00:00Z.
EPOCH = 1767225600
_CREATED = "2026-01-01T00:00:00Z"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_REFERENCE = "org.opencontainers.image.ref.name"
_BLOCK = 1024**2


class ArchiveError(Exception):
    """A file that is no OCI archive of ours, or a damaged one."""


@dataclass(frozen=True)
class Entry:
    """One path in an image: a directory, a link, or a file with its content."""

    path: str
    mode: int = 0o755
    content: Path | bytes | None = None
    link: str | None = None


@dataclass(frozen=True)
class Image:
    """What an image consists of. Everything in it belongs to root."""

    reference: str
    entries: tuple[Entry, ...]
    entrypoint: str
    environment: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def write(image: Image, archive: Path) -> str:
    """Write the archive of an image; return the digest of its manifest. An older archive stays until then."""
    with tempfile.TemporaryDirectory(prefix=".image-", dir=archive.parent) as work:
        layer = Path(work) / "layer"
        difference = _write_layer(image.entries, layer)
        config = _json(
            {
                "architecture": "amd64",
                "config": {
                    "Entrypoint": [image.entrypoint],
                    "Env": [f"{name}={value}" for name, value in sorted(image.environment.items())],
                },
                "created": _CREATED,
                "history": [{"created": _CREATED, "created_by": "rtinfra images build"}],
                "os": "linux",
                "rootfs": {"diff_ids": [difference], "type": "layers"},
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config),
                "layers": [_descriptor(_LAYER, layer)],
                "annotations": dict(sorted(image.annotations.items())),
            }
        )
        blobs: dict[str, Path | bytes] = {digest(blob): blob for blob in (layer, config, manifest)}
        return _pack(manifest, _MANIFEST, blobs, image.reference, archive)


def repack(layout: Path, reference: str, archive: Path) -> str:
    """Write the archive of the only image of a layout directory; return the digest of its manifest.

    Raises:
        ArchiveError: the directory is no layout with exactly one image.
    """
    try:
        (entry,) = json.loads((layout / "index.json").read_text(encoding="utf-8"))["manifests"]
        manifest = (layout / "blobs" / Path(*entry["digest"].split(":"))).read_bytes()
    except (OSError, KeyError, ValueError) as error:
        raise ArchiveError(f"{layout} is no image layout with one image: {error}") from error
    blobs: dict[str, Path | bytes] = {f"sha256:{path.name}": path for path in (layout / "blobs" / "sha256").iterdir()}
    return _pack(manifest, entry["mediaType"], blobs, reference, archive)


def read_digest(archive: Path) -> str:
    """Return the digest of the manifest of an archive, quickly.

    Raises:
        ArchiveError: not an archive that this module wrote.
    """
    try:
        with tarfile.open(archive, mode="r|") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first is not None and first.name == "index.json" else None
            if content is None:
                raise ArchiveError(f"{archive} does not begin with index.json")
            (entry,) = json.load(content)["manifests"]
            return str(entry["digest"])
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ArchiveError(f"{archive} is not a readable OCI archive") from error


def verify(archive: Path) -> None:
    """Read the whole archive: every blob has the content its name says, and none is missing.

    Raises:
        ArchiveError: it is damaged.
    """
    required = {read_digest(archive)}
    found = set()
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                if not member.isfile() or not member.name.startswith("blobs/"):
                    continue
                content = tar.extractfile(member)
                assert content is not None
                name = member.name.removeprefix("blobs/").replace("/", ":")
                beginning = content.read(_BLOCK)
                hashed = hashlib.sha256(beginning)
                while block := content.read(_BLOCK):
                    hashed.update(block)
                if name != f"sha256:{hashed.hexdigest()}":
                    raise ArchiveError(f"{archive} is damaged: the content of {name} does not match its name")
                found.add(name)
                required |= set(references(beginning)) if member.size < _BLOCK else set()
    except (OSError, tarfile.TarError) as error:
        raise ArchiveError(f"{archive} is damaged: {error}") from error
    if missing := required - found:
        raise ArchiveError(f"{archive} is damaged: {', '.join(sorted(missing))} is missing")


def digest(content: Path | bytes) -> str:
    """Return `sha256:...` of bytes or of a file."""
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def references(blob: bytes) -> Iterator[str]:
    """Digests that a manifest mentions; none for other blobs."""
    try:
        manifest = json.loads(blob)
        yield manifest["config"]["digest"]
        yield from (layer["digest"] for layer in manifest["layers"])
    except (ValueError, KeyError, TypeError):
        return


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place at the end; nothing is left when that fails."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(number)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _pack(manifest: bytes, media_type: str, blobs: Mapping[str, Path | bytes], reference: str, archive: Path) -> str:
    platform = {"architecture": "amd64", "os": "linux"}
    entry = {**_descriptor(media_type, manifest), "annotations": {_REFERENCE: reference}, "platform": platform}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]}
    entries = [
        Entry("index.json", 0o644, _json(index)),
        Entry("oci-layout", 0o644, _json({"imageLayoutVersion": "1.0.0"})),
        Entry("blobs"),
        Entry("blobs/sha256"),
        *(Entry(f"blobs/{name.replace(':', '/')}", 0o644, blob) for name, blob in sorted(blobs.items())),
    ]
    with replacing(archive) as temporary, temporary.open("wb") as file:
        _write_tar(entries, file)
    return digest(manifest)


def _write_layer(entries: Iterable[Entry], layer: Path) -> str:
    """Write the gzip-compressed tar of the entries, sorted; return the digest of the tar itself (its diff_id)."""
    ordered = sorted(entries, key=lambda entry: entry.path)
    with (
        layer.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as zipped,
    ):
        hashing = _Hashing(zipped)
        _write_tar(ordered, hashing)
    return f"sha256:{hashing.hash.hexdigest()}"


class _Hashing(io.RawIOBase):
    """Writer that hashes what passes through it."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self.hash = hashlib.sha256()
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._target.write(data)


def _write_tar(entries: Iterable[Entry], target: IO[bytes] | _Hashing) -> None:
    with tarfile.open(mode="w|", fileobj=target, format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            information = tarfile.TarInfo(entry.path)
            information.mtime = EPOCH
            information.mode = entry.mode
            if entry.link is not None:
                information.type, information.linkname, information.mode = tarfile.SYMTYPE, entry.link, 0o777
                tar.addfile(information)
            elif entry.content is None:
                information.type = tarfile.DIRTYPE
                tar.addfile(information)
            elif isinstance(entry.content, bytes):
                information.size = len(entry.content)
                tar.addfile(information, io.BytesIO(entry.content))
            else:
                information.size = entry.content.stat().st_size
                with entry.content.open("rb") as file:
                    tar.addfile(information, file)


def _descriptor(media_type: str, blob: Path | bytes) -> dict[str, object]:
    size = len(blob) if isinstance(blob, bytes) else blob.stat().st_size
    return {"mediaType": media_type, "digest": digest(blob), "size": size}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
