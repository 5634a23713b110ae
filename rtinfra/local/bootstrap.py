"""A tree of files out of Debian packages, fetched from the archive this machine is configured for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rtinfra.local import programs
from rtinfra.local.archive import Archive, mmdebstrap_source
from rtinfra.local.errors import LocalError
from rtinfra.local.programs import Tool

Variant = Literal["minbase", "extract"]

_ALWAYS = (
    Tool("mmdebstrap", "mmdebstrap"),
    # Without trixie's keys (added to Debian 12 in a point release) its archive cannot be verified.
    Tool("/usr/share/keyrings/debian-archive-trixie-stable.gpg", "debian-archive-keyring"),
)
# Without root, a user namespace owns the files while they are put together.
_WITHOUT_ROOT = (Tool("newuidmap", "uidmap"),)


def tools() -> tuple[Tool, ...]:
    """Return what has to be on this computer."""
    return _ALWAYS if os.geteuid() == 0 else (*_ALWAYS, *_WITHOUT_ROOT)


def bootstrap(
    archive: Archive,
    suite: str,
    *,
    variant: Variant,
    packages: Sequence[str],
    hooks: Sequence[str],
    target: Path,
    work: Path,
) -> str:
    """Write packages of an archive, and what they depend on, to the tar archive `target`; say what mmdebstrap said.

    Raises:
        LocalError: the archive cannot be reached, lacks a package, or a hook failed.
    """
    options = [*(f'--aptopt={name} "{value}"' for name, value in archive.options), *hooks]
    try:
        return run(
            mmdebstrap_source(archive, suite),
            suite,
            variant=variant,
            packages=packages,
            target=target,
            work=work,
            options=options,
        )
    except LocalError as error:
        uris = " ".join((*archive.main, *archive.security))
        raise LocalError(
            f"Debian {suite} could not be fetched from {uris}",
            "check the network and `apt-get update` on this machine; the last lines above say what failed",
            error.detail,
        ) from error


def run(
    sources: str,
    suite: str,
    *,
    variant: Variant,
    packages: Sequence[str],
    target: Path,
    work: Path,
    options: Sequence[str] = (),
) -> str:
    """Write the packages, and what they depend on, to the tar archive `target`; return what mmdebstrap said.

    `minbase` installs them on a bootable base system, `extract` only unpacks them (mmdebstrap(1)). No root needed.

    Args:
        sources: where packages come from, in the format of sources.list(5), deb822 style.
        suite: Debian release by code name.
        variant: see above.
        packages: names.
        target: the archive to write.
        work: a folder for what is temporary.
        options: further arguments of mmdebstrap.

    Raises:
        LocalError: mmdebstrap failed; its last lines are the detail.
    """
    listed = work / "build.sources"
    listed.write_text(sources, encoding="utf-8")
    command: list[str | Path] = ["mmdebstrap", f"--variant={variant}", "--format=tar"]
    command += [f"--include={','.join(packages)}", *options, suite, target, listed]
    # mmdebstrap's own tree goes below TMPDIR: as root into our directory, whose space was checked. Otherwise the
    # tree belongs to subordinate users (user namespace), who often may not enter the home directory.
    environment = {"TMPDIR": str(work)} if os.geteuid() == 0 else {}
    return programs.execute(command, timeout=1200, env=environment).stdout
