"""Debian packages: what is missing is installed in one transaction."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator, Sequence

from pyinfra import host, logger
from pyinfra.api.command import FileUploadCommand, PyinfraCommand, StringCommand
from pyinfra.api.operation import operation

from rtinfra.deb import LocalPackage
from rtinfra.facts.packages import Packages, PackagesState, Simulation, SimulationState
from rtinfra.operations.change import Change, Step, Unknown, package
from rtinfra.operations.changes import needs_contents, predicted, record

# Never a question, never a changed configuration file replaced, never a wait without end for another apt.
APT = (
    "DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends"
    " -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
)

# apt does not bring its lists to the disk. After a power cut some are empty or end too soon, and apt takes what it has
# for good as long as the archive has nothing newer. So lists that may not be whole are fetched again.
_LISTS, _LISTS_IN_DOUBT = "/var/lib/apt/lists", "/var/lib/apt/rtinfra-lists-in-doubt"


def update(options: str = "") -> str:
    """Return the shell command that brings apt's lists up to date, with further options of apt-get."""
    return (
        f"[ ! -e {_LISTS_IN_DOUBT} ] || rm -rf {_LISTS}/*; : >{_LISTS_IN_DOUBT} && sync -f {_LISTS_IN_DOUBT} && "
        # Without --error-on=any a dead mirror passes unnoticed while old lists are still there.
        f"apt-get -q -o DPkg::Lock::Timeout=600 update --error-on=any{options} && "
        f"sync -f {_LISTS} && rm -f {_LISTS_IN_DOUBT}"
    )


# dpkg itself does not wait for its lock (exit code 2), and the apt of a run that was cut off may still be working.
# Packages that were being unpacked it leaves, and says so with exit code 1, as it does of all that need them: those are
# apt's to mend.
FINISH = (
    "export DEBIAN_FRONTEND=noninteractive; n=0; "
    'while dpkg --configure -a --force-confdef --force-confold; [ "$?" -eq 2 ]; do '
    'n=$((n + 1)); [ "$n" -lt 60 ] || exit 2; sleep 5; done'
)

# Scripts of packages write files that nobody brings to the disk; dpkg's record, which it does bring there, says that
# they ran. After a power cut such files were empty for good: chrony's keys, /etc/inputrc. Without delayed allocation
# ext4 writes with that record all that was written before (data=ordered, Documentation/admin-guide/ext4.rst).
_ORDERED = "/run/rtinfra/ordered"
IN_ORDER = (
    "mkdir -p /run/rtinfra; findmnt -rn -t ext4 -O rw -o TARGET,OPTIONS | grep -v nodelalloc | cut -d ' ' -f 1"
    f' >>{_ORDERED}; while read -r at; do mount -o remount,nodelalloc "$at" || true; done <{_ORDERED}'
)
AS_BEFORE = f'sync; while read -r at; do mount -o remount,delalloc "$at" || true; done <{_ORDERED}; rm -f {_ORDERED}'

# Files by which apt finds packages and chooses versions; others of /etc/apt only say how it works.
_SAY_WHERE_FROM = ("/etc/apt/sources.list", "/etc/apt/preferences", "/etc/apt/keyrings/", "/etc/apt/trusted.gpg")
# Where local packages are put while they are installed.
_CACHE = "/var/cache/rtinfra"


@operation()
def installed(
    names: Sequence[str], local: Sequence[LocalPackage] = (), sources: str | None = None
) -> Generator[PyinfraCommand, None, None]:
    """Install what is missing, in one transaction; versions are left to the archive.

    A name may be `name/suite` to take it from that apt suite, for example backports. Of `local` packages
    exactly the given version is installed. A dpkg that was interrupted is completed first. `sources` is a file in
    deb822 format that apt uses instead of the host's own sources.
    """
    requests = {name.partition("/")[0]: name for name in names}
    if not requests and not local:
        host.noop("no packages asked for")
        return
    found: PackagesState = host.get_fact(Packages, names=[*requests, *(package.name for package in local)])
    missing = [request for name, request in requests.items() if name not in found.installed]
    uploads = [package for package in local if found.installed.get(package.name) != package.version]
    if not missing and not uploads and not found.interrupted:
        host.noop(f"all {len(requests) + len(local)} packages are installed")
        return
    only = "" if sources is None else f" {_only(sources)}"
    record(*_said(missing, uploads, found, only))
    yield StringCommand(IN_ORDER)
    if found.interrupted:
        logger.info("%sdpkg was interrupted, completing it", host.print_prefix)
        yield StringCommand(FINISH)
        # What was half unpacked is fetched again, so apt has to know where from.
        yield StringCommand(update(only))
        yield StringCommand(f"{APT}{only} --fix-broken install")
    if missing or uploads:
        shown = ", ".join([*missing, *(f"{package.name} {package.version}" for package in uploads)])
        logger.info("%sinstalling %s", host.print_prefix, shown)
        for package in uploads:
            yield StringCommand(f"mkdir -p {_CACHE}")
            yield FileUploadCommand(str(package.path), _remote(package))
        if not found.interrupted:
            yield StringCommand(update(only))
        arguments = shlex.join([*missing, *map(_remote, uploads)])
        yield StringCommand(f"{APT}{only} --allow-downgrades install {arguments}")
    if uploads:
        yield StringCommand(f"rm -f {shlex.join(map(_remote, uploads))}")
    yield StringCommand(AS_BEFORE)


def _remote(package: LocalPackage) -> str:
    return f"{_CACHE}/{package.path.name}"


def _said(missing: Sequence[str], uploads: Sequence[LocalPackage], found: PackagesState, only: str) -> Iterator[Change]:
    """Tell what is installed; while a plan is made with the versions that the host's apt would take."""
    if found.interrupted:
        yield Step(name="dpkg", text="was interrupted and is completed first")
    for local in uploads:
        yield package(local.name, found.installed.get(local.name), local.version)
    if uploads and needs_contents():
        yield Unknown(name="dependencies", text="what the packages of this computer need is known once they are there")
    names = {request.partition("/")[0] for request in missing}
    if not missing or not needs_contents():
        yield from (package(name, None, None) for name in sorted(names))
        return
    simulated: SimulationState = host.get_fact(Simulation, requests=missing, options=only)
    known = {change.name for change in simulated.changes}
    for change in simulated.changes:
        yield package(change.name, change.old, change.new, consequence=change.name not in names)
    yield from (package(name, None, None) for name in sorted(names - known))
    if any(change.name.startswith(_SAY_WHERE_FROM) for change in predicted().files):
        yield Unknown(name="versions", text="the sources of packages change first: other versions may be installed")
    elif (doubt := simulated.doubt) is not None:
        yield Unknown(name="versions", text=doubt)


def _only(sources: str) -> str:
    # The lists of the host's own sources stay.
    return f"-o Dir::Etc::SourceList={shlex.quote(sources)} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=false"
