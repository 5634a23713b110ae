"""What the connected side of the mirror costs: fetching against plain parallel downloads, and a refresh without news.

    python -m benchmarks.mirror [--json] [--rounds N] [--inventory FILE]

Uses the archive, index and images that this computer is configured with. Fetching is compared with what somebody would
do by hand, for the same files from the same place in the same run, in turn, so that a change in the network meets both:
curl in its parallel mode with as many connections, then sha256sum, since a file that nobody compared is not fetched.
curl alone is shown too: where the network is slower than sha256, which is nearly everywhere, there is no difference.

Ends with 1 when fetching has less than the promised share of that throughput, or a refresh takes too long.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console

from rtinfra.commands import plain_errors
from rtinfra.local import programs
from rtinfra.local.archive import discover
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter, Reporter, megabytes
from rtinfra.mirror import lock as locking
from rtinfra.mirror.fetch import CONNECTIONS, addresses, fetch
from rtinfra.mirror.store import Mirror
from rtinfra.paths import PROJECT

REPORTS = PROJECT / "reports"
#: Of the throughput of plain parallel downloads.
LEAST_SHARE = 0.8
#: `rtinfra mirror lock`, then `rtinfra mirror fetch`, when nothing is new.
MOST_REFRESH_SECONDS = 3.0


@dataclass(frozen=True)
class Result:
    """What was measured. Seconds of each round."""

    files: int
    bytes: int
    ours: list[float]
    curl: list[float]
    curl_and_sha256sum: list[float]
    refresh: list[float]

    @property
    def share(self) -> float:
        """Our throughput as a part of that of curl and sha256sum."""
        return median(self.curl_and_sha256sum) / median(self.ours)

    @property
    def share_of_curl(self) -> float:
        """Our throughput as a part of curl's, which compares nothing."""
        return median(self.curl) / median(self.ours)

    @property
    def problems(self) -> list[str]:
        """What is not as promised; empty when the benchmark is passed."""
        found = []
        if self.share < LEAST_SHARE:
            found.append(f"fetching has {self.share:.2f} of the plain throughput, at least {LEAST_SHARE} is promised")
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
            "share_of_curl": round(self.share_of_curl, 2),
            "limits": {"share": LEAST_SHARE, "refresh_seconds": MOST_REFRESH_SECONDS},
            "problems": self.problems,
        }


def measure(inventory: str, rounds: int, console: Console) -> Result:
    """Lock once, then fetch in turn with curl and with ours, then refresh.

    Raises:
        LocalError: something cannot be had.
    """
    programs.ensure((Tool("curl", "curl"),), ConsoleReporter(console))
    with tempfile.TemporaryDirectory(prefix=".bench-mirror-", dir=PROJECT) as work:
        folder, file = Path(work) / "mirror", Path(work) / "mirror.lock.yaml"
        options = ["--lock", str(file), "--directory", str(folder)]
        console.print("Locking the inventory")
        _rtinfra("lock", "--inventory", inventory, *options)
        lock, mirror, archive = locking.read(file), Mirror(folder), discover()
        missing = mirror.pool.missing(lock.contents())
        places = addresses(lock, archive)
        urls = [places[content.sha256][0] for content in missing]
        # Not measured: whatever is between here and the archive keeps the files from now on, for both.
        _curl(urls, Path(work) / "plain")
        ours: list[float] = []
        curl: list[float] = []
        compared: list[float] = []
        for number in range(1, rounds + 1):
            curl.append(_curl(urls, Path(work) / "plain"))
            compared.append(curl[-1] + _sha256sum(Path(work) / "plain"))
            for content in missing:
                mirror.pool.path(content.sha256).unlink(missing_ok=True)
            ours.append(fetch(lock, mirror, archive, Reporter()).seconds)
            plain = f"curl {curl[-1]:.2f} s, with sha256sum {compared[-1]:.2f} s"
            console.print(f"  {number} of {rounds}: {plain}, rtinfra {ours[-1]:.2f} s")
        refresh = []
        for _ in range(rounds):
            start = time.monotonic()
            _rtinfra("lock", "--inventory", inventory, *options)
            _rtinfra("fetch", *options)
            refresh.append(time.monotonic() - start)
            console.print(f"  refresh: {refresh[-1]:.2f} s")
    return Result(len(missing), sum(content.size for content in missing), ours, curl, compared, refresh)


def _curl(urls: list[str], folder: Path) -> float:
    """Download all files into an empty folder; curl's own parallel mode keeps its connections, as we do."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    listed = folder.with_name("urls")
    listed.write_text("".join(f'url = "{url}"\noutput = "{number}"\n' for number, url in enumerate(urls)))
    command = ["curl", "--silent", "--show-error", "--fail", "--fail-early", "--location"]
    command += ["--parallel", "--parallel-max", str(CONNECTIONS), "--config", str(listed)]
    start = time.monotonic()
    programs.execute(command, timeout=1200, cwd=folder)
    return time.monotonic() - start


def _sha256sum(folder: Path) -> float:
    start = time.monotonic()
    command = "find . -type f -print0 | xargs --null --max-procs 2 --max-args 30 sha256sum"
    programs.execute(["sh", "-c", command], timeout=600, cwd=folder)
    return time.monotonic() - start


def _rtinfra(*words: str) -> None:
    programs.execute([Path(sys.executable).with_name("rtinfra"), "mirror", *words], timeout=1200, cwd=PROJECT)


def show(result: Result, console: Console) -> None:
    """Print what was measured and what follows from it."""
    runs = {"rtinfra": result.ours, "curl": result.curl, "curl and sha256sum": result.curl_and_sha256sum}
    speeds = ", ".join(f"{name} {result.bytes / median(values) / 1e6:.0f} MB/s" for name, values in runs.items())
    console.print(
        f"Fetching {result.files} packages, {megabytes(result.bytes)}: {speeds}. {result.share:.2f} of curl and"
        f" sha256sum, at least {LEAST_SHARE}; {result.share_of_curl:.2f} of curl, which compares nothing."
    )
    console.print(f"Refresh without news: {median(result.refresh):.1f} s, at most {MOST_REFRESH_SECONDS:.0f} s.")
    for problem in result.problems:
        console.print(f"Not passed: {problem}.", style="bold red")


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each.")] = 3,
    inventory: Annotated[str, typer.Option(help="Inventory to lock, relative to the project folder.")] = "inventory",
) -> None:
    """Measure fetching against curl, and a refresh without news. About a minute and 1 GB of downloads."""
    with plain_errors():
        result = measure(inventory, rounds, Console(stderr=True, highlight=False, soft_wrap=True))
    text = json.dumps(result.to_json(), indent=2)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "bench-mirror.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        show(result, Console(highlight=False, soft_wrap=True))
    raise typer.Exit(1 if result.problems else 0)


if __name__ == "__main__":
    typer.run(main)
