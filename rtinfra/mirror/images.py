"""Container images of images/store as contents of the pool: manifest, configuration and layers, each by its hash."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from rtinfra.images import LocalStore
from rtinfra.images.image_catalogue import REPOSITORY
from rtinfra.local.progress import Reporter
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Blob, Content, LockedImage
from rtinfra.mirror.pool import Pool, require_space

_BLOCK = 1 << 20


def lock_image(name: str, store: LocalStore, why: tuple[str, ...], pool: Pool, report: Reporter) -> LockedImage:
    """Put the contents of an image into the pool, each hashed on its way; say which they are.

    Raises:
        MirrorError: a content of the archive is missing, or is not what its name says; or there is no room.
        LocalError: the image is not in the store; the text says which command brings it.
    """
    archive = store.archive(name)
    image = store.catalogue.image(name)
    try:
        with tarfile.open(archive, mode="r:") as tar:
            (entry,) = json.loads(_read(tar, "index.json"))["manifests"]
            manifest = _blob(entry)
            plain = json.loads(_read(tar, f"blobs/sha256/{manifest.sha256}"))
            blobs = [_blob(descriptor) for descriptor in (plain["config"], *plain["layers"])]
            # An image may have the same layer twice.
            found = tuple({blob.sha256: blob for blob in blobs}.values())
            contents = (Content(blob.sha256, blob.size, "blob", _shown(name, blob)) for blob in (manifest, *found))
            missing = pool.missing(contents)
            if missing:
                _add(tar, missing, name, pool, report)
    except (tarfile.TarError, EOFError, KeyError, ValueError, TypeError) as error:
        raise _damaged(name, archive, str(error)) from error
    return LockedImage(
        name=name,
        version=image.version,
        licence=image.licence,
        repository=f"{REPOSITORY}/{name}",
        manifest=manifest,
        media_type=entry["mediaType"],
        blobs=found,
        why=why,
    )


def _blob(descriptor: dict[str, object]) -> Blob:
    """Of a descriptor (https://github.com/opencontainers/image-spec, descriptor.md)."""
    algorithm, _, sha256 = str(descriptor["digest"]).partition(":")
    if algorithm != "sha256":
        raise ValueError(f"{descriptor['digest']} is no sha256 digest")
    return Blob.model_validate({"sha256": sha256, "size": descriptor["size"]})


def _read(tar: tarfile.TarFile, member: str) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ValueError(f"{member} is no file")
    return file.read()


def _shown(name: str, blob: Blob) -> str:
    return f"{name} sha256:{blob.sha256[:12]}"


def _add(tar: tarfile.TarFile, missing: list[Content], name: str, pool: Pool, report: Reporter) -> None:
    total = sum(content.size for content in missing)
    require_space(pool.directory, total, f"for image {name}")
    with report.transfer(f"Taking image {name} into the pool", total) as advance:
        for content in missing:
            source = tar.extractfile(f"blobs/sha256/{content.sha256}")
            if source is None:
                raise ValueError(f"{content.name} is no file")
            try:
                with pool.writing(content) as file:
                    while block := source.read(_BLOCK):
                        file.write(block)
                        advance(len(block))
            except MirrorError as error:
                raise ValueError(error.message) from error


def _damaged(name: str, archive: Path, reason: str) -> MirrorError:
    return MirrorError(
        f"image {name}: {archive.name} in images/store is damaged: {reason}",
        f"make it again: `rtinfra images build --again {name}`, or `rtinfra images pull {name}` for a vendor's",
    )
