"""Container images: those a host lacks are carried to it, or pulled by digest where it uses the offline mirror."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api.command import FileUploadCommand, PyinfraCommand, StringCommand
from pyinfra.api.operation import operation

from rtinfra.facts.images import Images

# Root's own directory on the disk: /tmp may be memory.
_CACHE = "/var/cache/rtinfra"


@operation()
def loaded(images: Mapping[str, Path], pull: bool = False) -> Generator[PyinfraCommand, None, None]:
    """Load every image that is missing; `images` maps pinned references to OCI archives of this computer.

    With `pull` the host gets them itself, by digest, from where its registries.conf says that our images are.
    An archive that was cut off while it was carried is carried again: it has its final name only once it is whole.
    """
    found: frozenset[str] = host.get_fact(Images)
    missing = {reference: path for reference, path in images.items() if reference not in found}
    if not missing:
        host.noop(f"all {len(images)} images are there")
        return
    if pull:
        for reference in missing:
            logger.info("%s%s: pulling from the mirror", host.print_prefix, reference.partition("@")[0])
            yield StringCommand(f"podman pull --quiet {shlex.quote(reference)}")
        return
    yield StringCommand(f"install -d -m 0700 {_CACHE}")
    for reference, path in missing.items():
        size = path.stat().st_size / 1e6
        logger.info("%s%s: loading, %.0f MB", host.print_prefix, reference.partition("@")[0], size)
        remote = f"{_CACHE}/{path.name}"
        yield FileUploadCommand(str(path), remote)
        quoted, pinned = shlex.quote(remote), shlex.quote(reference)
        yield StringCommand(f"podman load --quiet --input {quoted} && rm -f {quoted} && podman image exists {pinned}")
