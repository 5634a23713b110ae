"""What the mirror costs: fetching against plain parallel downloads, a refresh without news, publishing, a delta.

    python -m benchmarks.mirror [--json] [--rounds N] [--inventory FILE]

Uses the archive, index and images that this computer is configured with. Fetching, which is apt's work, is compared
with curl in its parallel mode: the same files from the same place in the same run, in turn, into empty folders, so that
a change in the network or in other work of this computer meets both. curl compares nothing with a hash and leaves the
bytes to be written when the system likes; ours counts from the call to contents that survive a power cut.

Ends with 1 when fetching has less than the promised share of that throughput, or a refresh takes too long.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.outcome import finish
from rtinfra.commands import plain_errors
from rtinfra.images import LocalStore
from rtinfra.inventory import source
from rtinfra.local import programs
from rtinfra.local.archive import Archive, discover
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter, Reporter, megabytes
from rtinfra.mirror import lock as locking
from rtinfra.mirror.bundle import Bundle, make_bundle
from rtinfra.mirror.fetch import addresses, fetch
from rtinfra.mirror.model import LOCAL, Content, Lock
from rtinfra.mirror.release import publish
from rtinfra.mirror.required import PackageSet, load_required
from rtinfra.mirror.store import Mirror
from rtinfra.paths import PROJECT, lab_inventory

#: Of the throughput of plain parallel downloads.
LEAST_SHARE = 0.8
#: `rtinfra mirror lock`, then `rtinfra mirror fetch`, when nothing is new.
MOST_REFRESH_SECONDS = 3.0
#: Of curl.
CONNECTIONS = 8
#: What a second lock has and the first has not, to see the size of a delta.
ADDED_PACKAGE = "strace"


@dataclass(frozen=True)
class Result:
    """What was measured. Seconds of each round."""

    files: int
    bytes: int
    ours: list[float]
    curl: list[float]
    refresh: list[float]
    publish: list[float]
    """Of the whole lock, the signature included."""
    bundle_bytes: int
    """Of a full bundle."""
    delta_bytes: int
    """Of the bundle that brings one package more."""
    load: tuple[float, float]
    """Processes that wanted to run, over a minute: at the start, at the end."""

    @property
    def share(self) -> float:
        """Our throughput as a part of curl's."""
        return median(self.curl) / median(self.ours)

    @property
    def delta_share(self) -> float:
        """Size of the delta as a part of the full bundle."""
        return self.delta_bytes / self.bundle_bytes

    @property
    def problems(self) -> list[str]:
        """What is not as promised; empty when the benchmark is passed."""
        found = []
        if self.share < LEAST_SHARE:
            found.append(f"fetching has {self.share:.2f} of curl's throughput, at least {LEAST_SHARE} is promised")
        if median(self.refresh) > MOST_REFRESH_SECONDS:
            taken = median(self.refresh)
            found.append(
                f"a refresh without news takes {taken:.1f} s, at most {MOST_REFRESH_SECONDS:.0f} s are allowed"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            **asdict(self),
            "share": round(self.share, 2),
            "delta_share": round(self.delta_share, 4),
            "limits": {"share": LEAST_SHARE, "refresh_seconds": MOST_REFRESH_SECONDS},
            "problems": self.problems,
        }


def measure(inventory: str, rounds: int, console: Console) -> Result:
    """Lock once; fetch in turn with curl and with ours, refresh, publish, make a full bundle and a delta.

    Raises:
        LocalError: something cannot be had.
    """
    programs.ensure((Tool("curl", "curl"),), ConsoleReporter(console))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix=".bench-mirror-", dir=PROJECT) as name:
        work = Path(name)
        mirror, file = Mirror(work / "mirror"), work / "mirror.lock.yaml"
        options = ["--lock", str(file), "--directory", str(mirror.root)]
        console.print("Locking the inventory")
        _rtinfra("lock", "--inventory", inventory, *options)
        lock, archive = locking.read(file), discover()
        fetch(lock, mirror, archive, Reporter())
        packages = _packages_alone(lock)
        curl, ours = _compare(packages, mirror, archive, work, rounds, console)
        refresh = []
        for _ in range(rounds):
            start = time.monotonic()
            _rtinfra("lock", "--inventory", inventory, *options)
            _rtinfra("fetch", *options)
            refresh.append(time.monotonic() - start)
            console.print(f"  refresh: {refresh[-1]:.2f} s")
        bundle = make_bundle(mirror, lock)
        bundle_bytes = _size(bundle)
        published = _publish(mirror, lock, rounds, console)
        delta_bytes = _size(_delta(bundle, inventory, file, mirror, archive))
    return Result(
        files=len(packages.packages),
        bytes=sum(package.size for package in packages.packages),
        ours=ours,
        curl=curl,
        refresh=refresh,
        publish=published,
        bundle_bytes=bundle_bytes,
        delta_bytes=delta_bytes,
        load=(load, os.getloadavg()[0]),
    )


def _packages_alone(lock: Lock) -> Lock:
    """What of a lock comes from archives."""
    packages = tuple(package for package in lock.packages if package.origin != LOCAL)
    return lock.model_copy(update={"packages": packages, "images": (), "wheels": (), "files": ()})


def _compare(
    lock: Lock, mirror: Mirror, archive: Archive, work: Path, rounds: int, console: Console
) -> tuple[list[float], list[float]]:
    """Return the seconds of curl and of ours."""
    places = addresses(lock, archive)
    # The best order: a large file that comes last is waited for alone.
    largest_first = sorted(lock.packages, key=lambda package: -package.size)
    urls = [places[package.sha256][0] for package in largest_first]
    stanzas = mirror.pool.read(lock.stanzas.sha256)
    curl: list[float] = []
    ours: list[float] = []
    for number in range(1, rounds + 1):
        # Whoever is second may gain or lose by it: that meets both.
        for own in (False, True) if number % 2 else (True, False):
            # What was there before is gone and written, for nobody's account.
            os.sync()
            if own:
                ours.append(_ours(lock, stanzas, archive, work / "own"))
            else:
                curl.append(_curl(urls, work / "plain"))
        console.print(f"  {number} of {rounds}: curl {curl[-1]:.2f} s, rtinfra {ours[-1]:.2f} s")
    return curl, ours


def _ours(lock: Lock, stanzas: bytes, archive: Archive, folder: Path) -> float:
    """Fetch all packages into an empty mirror."""
    mirror = Mirror(folder)
    mirror.pool.add_bytes(Content(lock.stanzas.sha256, lock.stanzas.size, "index", "Packages"), stanzas)
    start = time.monotonic()
    fetch(lock, mirror, archive, Reporter())
    taken = time.monotonic() - start
    shutil.rmtree(folder)
    return taken


def _curl(urls: list[str], folder: Path) -> float:
    """Download all files into an empty folder; curl's own parallel mode keeps its connections."""
    folder.mkdir()
    listed = folder.with_name("urls")
    listed.write_text("".join(f'url = "{url}"\noutput = "{number}"\n' for number, url in enumerate(urls)))
    command = ["curl", "--silent", "--show-error", "--fail", "--fail-early", "--location"]
    command += ["--parallel", "--parallel-max", str(CONNECTIONS), "--config", str(listed)]
    start = time.monotonic()
    programs.execute(command, timeout=1200, cwd=folder)
    taken = time.monotonic() - start
    shutil.rmtree(folder)
    return taken


def _publish(mirror: Mirror, lock: Lock, rounds: int, console: Console) -> list[float]:
    """Publish a lock of which a bundle was made, again and again; a key is made before."""
    taken = []
    for number in range(rounds + 1):
        start = time.monotonic()
        now = lock.created + timedelta(minutes=number)
        publish(mirror, lock.id, now=now, report=Reporter(), again=True)
        taken.append(time.monotonic() - start)
    console.print("  publish: " + ", ".join(f"{seconds:.2f} s" for seconds in taken[1:]))
    return taken[1:]


def _delta(full: Bundle, inventory: str, file: Path, mirror: Mirror, archive: Archive) -> Bundle:
    """Lock the inventory with one package more, and make the bundle that brings the difference."""
    place, store = PROJECT / inventory, LocalStore()
    required = load_required(PROJECT, source(place, lab_inventory()) if place.is_dir() else place, store)
    added = PackageSet((*required.settings.base_patterns, ADDED_PACKAGE), (), ("benchmark",))
    more = replace(required, packages=(*required.packages, added))
    lock = locking.lock(more, file, mirror, locking.Sources(archive, store, PROJECT), Reporter()).lock
    fetch(lock, mirror, archive, Reporter())
    return make_bundle(mirror, lock, full.manifest.id)


def _size(bundle: Bundle) -> int:
    return sum(path.stat().st_size for path in bundle.folder.iterdir())


def _rtinfra(*words: str) -> None:
    programs.execute([Path(sys.executable).with_name("rtinfra"), "mirror", *words], timeout=1200, cwd=PROJECT)


def show(result: Result, console: Console) -> None:
    """Print what was measured and what follows from it."""
    runs = {"rtinfra": result.ours, "curl": result.curl}
    speeds = ", ".join(f"{name} {result.bytes / median(values) / 1e6:.0f} MB/s" for name, values in runs.items())
    console.print(
        f"Fetching {result.files} packages, {megabytes(result.bytes)}: {speeds}: {result.share:.2f} of curl, which"
        f" compares nothing; at least {LEAST_SHARE}. Load {result.load[0]:.1f} to {result.load[1]:.1f}."
    )
    console.print(f"Refresh without news: {median(result.refresh):.1f} s, at most {MOST_REFRESH_SECONDS:.0f} s.")
    console.print(f"Publishing: {median(result.publish):.2f} s.")
    console.print(
        f"Bundle: {result.bundle_bytes} bytes; with {ADDED_PACKAGE} more, as a delta: {result.delta_bytes} bytes,"
        f" {result.delta_share:.2%} of it."
    )
    for problem in result.problems:
        console.print(f"Not passed: {problem}.", style="bold red")


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each.")] = 9,
    inventory: Annotated[str, typer.Option(help="Inventory to lock, relative to the project folder.")] = "inventory",
) -> None:
    """Measure fetching against curl, a refresh without news, publishing, a delta. A minute and 5 GB of downloads."""
    with plain_errors():
        result = measure(inventory, rounds, Console(stderr=True, highlight=False, soft_wrap=True))
    finish("mirror", result, show, as_json)


if __name__ == "__main__":
    typer.run(main)
