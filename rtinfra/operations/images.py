"""Container images: those a host lacks are carried to it, or pulled by digest where it uses the offline mirror."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.command import FileUploadCommand, PyinfraCommand, StringCommand
from pyinfra.api.operation import operation

from rtinfra.facts.images import Images
from rtinfra.operations.change import ImageChange
from rtinfra.operations.changes import record

# Root's own directory on the disk: /tmp may be memory.
_CACHE = "/var/cache/rtinfra"


@operation()
def loaded(images: Mapping[str, Path | None]) -> Generator[PyinfraCommand, None, None]:
    """Load every image that is missing; `images` maps pinned references to OCI archives of this computer.

    An image without an archive is pulled by the host itself, by digest, from where its registries.conf says that our
    images are. An archive that was cut off while it was carried is carried again: it has its final name only once it is
    whole.
    """
    found: frozenset[str] = host.get_fact(Images)
    missing = {reference: path for reference, path in images.items() if reference not in found}
    if not missing:
        host.noop(f"all {len(images)} images are there")
        return
    record(*(ImageChange(name=reference, text=_way(path)) for reference, path in missing.items()))
    for reference, path in missing.items():
        yield from _pulled(reference) if path is None else _carried(reference, path)


def _way(path: Path | None) -> str:
    return "pulled from the mirror" if path is None else f"loaded from {path.name}, {path.stat().st_size / 1e6:.0f} MB"


def _pulled(reference: str) -> Iterator[PyinfraCommand]:
    logger.info("%s%s: pulling from the mirror", host.print_prefix, reference.partition("@")[0])
    yield StringCommand(f"podman pull --quiet {shlex.quote(reference)}")


def _carried(reference: str, path: Path) -> Iterator[PyinfraCommand]:
    size = path.stat().st_size / 1e6
    logger.info("%s%s: loading, %.0f MB", host.print_prefix, reference.partition("@")[0], size)
    remote = f"{_CACHE}/{path.name}"
    yield StringCommand(f"install -d -m 0700 {_CACHE}")
    yield FileUploadCommand(str(path), remote)
    quoted, pinned = shlex.quote(remote), shlex.quote(reference)
    yield StringCommand(f"podman load --quiet --input {quoted} && rm -f {quoted} && podman image exists {pinned}")
