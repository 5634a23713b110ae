"""`rtinfra stack env-check`: whether the surroundings of a host's programs are as its settings require."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from roles.catalogue import STARTING_ORDER
from roles.host import HostConfig
from roles.secrets import secret_names
from roles.shape import AnyRole, ImageStore, Secrets
from roles.shared import TELEMETRY
from rtinfra.config import FleetHost
from rtinfra.facts import output_sections
from rtinfra.limits import project_limits
from rtinfra.local.errors import LocalError
from rtinfra.operations.resources import File
from rtinfra.quadlet import DATA_ROOT
from rtinfra.secrets import SecretError
from rtinfra.stack_programs import Program

_LISTENER: Final = re.compile(r"\S+\s+\d+\s+\d+\s+\S+:(\d+)\s+\S+(?:\s+users:\((.*)\))?")
_DEPLOY: Final = "run `pyinfra inventory deploy.py`"


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is right, and what to do when it is not."""

    host: str
    check: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What was seen on a host.

    `hashes` and `changed` (seconds since the epoch) are of configuration files by path, `started` of units by name.
    `owners` are the control groups of whoever listens, by port. `used_percent` is the disk that holds the data.
    """

    hashes: Mapping[str, str]
    changed: Mapping[str, int]
    started: Mapping[str, int]
    owners: Mapping[int, tuple[str, ...]]
    used_percent: int | None


def script(programs: Sequence[Program]) -> str:
    """Return a script that looks at a host; its output is for `parse`."""
    files = " ".join(shlex.quote(file.path) for program in programs for file in program.config) or "/dev/null"
    units = " ".join(shlex.quote(program.unit) for program in programs)
    return output_sections.script(
        {
            "hashes": f"sha256sum -- {files}",
            # The change of the inode: by this host's clock, which is also that of `started`.
            "changed": f"stat -c '%Z %n' -- {files}",
            "started": f"for unit in {units}; do\n"
            '    at=$(systemctl show -P ActiveEnterTimestamp $unit)\n    [ -n "$at" ] && date -d "$at" "+%s $unit"\n'
            "done",
            "listeners": "ss -Hltnp",
            "groups": "grep -sH '^0::' /proc/[0-9]*/cgroup",
            # The directory is made by the first deploy; before that its place is /var/lib.
            "disk": f"df -P {DATA_ROOT} || df -P /var/lib",
            "end": "echo reached",
        }
    )


def parse(text: str) -> Surroundings:
    """Return what `script` saw."""
    found = output_sections.parse(text.split("\n"))

    def pairs(name: str) -> Iterator[tuple[str, str]]:
        for line in found.get(name, []):
            first, _, rest = line.partition(" ")
            if rest:
                yield first, rest.strip()

    groups = {}
    for line in found.get("groups", []):
        path, _, group = line.partition(":0::")
        if group:
            groups[path.split("/")[2]] = group
    owners: dict[int, list[str]] = {}
    for line in found.get("listeners", []):
        if match := _LISTENER.match(line):
            holders = [groups.get(pid, "") for pid in re.findall(r"pid=(\d+)", match[2] or "")]
            owners.setdefault(int(match[1]), []).extend(holders or [""])
    used = re.search(r"\s(\d+)%\s", "\n".join(found.get("disk", [])))
    return Surroundings(
        hashes={path: digest for digest, path in pairs("hashes")},
        changed={path: int(at) for at, path in pairs("changed")},
        started={unit: int(at) for at, unit in pairs("started")},
        owners={port: tuple(dict.fromkeys(holders)) for port, holders in owners.items()},
        used_percent=int(used[1]) if used else None,
    )


def checks(
    host: FleetHost[HostConfig],
    programs: Sequence[Program],
    every: Sequence[Program],
    seen: Surroundings,
    secrets: Secrets,
    store: ImageStore,
) -> list[Check]:
    """Hold a host's settings against what was seen of it and of this computer.

    `programs` are those to check, `every` are all that the host runs.
    """
    roles = [role for role in STARTING_ORDER if any(program.role == role.name for program in programs)]
    return [
        Check(host.name, *found)
        for found in (
            _tenant(host),
            *_environment(host, programs, seen),
            *_secrets(host, roles, secrets),
            *_ports(host, roles, every, seen),
            *_images(programs, store),
            _disk(seen),
        )
    ]


_Found = tuple[str, bool, str, str]


def _tenant(host: FleetHost[HostConfig]) -> _Found:
    telemetry = host.config[TELEMETRY]
    return (
        "tenant",
        telemetry.tenant in telemetry.tenants,
        f"{telemetry.tenant} (environment {telemetry.environment})",
        f"set telemetry.tenant to one of {', '.join(telemetry.tenants)}, or define it below telemetry.tenants",
    )


def labelled(host: FleetHost[HostConfig], file: File) -> bool:
    """Whether a configuration file says to which environment or tenant something belongs."""
    telemetry = host.config[TELEMETRY]
    words = "|".join(re.escape(word) for word in (telemetry.environment, *telemetry.tenants))
    return re.search(rf"\b(?:{words})\b".encode(), file.content) is not None


def _environment(host: FleetHost[HostConfig], programs: Sequence[Program], seen: Surroundings) -> Iterator[_Found]:
    """Compare what programs were started with, where it names environment or tenants, with the settings."""
    for program in programs:
        files = [file for file in program.config if labelled(host, file)]
        if not files:
            continue
        what = f"environment of {program.name}"
        started = seen.started.get(program.unit)
        missing = [file.path for file in files if file.path not in seen.hashes]
        differing = [file.path for file in files if seen.hashes.get(file.path, file.sha256) != file.sha256]
        later = [file.path for file in files if started is not None and seen.changed.get(file.path, 0) > started]
        if missing:
            yield what, False, f"not deployed: {', '.join(missing)}", _DEPLOY
        elif differing:
            yield what, False, f"differs from the settings: {', '.join(differing)}", _DEPLOY
        elif later:
            found = f"runs with an older configuration than {', '.join(later)}"
            yield what, False, found, f"run `rtinfra stack restart {program.name} --host {host.name}`"
        else:
            yield what, True, "deployed and settings agree" + ("" if started else "; it does not run"), ""


def _secrets(host: FleetHost[HostConfig], roles: Sequence[AnyRole], secrets: Secrets) -> Iterator[_Found]:
    names = {name: key for role in roles for key, name in secret_names(host.config[role.key], f"{role.name}.")}
    for name, key in names.items():
        try:
            secrets.read(name)
        except SecretError as error:
            yield f"secret {name}", False, f"wanted by {key}", str(error)
        else:
            yield f"secret {name}", True, "defined", ""


def _ports(
    host: FleetHost[HostConfig], roles: Sequence[AnyRole], every: Sequence[Program], seen: Surroundings
) -> Iterator[_Found]:
    units = {program.unit for program in every}
    sections = {role.name for role in roles}
    for key, port in host.config.claimed_ports().items():
        if key.partition(".")[0] not in sections:
            continue
        others = [group for group in seen.owners.get(port, ()) if not units & set(group.split("/"))]
        if others:
            name = others[0].rpartition("/")[2] or "another program"
            remedy = f"stop {name} there, or give {key} another port"
            yield f"port {port}", False, f"{key}: taken by {name}", remedy
        else:
            yield f"port {port}", True, f"{key}: {'ours' if port in seen.owners else 'free'}", ""


def _images(programs: Sequence[Program], store: ImageStore) -> Iterator[_Found]:
    for name in dict.fromkeys(program.container.image for program in programs if program.container):
        try:
            reference = store.image(name)
        except LocalError as error:
            yield f"image {name}", False, error.message, error.next_step
        else:
            yield f"image {name}", True, reference, ""


def _disk(seen: Surroundings) -> _Found:
    used = seen.used_percent
    # The alert's limit. Elasticsearch puts no new data on a disk above it (its low watermark), others soon follow.
    limit = 100 * project_limits().disk_used_low_ratio
    return (
        "disk space",
        used is not None and used < limit,
        f"{used} % used" if used is not None else "df does not answer",
        f"free some: above {limit:g} % programs stop storing. Shorten a retention, or see `rtinfra stack reset --help`",
    )
