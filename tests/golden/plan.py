"""Build the plan of a host without a host: roles against pyinfra's @fake connector, as one readable text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.deploy import add_deploy
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.context import ctx_state
from ruamel.yaml import YAML

from roles.composition import Batch, compose
from roles.drift.model import EXPECTED
from roles.fleet import load_hosts, view_of
from roles.host import HostConfig
from roles.mirror_client import role as mirror_client
from roles.mirror_client.model import MIRROR_CLIENT
from roles.mirror_server import role as mirror_server
from roles.mirror_server.model import MIRROR_SERVER
from roles.shape import FleetView, Phase
from roles.shared import CPU
from roles.target import Target
from rtinfra.config import Fleet, FleetHost
from rtinfra.cpu import Topology, resolve_layout
from rtinfra.facts.boot import BOOT_PROGRAM
from rtinfra.operations import packages, packet_filter, units
from rtinfra.operations.files import _SCRIPT
from rtinfra.operations.mirror import _CERTIFICATES_SCRIPT, _SET_ASIDE_SCRIPT
from rtinfra.operations.resources import Absent, Directory, File, Resource, Unit
from rtinfra.operations.units import _SCRIPT as _START
from rtinfra.paths import PROJECT
from tests.fake_hosts import known_marker
from tests.unit.mirror_fleet import INDEX, LIVE, PLACE, served_answer
from tests.unit.telemetry_site import FakeSecrets, FakeStore

# What the two-node topology of the scenarios needs: cores 2 and 3 are on node 1 there.
_NODES = {"rt_app": {"rt_process": {"numa_node": 1}, "non_rt_process": {"numa_node": 0}}}


def host_with(settings: Mapping[str, object], groups: Sequence[str] = ("rt_hosts",)) -> FleetHost[HostConfig]:
    """Return a host of the groups, rt_hosts if no other, with the shipped settings and these of its own."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "hosts.yaml"
        merged = {**(_NODES if "rt_hosts" in groups else {}), **settings}
        host = {"groups": list(groups), "ssh": {"address": "192.0.2.1"}, "settings": merged}
        with path.open("w") as stream:
            YAML().dump({"hosts": {"golden": host}}, stream)
        return load_hosts(PROJECT, path).hosts["golden"]


def view(host: FleetHost[HostConfig], distribution: str = "debian-13", topology: Topology | None = None) -> FleetView:
    """Return what the roles of a host that is alone in its fleet see, with made-up images and secrets."""
    fleet, cpu = Fleet({host.name: host}), host.config.get(CPU)
    layout = None
    if cpu is not None:
        layout, findings = resolve_layout(cpu.isolated, cpu.housekeeping, topology or Topology.flat(4, nodes=2))
        assert layout is not None, findings
    return view_of(fleet, host, FakeStore(), FakeSecrets(), layout=layout, distribution=distribution)


def target_of(host: FleetHost[HostConfig], distribution: str, topology: Topology) -> Target:
    """Return what a deploy knows of a host with this topology."""
    return Target(compose(view(host, distribution, topology)))


def _without_reboot(batch: Batch) -> Batch:
    steps = {phase: step for phase, step in batch.state.steps.items() if phase is not Phase.REBOOT}
    return replace(batch, state=replace(batch.state, steps=steps))


def steps_of(state: State, target: Target) -> None:
    """Add the operations of deploy.py, of a host without a mirror."""
    add_deploy(state, target.supply)
    add_deploy(state, target.guard)
    add_op(state, packages.installed, name="packages", names=target.composed.packages)
    add_deploy(state, target.protect)
    add_deploy(state, target.place)
    add_op(state, units.ensure, name="units", units=target.composed.units)


def plan(host: FleetHost[HostConfig], distribution: str, topology: Topology) -> str:
    """Return every command that a bare host would see, then every path, then every unit."""
    composed = compose(view(host, distribution, topology))
    # Whether a reboot is needed depends on what runs.
    target = Target(replace(composed, batches=tuple(_without_reboot(batch) for batch in composed.batches)))
    return "\n".join(
        [
            *_heading("Commands on a bare host, without those that only look"),
            *(command for command in commands(lambda state: steps_of(state, target))),
            *_heading("Paths"),
            *(line for path in target.composed.paths for line in path_lines(path)),
            *_heading("Units"),
            *(f"{unit.name}: {unit.startup or 'as it is'}, {_running(unit)}" for unit in target.composed.units),
            "",
        ]
    )


def mirror_plan(role: str) -> str:
    """Return the same of a host that serves the offline mirror, or uses it, when a release is published."""
    config = host_with({}, groups=["mirror_server", "mirror_client"]).config
    server, client = config[MIRROR_SERVER], config[MIRROR_CLIENT]
    assert server is not None
    assert client is not None
    serves = role == "mirror_server"
    paths = (
        [*mirror_server.source(PLACE, INDEX), *mirror_server.files(server, PLACE)]
        if serves
        else mirror_client.files(PLACE, False, LIVE)
    )

    def steps(state: State) -> None:
        if serves:
            files = mirror_server.files(server, PLACE)
            add_deploy(state, mirror_server.serve, server, PLACE, mirror_server.source(PLACE, INDEX), files)
        else:
            # The host that is asked what the mirror serves is the fake one too.
            add_deploy(state, mirror_client.configure, client, replace(PLACE, host="@fake/golden"), False)

    answer = served_answer(has_certificates=not serves)
    return "\n".join(
        [
            *_heading("Commands on a bare host, without those that only look"),
            *commands(steps, {"echo @@": answer}),
            *_heading("Paths"),
            *(line for path in paths for line in path_lines(path)),
            *_heading("Units"),
            *(f"{unit.name}: {unit.startup}, {_running(unit)}" for unit in (mirror_server.units() if serves else ())),
            "",
        ]
    )


def commands(steps: object, responses: Mapping[str, object] | None = None) -> list[str]:
    """Run `steps(state)` against a fake host and return what it executed, facts left out.

    A fact that no entry of `responses` answers finds a host that has nothing.
    """
    inventory = Inventory(
        (
            [
                (
                    "@fake/golden",
                    {
                        "fake_delay": 0,
                        "fake_delay_jitter": 0,
                        "fake_responses": {"echo @@": "@@nothing", **(responses or {})},
                    },
                )
            ],
            {},
        )
    )
    state = State(inventory, Config())
    logging.disable(logging.CRITICAL)
    try:
        with known_marker(), ctx_state.use(state):
            connect_all(state)
            steps(state)  # type: ignore[operator]
            run_ops(state)
    finally:
        logging.disable(logging.NOTSET)
    (fake,) = inventory
    executed = fake.connector.executed_commands
    return [_shown(command) for command in executed if "echo @@" not in command]


def _shown(command: str) -> str:
    text = str(command)
    if _SCRIPT.splitlines()[0] in text:
        return "<sync.sh with the files that differ>"
    scripts = {_START: "<start.sh>", _CERTIFICATES_SCRIPT: "<certificates.sh>", _SET_ASIDE_SCRIPT: "<set-aside.sh>"}
    scripts |= {packet_filter._SCRIPT: "<packet_filter.sh>"}
    for script, name in scripts.items():
        text = text.replace(script, name)
    return text


def _heading(text: str) -> Sequence[str]:
    return ["", f"# {text}", ""]


def path_lines(path: Resource) -> list[str]:
    """Return what a path is to be, as lines of a plan."""
    effects = [f"run {action.name}: {action.command}" for action in path.actions]
    effects += [f"restart {unit}" for unit in path.restarts]
    match path:
        case File():
            head = f"file {path.path} {path.mode} {path.owner}:{path.group}"
            # Programs have their own tests; here it is enough that one is placed.
            is_program = path.path.startswith(("/usr/local/bin/", "/usr/local/sbin/")) or path.path.endswith(
                (".py", ".pyz", BOOT_PROGRAM)
            )
            body = ["(a program)"] if is_program else path.content.decode().rstrip("\n").split("\n")
            if path.path == EXPECTED:
                body = ["(what all of this comes to, as JSON)"]
        case Directory():
            head, body = f"directory {path.path} {path.mode} {path.owner}:{path.group}", []
        case Absent():
            head, body = f"absent {path.path}", []
        case _:
            raise TypeError(path)
    return [head, *(f"  -> {effect}" for effect in effects), *(f"    {line}".rstrip() for line in body), ""]


def _running(unit: Unit) -> str:
    return {True: "running", False: "stopped", None: "left as it is"}[unit.running]
