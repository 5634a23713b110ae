"""Prove that a lock is complete in itself: nothing that is in it needs anything that is not."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from roles.shared import MirrorSettings
from rtinfra.local import bootstrap, programs
from rtinfra.local.errors import LocalError
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter
from rtinfra.mirror import wheels
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Content, Lock
from rtinfra.mirror.pool import Pool, require_space
from rtinfra.mirror.repository import COMPONENT, repository
from rtinfra.mirror.required import BASE_SET, WheelSet, host_wheels, tool_wheels
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.tree import write as write_tree
from rtinfra.wheelhouse import REQUIREMENTS

TOOLS = (Tool("dose-debcheck", "dose-distcheck"),)
# Tree and tar archive of a bare Debian (measured: 1.1 GB with kernel and initramfs).
_ROOT_SPACE = 2_000_000_000


@dataclass(frozen=True)
class Broken:
    """A package that cannot be installed from the lock alone."""

    package: str
    reason: str
    """The chain that leads to what is missing or excluded, in words."""

    def __str__(self) -> str:
        return f"{self.package} {self.reason}"


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    packages: int
    broken: tuple[Broken, ...]
    wheels: int
    wheels_missing: str
    """What pip said; empty when the wheels are complete."""
    not_in_pool: tuple[str, ...]
    """Names of contents that are still to be fetched."""
    bootstrap_seconds: float | None = None
    """How long it took to make a root from the lock alone; None when that was not asked for."""

    @property
    def ok(self) -> bool:
        """Whether the lock is complete and the pool has it."""
        return not (self.broken or self.wheels_missing or self.not_in_pool)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"ok": self.ok, **asdict(self)}


def check(
    lock: Lock, mirror: Mirror, settings: MirrorSettings, report: Reporter, *, with_bootstrap: bool = False
) -> Checked:
    """Look whether everything in a lock can be installed from it, and whether the pool has it.

    Args:
        lock: what is looked at.
        mirror: whose pool has at least the lock's index of packages.
        settings: say which Pythons the wheels are for.
        report: told what takes long.
        with_bootstrap: also make the root of a bare host from the pool alone; when all else is well.

    Raises:
        MirrorError: the pool has no index of packages, or the bootstrap failed.
    """
    stanzas = mirror.pool.read(lock.stanzas.sha256)
    with report.step("Following every dependency", usual=1):
        broken = explain_broken(stanzas, lock.architecture, report)
    missing = mirror.pool.missing(lock.contents())
    found = Checked(
        packages=len(lock.packages),
        broken=broken,
        wheels=len(lock.wheels),
        wheels_missing="\n".join(_wheels_missing(lock, missing, mirror.pool, settings)),
        not_in_pool=tuple(content.name for content in missing),
    )
    if not (with_bootstrap and found.ok):
        return found
    seconds = bootstrap_base(lock, stanzas, mirror, report)
    return Checked(**{**found.__dict__, "bootstrap_seconds": seconds})


def explain_broken(stanzas: bytes, architecture: str, report: Reporter) -> tuple[Broken, ...]:
    """Return every package that cannot be installed when these stanzas are all there is.

    Raises:
        MirrorError: the stanzas cannot be read.
    """
    programs.ensure(TOOLS, report)
    with tempfile.TemporaryDirectory() as work:
        index = Path(work) / "Packages"
        index.write_bytes(stanzas)
        command = ["dose-debcheck", f"--deb-native-arch={architecture}", "--explain", "--failures", str(index)]
        done = programs.execute(command, timeout=300, check=False)
    # Warnings of dose are between its answers.
    text = "\n".join(line for line in done.stdout.splitlines() if not re.match(r"\([WE]\)", line))
    try:
        found = YAML(typ="base", pure=True).load(text)
        entries = found["report"] or ()
    except (YAMLError, KeyError, TypeError) as error:
        raise MirrorError(
            "dose-debcheck could not read the index of packages", "make the lock again", done.stdout[-2000:]
        ) from error
    return tuple(_broken(entry) for entry in entries if entry["status"] == "broken")


def bootstrap_base(lock: Lock, stanzas: bytes, mirror: Mirror, report: Reporter) -> float:
    """Make the root of a bare host from the pool alone and throw it away; return the seconds that took.

    Raises:
        MirrorError: it cannot be made.
    """
    programs.ensure(bootstrap.tools(), report)
    require_space(mirror.root, _ROOT_SPACE, "to make a root from the mirror")
    names = [package.name for package in lock.packages if BASE_SET in package.why]
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="check-", dir=mirror.root) as work,
        report.step("Making a bare Debian from the mirror alone", usual=90),
    ):
        served = Path(work) / "apt"
        served.mkdir()
        now = datetime.now(UTC)
        write_tree(repository(lock, stanzas, now, lock.valid_until), mirror.pool, served, now)
        # Its signature is made on the closed side; here the pool's hashes vouch for it.
        sources = f"Types: deb\nURIs: copy://{served}\nSuites: {lock.suite}\nComponents: {COMPONENT}\nTrusted: yes\n"
        try:
            bootstrap.run(
                sources, lock.suite, variant="minbase", packages=names, target=Path(work) / "root.tar", work=Path(work)
            )
        except LocalError as error:
            raise MirrorError(
                "a bare Debian could not be made from the mirror alone",
                "the lines above say which package failed; lock and fetch again, and report it when it stays",
                error.detail,
            ) from error
    return time.monotonic() - start


def _wheels_missing(lock: Lock, missing: list[Content], pool: Pool, settings: MirrorSettings) -> Iterator[str]:
    files = {file.name: file.sha256 for file in lock.files}
    absent = {content.sha256 for content in missing}
    if absent & {*files.values(), *(wheel.sha256 for wheel in lock.wheels)}:
        return  # told as what is to be fetched
    for wheel_set in _wheel_sets(files.keys(), settings):
        target = wheels.Target(wheel_set.pythons, lock.architecture, lock.suite)
        try:
            wheels.check_closure(pool.path(files[wheel_set.name]), lock.wheels, target, pool)
        except MirrorError as error:
            yield error.detail or error.message


def _wheel_sets(files: Collection[str], settings: MirrorSettings) -> Iterator[WheelSet]:
    """Yield the sets of Python packages whose requirements are among the files of a lock."""
    if (own := tool_wheels(settings)).name in files:
        yield own
    if REQUIREMENTS.name in files:
        yield host_wheels(settings, ())


# ---- what dose-debcheck says ------------------------------------------------------------------------------


def _broken(entry: Mapping[str, Any]) -> Broken:
    name = f"{entry['package']} {entry['version']}"
    return Broken(name, "; and ".join(_reason(reason, entry["package"]) for reason in entry["reasons"]))


def _reason(reason: Mapping[str, Any], package: str) -> str:
    if "missing" in reason:
        missing = reason["missing"]
        chain = list(_chain(missing.get("depchains")))
        last = missing["pkg"]
        return _told([*chain, (last["package"], last["unsat-dependency"])]) + ", which is not in the lock"
    conflict = reason["conflict"]
    first, second = conflict["pkg1"], conflict["pkg2"]
    needs = [
        _told([*_chain(conflict.get(chain))])
        for chain in ("depchain1", "depchain2")
        if list(_chain(conflict.get(chain)))
    ]
    needed = " and ".join(dict.fromkeys(needs)) or "is in the lock"
    return f"{needed}, but {first['package']} and {second['package']} exclude each other"


def _chain(chains: Sequence[Mapping[str, Any]] | None) -> Iterator[tuple[str, str]]:
    """The first chain: each package with the dependency that leads to the next."""
    for link in (chains or [{}])[0].get("depchain") or ():
        yield link["package"], link["depends"]


def _told(chain: Sequence[tuple[str, str]]) -> str:
    words = [re.sub(r":[a-z0-9-]+(?= |$|\))", "", depends) for _, depends in chain]
    return "needs " + ", which needs ".join(words)
