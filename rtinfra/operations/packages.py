"""Debian packages: what is missing is installed in one transaction."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from pyinfra import host, logger
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation

from rtinfra.facts.packages import Packages, PackagesState

# Never a question, never a changed configuration file replaced, never a wait without end for another apt.
_APT = (
    "DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends"
    " -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
)

# dpkg itself does not wait for its lock, and the apt of a run that was cut off may still be working.
_FINISH = (
    "export DEBIAN_FRONTEND=noninteractive; n=0; "
    "until dpkg --configure -a --force-confdef --force-confold; do "
    'n=$((n + 1)); [ "$n" -lt 60 ] || exit 1; sleep 5; done'
)


@operation()
def installed(
    names: Sequence[str], local: Sequence[str] = (), target_release: str | None = None
) -> Iterator[StringCommand]:
    """Install the packages `names` that are missing; versions are left to the archive.

    `local` are paths of .deb files on the host as `name=/path/to/file.deb`. A dpkg that was interrupted is
    completed first. `target_release` is an apt suite, for example backports.
    """
    files = dict(entry.split("=", 1) for entry in local)
    wanted = [*names, *files]
    if not wanted:
        host.noop("no packages asked for")
        return
    found: PackagesState = host.get_fact(Packages, names=wanted)
    missing = [name for name in wanted if name not in found.installed]
    if not missing and not found.interrupted:
        host.noop(f"all {len(wanted)} packages are installed")
        return
    if found.interrupted:
        logger.info("%sdpkg was interrupted, completing it", host.print_prefix)
        yield StringCommand(_FINISH)
        yield StringCommand(f"{_APT} --fix-broken install")
    if missing:
        logger.info("%sinstalling %s", host.print_prefix, ", ".join(missing))
        # Without --error-on=any a dead mirror passes unnoticed while old lists are still there.
        yield StringCommand("apt-get -q -o DPkg::Lock::Timeout=600 update --error-on=any")
        release = f" -t {shlex.quote(target_release)}" if target_release else ""
        arguments = " ".join(shlex.quote(files.get(name, name)) for name in missing)
        yield StringCommand(f"{_APT}{release} install {arguments}")
