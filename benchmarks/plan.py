"""How much processor time the plan of a fleet takes on the computer that makes it.

    python -m benchmarks.plan [--hosts N] [--json] [--profile]

Real-time hosts with agents and one host with backends, all with nothing on them yet, which makes the longest plans
there are, behind pyinfra's connector @fake: what is measured is ours and pyinfra's own work, from the YAML to the JSON
of the plan. Neither ssh nor Python's start is in it. Processor seconds, because hosts are waited for side by side. Ends
with 1 when the plan takes more than the limit.
"""

# First: it makes the standard library cooperative.
import pyinfra_cli  # isort: skip # noqa: F401
import cProfile
import json
import logging
import os
import pstats
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest import mock

import pyinfra
import typer
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_inventory, ctx_state
from pyinfra_cli.util import load_deploy_file
from rich.console import Console

from benchmarks.outcome import finish
from roles.fleet import load_checked_hosts
from rtinfra.adapters import read_no_sources
from rtinfra.config import Fleet
from rtinfra.facts import output_sections
from rtinfra.images import LocalStore, debian, oci
from rtinfra.images.image_store import Record
from rtinfra.inventory import FLEET_DATA_KEY, HOST_DATA_KEY
from rtinfra.operations import changes
from rtinfra.operations.changes import Recorder
from rtinfra.paths import PROJECT
from rtinfra.plan.model import HostPlan, Plan
from rtinfra.plan.observed import Observations, host_plan

LIMIT_SECONDS = 5.0
HOSTS = 50
BACKENDS = "gateways, jaeger, prometheus, alertmanager, lab_backends"
# A host as Debian's installer leaves it.
_ANSWERS: Mapping[str | re.Pattern[str], Sequence[str]] = {
    "echo @@os": (
        *("@@os", "debian-13", "@@codename", "trixie", "@@architecture", "amd64", "@@memory_kb", "8000000"),
        *("@@online", "0-3", "@@free_mb", "/ 90000", "/boot 900", "/var 90000", "@@grub", "yes", "@@systemd", "yes"),
        *("@@started_by_grub", "yes", "@@initramfs_tools", "yes", "@@cgroup_hierarchy", "cgroup2fs"),
        *("@@nodes", "/sys/devices/system/node/node0/cpulist:2-3", "/sys/devices/system/node/node1/cpulist:0-1"),
        *("@@uid", "0", "@@clock", "{now}"),
    ),
    re.compile("^echo @@install$", re.M): (
        *("@@install", "Inst chrony (4.6.1-3 Debian:13/stable [amd64])", "Conf chrony (4.6.1-3 Debian:13/stable)"),
        *("@@lists", "1000", "@@clock", "2000"),
    ),
    "echo @@boot_id": (
        *("@@boot_id", "other", "@@release", "6.12.57+deb13-amd64", "@@version", "PREEMPT_DYNAMIC"),
        *("@@cmdline", "ro root=/dev/vda1", "@@installed", "@@grub_cfg", "@@default"),
    ),
    "echo @@": ("@@nothing",),
}


@dataclass(frozen=True)
class Result:
    """Processor seconds by phase, for a number of hosts."""

    hosts: int
    changes: int
    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        """Processor seconds of all phases."""
        return sum(self.seconds.values())

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with it."""
        if self.total <= LIMIT_SECONDS:
            return []
        return [f"{self.total:.1f} s of processor time, more than {LIMIT_SECONDS:.0f} s"]

    def to_json(self) -> dict[str, Any]:
        """Return it for the report."""
        return {
            "hosts": self.hosts,
            "changes": self.changes,
            "processor_seconds": {**self.seconds, "total": self.total},
            "problems": list(self.problems),
        }


def inventory_text(hosts: int) -> str:
    """Return an inventory of so many real-time hosts that send to one host with gateways and backends."""
    entry = "  {0}: {{groups: [{1}], ssh: {{address: {2}}}, settings: {{{3}}}}}\n"
    robots = (
        entry.format(f"robot-{number}", "rt_hosts, agents", f"192.0.2.{number}", "cpu: {isolated: 2-3}")
        for number in range(1, hosts + 1)
    )
    return "hosts:\n" + "".join(robots) + entry.format("backends", BACKENDS, "192.0.2.254", "")


def processor_seconds() -> float:
    """Return the processor time of this process and of those it started."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@contextmanager
def store(directory: Path) -> Iterator[None]:
    """Let every image of the catalogue be ready, as archives without contents."""
    filled = LocalStore(directory)
    program = directory / "program"
    program.touch()
    for name, image in filled.catalogue.images.items():
        digest = oci.write(oci.Image(name, (), "/nothing"), filled.archive_path(name))
        if (target := filled.package_path(name)) is not None:
            package = debian.Package(f"rtinfra-{name}", image.version, name, image.licence)
            debian.write(package, program, f"usr/bin/{name}", target, directory)
        filled.write_record(name, Record(image.recipe(), digest))
    with mock.patch.object(LocalStore.__init__, "__defaults__", (directory, None)):
        yield


def inventory_of(fleet: Fleet[Any]) -> Inventory:
    """Return the hosts of a fleet behind the connector @fake, which pyinfra chooses by their names."""
    answers = {question: [line.format(now=int(time.time())) for line in lines] for question, lines in _ANSWERS.items()}
    fake = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": answers}
    named = Fleet({f"@fake/{name}": replace(host, name=f"@fake/{name}") for name, host in fleet.hosts.items()})
    entries = [(name, {**fake, HOST_DATA_KEY: host, FLEET_DATA_KEY: named}) for name, host in named.hosts.items()]
    return Inventory((entries, {}))  # type: ignore[no-untyped-call]


def measure(hosts: int, profile: cProfile.Profile | None = None) -> Result:
    """Make the plan of so many hosts as rtinfra.plan.worker does."""
    marks = [processor_seconds()]
    with TemporaryDirectory() as directory, store(Path(directory)), profile or nullcontext():
        place = Path(directory) / "hosts.yaml"
        place.write_text(inventory_text(hosts), encoding="utf-8")
        inventory = inventory_of(load_checked_hosts(PROJECT, place))
        marks.append(processor_seconds())
        state = State(inventory, Config())  # type: ignore[no-untyped-call]
        state.cwd = str(PROJECT)
        recorder, observations = Recorder(contents=True), Observations()
        with (
            # That of the answers: hosts are asked with one for each run.
            mock.patch.object(output_sections, "unguessable_marker", lambda: output_sections.MARKER),
            ctx_state.use(state),
            ctx_inventory.use(inventory),
        ):
            changes.attach(state, recorder)
            connect_all(state)
            state.set_stage(StateStage.Prepare)
            stop = observations.listen()
            load_deploy_file(state, "deploy.py")
            stop()
            marks.append(processor_seconds())
            told = json.dumps({host.name: host_plan(state, host, recorder, observations) for host in inventory})
        plan = Plan("", "", {name: HostPlan.from_json(host) for name, host in json.loads(told).items()})
        json.dumps(plan.to_json())
        marks.append(processor_seconds())
    spent = [after - before for before, after in pairwise(marks)]
    names = ("settings", "operations", "plan")
    return Result(hosts, sum(host.changes for host in plan.hosts.values()), dict(zip(names, spent, strict=True)))


def show(result: Result, console: Console) -> None:
    """Print a result."""
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    what = f"Plan of {result.hosts} bare real-time hosts and one with backends, {result.changes} changes"
    console.print(f"{what}: {result.total:.1f} s of processor time")
    console.print(f"  {parts}; limit {LIMIT_SECONDS:.0f} s")
    for problem in result.problems:
        console.print(problem, style="bold red")


def main(
    hosts: Annotated[int, typer.Option(min=1, max=250, help="How many hosts.")] = HOSTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    profiled: Annotated[bool, typer.Option("--profile", help="Also print where the time goes.")] = False,
) -> None:
    """Measure and print; exit 1 when the limit is not met."""
    pyinfra.is_cli = True
    os.chdir(PROJECT)
    read_no_sources()
    logging.disable(logging.CRITICAL)
    profile = cProfile.Profile() if profiled else None
    result = measure(hosts, profile)
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    finish("plan", result, show, as_json)


if __name__ == "__main__":
    typer.run(main)
