"""How long a preflight takes when everything answers at once, against the limit of 300 ms.

    python -m benchmarks.preflight [--json] [--runs N]

Real Redis, PostgreSQL and an HTTP service on loopback, all checks that are possible on any computer, metrics and
evidence written. Two times, since both matter: the whole process as the unit starts it, and within it what comes after
Python and the libraries are loaded. Runs in the environment that hosts get, built from the wheel house, when its wheels
for this Python are there; otherwise in the one of this project. Ends with 1 when the fastest process takes longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rtinfra.operations.environments import _SCRIPT
from rtinfra.wheelhouse import Wheelhouse
from tests.integration.http_services import Services, serving
from tests.integration.servers import postgres, redis

LIMIT_SECONDS = 0.3
_PASSWORD = "benchmark"
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def settings(root: Path, redis_port: int, conninfo: str, services: str) -> dict[str, Any]:
    """Return settings with every check that any computer can pass."""
    off = dict.fromkeys(("telegram", "slack", "teams", "on_call", "webhook", "record"))
    return {
        "environment": "paper",
        "namespace": "rtinfra",
        "timeout": "5s",
        "state_directory": str(root / "state"),
        "textfile_directory": str(root),
        "evidence": {"keep": 100},
        "checks": {
            "variables": [{"name": "PATH"}],
            "required_secrets": ["password"],
            "guards": [{"name": "live", "variable": "LIVE", "paper": ""}],
            "redis": {"url": f"redis://127.0.0.1:{redis_port}/0", "slow": "1s"},
            "postgres": {"conninfo": conninfo, "password_secret": "password", "slow": "1s"},
            "apis": [{"name": "orders", "url": f"{services}/health", "slow": "1s"}],
            "application": {"url": f"{services}/health/ready", "command": [], "slow": "1s"},
            "deployed_tree": str(root / "tree"),
            "realtime": None,
        },
        "notify": {"p1_interval": "5min", "timeout": "5s", "attempts": 1, "runbooks_url": None, **off},
    }


@contextmanager
def place() -> Iterator[Path]:
    """Run the servers; gives a folder with settings.json."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory()))
        cache = stack.enter_context(redis(root))
        database = stack.enter_context(postgres(_PASSWORD))
        services = stack.enter_context(serving(Services()))
        tree = root / "tree"
        subprocess.run(["git", "init", "-q", str(tree)], check=True)
        commit = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@example.invalid", "commit"]
        subprocess.run([*commit, "-q", "--allow-empty", "-m", "x"], check=True)
        text = json.dumps(settings(root, cache.port, database.conninfo(), services.url))
        (root / "settings.json").write_text(text)
        yield root


def interpreter(root: Path) -> tuple[str, str]:
    """Return the Python to measure with, and in words which one it is."""
    house = Wheelhouse()
    if not house.has(_PYTHON):
        return sys.executable, "environment of this project (no wheels for this Python: rtinfra wheels)"
    cache = root / "cache"
    cache.mkdir()
    wheels = (*house.wheels(_PYTHON), house.own())
    for wheel in wheels:
        (cache / wheel.name).write_bytes(wheel.path.read_bytes())
    requirements = f"{house.requirements.read_text(encoding='utf-8')}\n{house.own().requirement}\n"
    words = [str(root / "opt"), "one", str(cache), "rtinfra.preflight", "wheels", *(wheel.name for wheel in wheels)]
    subprocess.run(["sh", "-c", _SCRIPT, "environment.sh", *words], input=requirements, text=True, check=True)
    return str(root / "opt" / "current" / "bin" / "python"), "environment as hosts get it"


def measure(python: str, root: Path, runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of whole processes, and of the runs within them from the first check to the last outcome."""
    command = [python, "-I", "-m", "rtinfra.preflight", "--settings", str(root / "settings.json"), "--json"]
    environment = {"PATH": "/usr/bin:/bin", "RTINFRA_SECRET_PASSWORD": _PASSWORD}
    whole, within = [], []
    # The first one writes nothing to the result: it warms the caches, as the run ten minutes ago did.
    for number in range(runs + 1):
        start = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
        seconds = time.perf_counter() - start
        if result.returncode != 0:
            raise SystemExit(f"not all checks passed:\n{result.stdout}{result.stderr}")
        if number:
            whole.append(seconds)
            within.append(json.loads(result.stdout)["duration_seconds"])
    return whole, within


def main(
    runs: Annotated[int, typer.Option(min=1, help="How many runs.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure and print; exit 1 when the limit is not met."""
    with place() as root:
        python, which = interpreter(root)
        whole, within = measure(python, root, runs)
    figures = {
        name: {"least": min(values), "median": median(values), "most": max(values)}
        for name, values in (("process", whole), ("checks", within))
    }
    met = figures["process"]["least"] < LIMIT_SECONDS
    if as_json:
        typer.echo(json.dumps({"python": which, "runs": runs, "limit": LIMIT_SECONDS, "met": met, **figures}))
        raise typer.Exit(not met)
    table = Table("What", "Least", "Median", "Most", title=f"Preflight, {runs} runs, {which}; limit 300 ms")
    for name, title in (("process", "whole process, Python's start included"), ("checks", "the checks within it")):
        table.add_row(title, *(f"{figures[name][column] * 1000:.0f} ms" for column in ("least", "median", "most")))
    Console().print(table)
    raise typer.Exit(not met)


if __name__ == "__main__":
    typer.run(main)
