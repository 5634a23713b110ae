"""The images of a lock as the storage folder of a docker-registry: nothing has to be pushed.

The layout is that of the file system driver of distribution 2.8, which Debian packages as docker-registry
(https://github.com/distribution/distribution, registry/storage/paths.go). Blobs are contents of the pool; what ties
them to repositories and tags are `link` files with a digest in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rtinfra.images import oci
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Blob, Lock, LockedImage
from rtinfra.mirror.tree import Tree, united

_ROOT = "docker/registry/v2"
# https://github.com/distribution/reference: what a registry takes for a repository and a tag.
_NAME = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_NAME}(?:/{_NAME})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def registry(lock: Lock, manifests: Mapping[str, bytes], earlier: Iterable[Lock] = ()) -> Tree:
    """Return the storage folder of a registry with the images of a lock, each under its version as a tag.

    Args:
        lock: what it offers.
        manifests: the manifests of the lock's images by their sha256.
        earlier: locks whose images clients may still ask for by digest.

    Raises:
        MirrorError: an image has a name or version that registries refuse, or its manifest names a content that the
            lock does not list.
    """
    for image in lock.images:
        _require_whole(image, manifests[image.manifest.sha256])
    images = [image for old in earlier for image in old.images]
    return united([*(_by_digest(image) for image in (*images, *lock.images)), *map(_tags, lock.images)])


def repository_name(image: LockedImage) -> str:
    """Return what the image is called in the registry: its name on hosts without the first part, a host's name.

    Raises:
        MirrorError: registries take no such name.
    """
    name = image.repository.partition("/")[2]
    if not _REPOSITORY.fullmatch(name):
        raise MirrorError(
            f"image {image.name} has the repository {image.repository!r}, and a registry cannot keep {name!r}",
            "write it as localhost/rtinfra/<name> in small letters, then make the lock again",
        )
    return name


def _by_digest(image: LockedImage) -> Tree:
    """Files of an image that are found by digest: all but its tag."""
    repository = f"repositories/{repository_name(image)}"
    links = {f"{repository}/_manifests/revisions/sha256/{image.manifest.sha256}/link": image.manifest}
    links.update({f"{repository}/_layers/sha256/{blob.sha256}/link": blob for blob in image.blobs})
    return Tree(
        {path: _link(blob) for path, blob in links.items()},
        {f"blobs/sha256/{blob.sha256[:2]}/{blob.sha256}/data": blob for blob in (image.manifest, *image.blobs)},
    ).below(_ROOT)


def _tags(image: LockedImage) -> Tree:
    if not _TAG.fullmatch(image.version):
        raise MirrorError(
            f"image {image.name} has version {image.version!r}, which a registry cannot keep as a tag",
            "use letters, digits, dots, dashes and underscores only, at most 128, then make the lock again",
        )
    tag = f"{_ROOT}/repositories/{repository_name(image)}/_manifests/tags/{image.version}"
    link = _link(image.manifest)
    return Tree({f"{tag}/current/link": link, f"{tag}/index/sha256/{image.manifest.sha256}/link": link})


def _link(blob: Blob) -> bytes:
    return f"sha256:{blob.sha256}".encode()


def _require_whole(image: LockedImage, manifest: bytes) -> None:
    named = {digest.removeprefix("sha256:") for digest in oci.references(manifest)}
    listed = {blob.sha256 for blob in image.blobs}
    if not named:
        raise MirrorError(
            f"the manifest of image {image.name} (sha256:{image.manifest.sha256}) names no configuration and layers",
            "lock the image of one architecture, not a list of images; then make the lock again",
        )
    if lacking := named - listed:
        raise MirrorError(
            f"the manifest of image {image.name} names sha256:{min(lacking)}, which the lock does not list",
            "make the lock again",
        )
