"""A Debian package around one program of ours: the same bytes for the same program."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from rtinfra.images.oci import EPOCH, replacing
from rtinfra.local import programs


@dataclass(frozen=True)
class Package:
    """What a package says of itself."""

    name: str
    version: str
    title: str
    licence: str


def write(package: Package, program: Path, path: str, target: Path, work: Path) -> None:
    """Write the package with `program` at `path` to `target`.

    Its revision is a hash of the program: the same program has the same version, another one another, so that hosts
    notice.
    """
    tree = work / package.name
    content = program.read_bytes()
    revision = hashlib.sha256(content).hexdigest()[:8]
    files = {
        path: content,
        f"usr/share/doc/{package.name}/copyright": (
            f"{package.title}\nLicence: {package.licence}\nBuilt from the sources that images/ of rtinfra pins.\n"
        ).encode(),
    }
    for name, data in files.items():
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(0o755 if name == path else 0o644)
    control = tree / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        f"Package: {package.name}\n"
        f"Version: {package.version}-{revision}\n"
        "Architecture: amd64\n"
        "Maintainer: rtinfra <root@localhost>\n"
        f"Installed-Size: {-(-sum(map(len, files.values())) // 1024)}\n"
        "Section: net\n"
        "Priority: optional\n"
        f"Description: {package.title}\n",
        encoding="utf-8",
    )
    sums = sorted((name, hashlib.md5(data, usedforsecurity=False).hexdigest()) for name, data in files.items())
    (control / "md5sums").write_text("".join(f"{value}  {name}\n" for name, value in sums), encoding="utf-8")
    # Whatever this user's umask made of them.
    for place in (tree, *tree.rglob("*")):
        if place.is_dir():
            place.chmod(0o755)
        elif place.parent == control:
            place.chmod(0o644)
    with replacing(target) as temporary:
        programs.execute(
            # gzip: xz's output depends on the number of its threads (xz(1), --threads).
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, temporary],
            timeout=300,
            # Later times become this one, deb(5) tools agree on the variable.
            env={"SOURCE_DATE_EPOCH": str(EPOCH)},
        )
    shutil.rmtree(tree)
