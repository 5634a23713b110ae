"""What a plan says of a host before anything happens: a bare one as a stored text, a deployed one change by change.

After an intended change: `pytest tests/golden --update-golden`, then read the difference.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.deploy import add_deploy
from pyinfra.api.operation import add_op
from pyinfra.context import ctx_state

from roles.host import HostConfig
from roles.mirror_client import role as mirror_client
from roles.mirror_client.model import MIRROR_CLIENT
from roles.preflight import role as preflight
from roles.rt_kernel.model import RT_KERNEL
from roles.rt_tuning.model import RT_TUNING
from roles.target import Target
from rtinfra.config import FleetHost
from rtinfra.cpu import Topology
from rtinfra.facts.files import PathState
from rtinfra.facts.packet_filter import PacketFilterState
from rtinfra.inventory import HOST_DATA_KEY
from rtinfra.operations import changes, files
from rtinfra.operations.change import FileChange
from rtinfra.operations.changes import Recorder
from rtinfra.operations.resources import Absent, Directory, File, Resource
from rtinfra.plan import show
from rtinfra.plan.model import HostPlan, Plan
from rtinfra.plan.observed import Observations, host_plan
from tests.fake_hosts import known_marker
from tests.golden.plan import host_with, steps_of, target_of
from tests.golden.test_preflight import SETTINGS
from tests.unit.mirror_fleet import NAME, PLACE, served_answer
from tests.unit.telemetry_site import at, here, shipped, view

EXPECTED = Path(__file__).parent / "expected" / "predicted-bare.txt"
TOPOLOGY = Topology.flat(4, nodes=2)
RELEASE = "6.12.57+deb13-rt-amd64"
CHRONY = "/etc/chrony/chrony.conf"
DROP_IN = "/etc/default/grub.d/60-rtinfra.cfg"

BARE_BOOT = (
    "@@boot_id\nother\n@@release\n6.12.57+deb13-amd64\n@@version\nPREEMPT_DYNAMIC\n@@cmdline\nro root=/dev/vda1"
    "\n@@installed\n@@grub_cfg\n@@default\n"
)
SIMULATED = (
    "@@install\nInst libnuma1 (2.0.19-1 Debian:13/stable [amd64])\nInst chrony (4.6.1-3 Debian:13/stable [amd64])\n"
    f"Inst linux-image-{RELEASE} (6.12.57-1 Debian:13/stable [amd64])\n"
    "Inst linux-image-rt-amd64 (6.12.57-1 Debian:13/stable [amd64])\nConf chrony (4.6.1-3 Debian:13/stable [amd64])\n"
    "@@lists\n1000\n@@clock\n2000\n"
)


def host_of(desired: Target) -> FleetHost[HostConfig]:
    """Return a host by whose settings a plan can be told from one that was made with others."""
    swappiness = desired.view.required(RT_TUNING).sysctl["vm.swappiness"] if desired.view.own(RT_TUNING) else 0
    return host_with({"rt_tuning": {"sysctl": {"vm.swappiness": swappiness}}})


def target(**settings: object) -> Target:
    """Return a host whose packet filter is as it should be: it is looked at before everything else."""
    bare = target_of(host_with(settings), "debian-13", TOPOLOGY)
    (desired,) = (one for batch in bare.composed.batches for one in batch.state.packet_filters)
    paths = {
        path.path: PathState("regular file", path.mode, path.owner, path.group, path.sha256)
        for path in desired.paths
        if isinstance(path, File)
    }
    there = PacketFilterState(True, "table", desired.sha256, "table", True, True, paths)
    return replace(bare, packet_filter=there)


@dataclass(frozen=True)
class Deployed:
    """A host that is as `target` says, but for what is changed here."""

    target: Target
    contents: Mapping[str, bytes] | None = None
    modes: Mapping[str, str] | None = None
    pending: str = ""

    def responses(self) -> dict[str | re.Pattern[str], list[str]]:
        paths = {path.path: path for path in self.target.composed.paths}
        stat, digests, contents = [], [], []
        for path in paths.values():
            if isinstance(path, Absent):
                continue
            content = (self.contents or {}).get(path.path, path.content if isinstance(path, File) else b"")
            kind = "directory" if isinstance(path, Directory) else "regular file"
            mode = (self.modes or {}).get(path.path, path.mode)  # type: ignore[attr-defined]
            stat.append(f"{mode.lstrip('0')}\t{path.owner}\t{path.group}\t{kind}\t{path.path}")  # type: ignore[attr-defined]
            if isinstance(path, File):
                digests.append(f"{replace(path, content=content).sha256}  {path.path}")
                contents += [f"@@{path.path}", base64.b64encode(content).decode()]
        words = self.target.view.required(RT_KERNEL).command_line(self.target.view.cpus)
        boot = (
            f"@@boot_id\nother\n@@release\n{RELEASE}\n@@version\nPREEMPT_RT\n@@cmdline\nro {' '.join(words)}\n"
            f"@@installed\n{RELEASE}\n@@grub_cfg\n/boot/vmlinuz-{RELEASE}\tro {' '.join(words)}\n"
            f"@@default\nyes\n@@saved_entry\nsaved_entry=rtinfra-good\n@@kept\n{RELEASE}\nro {' '.join(words)}\n"
            f"{' '.join(words)}\n"
        )
        units = [
            line
            for unit in self.target.composed.units
            for line in (
                *(f"Id={unit.name}", "LoadState=loaded", "SubState=x", "NeedDaemonReload=no"),
                f"ActiveState={'active' if unit.running else 'inactive'}",
                f"UnitFileState={unit.startup or 'static'}",
                "",
            )
        ]
        installed = (f"{name}\t1\tii " for name in self.target.composed.packages)
        return {
            "echo @@boot_id": boot.splitlines(),
            "echo @@query": ["@@query", *installed, "@@audit"],
            "echo @@show": ["@@show", *units, "@@pending", self.pending],
            "base64 --": contents,
            "echo @@stat": ["@@stat", *stat, "@@sha256", *digests, "@@pending", self.pending],
        }


def bare() -> dict[str | re.Pattern[str], list[str]]:
    return {
        re.compile("^echo @@install$", re.M): SIMULATED.splitlines(),
        "echo @@boot_id": BARE_BOOT.splitlines(),
        "echo @@": ["@@nothing"],
    }


def prepared(desired: Target, responses: Mapping[str | re.Pattern[str], Sequence[str]]) -> HostPlan:
    """Return the plan of one fake real-time host."""

    def steps(state: State) -> None:
        steps_of(state, desired)

    return HostPlan.from_json(planned(desired, responses, steps))


def planned(
    desired: Target, responses: Mapping[str | re.Pattern[str], Sequence[str]], steps: Callable[[State], None]
) -> Mapping[str, Any]:
    """Return what would be saved of the plan of one fake host."""
    data = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": responses, HOST_DATA_KEY: host_of(desired)}
    inventory = Inventory(([("@fake/golden", data)], {}))
    state, recorder, observations = State(inventory, Config()), Recorder(contents=True), Observations()
    logging.disable(logging.CRITICAL)
    stop = observations.listen()
    try:
        with known_marker(), ctx_state.use(state):
            changes.attach(state, recorder)
            connect_all(state)
            steps(state)
            (host,) = inventory
            found: Mapping[str, Any] = json.loads(json.dumps(host_plan(state, host, recorder, observations)))
            return found
    finally:
        stop()
        logging.disable(logging.NOTSET)


def names(plan: HostPlan) -> list[str]:
    return [operation.name for operation in plan.operations]


def change(plan: HostPlan, kind: str, name: str) -> Mapping[str, object]:
    (found,) = (
        change.to_json()
        for operation in plan.operations
        for change in operation.changes
        if (change.kind, change.name) == (kind, name)
    )
    return found


def of(paths: Sequence[Resource], path: str) -> File:
    (found,) = (file for file in paths if file.path == path)
    assert isinstance(found, File)
    return found


def test_a_bare_host(request: pytest.FixtureRequest) -> None:
    plan = prepared(replace(target(), packet_filter=PacketFilterState()), bare())
    assert plan.reboot is not None
    text = "".join(f"{line.plain}\n" for line in show.lines(Plan("", "", {"golden": plan}), diffs=False))
    # The length of the reference workload's archive is nothing that a plan decides.
    text = re.sub(r"\(no text, \d+ bytes\)", "(no text)", text)
    if request.config.getoption("--update-golden"):
        EXPECTED.write_text(text, encoding="utf-8")
    assert text == EXPECTED.read_text(encoding="utf-8")


def test_an_unchanged_host() -> None:
    plan = prepared(target(), Deployed(target()).responses())
    assert (plan.operations, plan.changes, plan.reboot) == ((), 0, None)
    assert plan.all_operations[-1] == "units"


def test_a_file_changed_by_hand_and_what_follows() -> None:
    desired = target()
    content = of(desired.composed.paths, CHRONY).content
    plan = prepared(desired, Deployed(desired, contents={CHRONY: content + b"server 192.0.2.9\n"}).responses())
    assert names(plan) == ["base | files", "units"]
    assert (plan.changes, plan.reboot) == (1, None)
    assert "\n-server 192.0.2.9" in str(change(plan, "file", CHRONY)["diff"])
    restart = change(plan, "unit", "chrony.service")
    assert (restart["text"], restart["consequence"]) == ("restart", True)
    assert restart["because"] == f"{CHRONY} changes"
    assert plan.operations[-1].is_consequence


def test_a_mode_alone_has_no_diff() -> None:
    desired = target()
    plan = prepared(desired, Deployed(desired, modes={CHRONY: "0666"}).responses())
    assert change(plan, "file", CHRONY)["text"] == "mode 0666 -> 0644"
    assert change(plan, "file", CHRONY)["diff"] == ""


def test_a_restart_that_a_run_left_undone_is_a_change_of_its_own() -> None:
    plan = prepared(target(), Deployed(target(), pending="restart@chrony.service").responses())
    assert names(plan) == ["units"]
    assert (plan.changes, plan.consequences) == (1, 0)


def test_another_isolated_core_is_a_reboot_that_starts_the_units() -> None:
    desired = target(cpu={"isolated": "3"})
    plan = prepared(desired, Deployed(target()).responses())
    reboot = plan.reboot
    assert reboot is not None
    assert reboot.consequence
    assert "nohz_full=3" in reboot.added
    assert "nohz_full=2-3" in reboot.removed
    # The reboot starts everything; after it the host's own check is told the new housekeeping cores.
    assert change(plan, "step", "systemd")["consequence"]
    (units,) = (operation for operation in plan.operations if operation.name == "units")
    assert len(units.changes) == 1


def test_a_parameter_taken_out_of_the_settings_is_removed() -> None:
    usual = target()
    parameters = [word for word in usual.view.required(RT_KERNEL).parameters if word != "skew_tick=1"]
    desired = target(rt_kernel={"parameters": parameters})
    before = {DROP_IN: of(usual.composed.paths, DROP_IN).content}
    reboot = prepared(desired, Deployed(usual, contents=before).responses()).reboot
    assert reboot is not None
    assert (reboot.added, reboot.removed) == ((), ("skew_tick=1",))


def test_another_comment_in_the_boot_loaders_file_needs_no_reboot() -> None:
    desired = target()
    content = of(desired.composed.paths, DROP_IN).content
    plan = prepared(desired, Deployed(desired, contents={DROP_IN: content + b"# hello\n"}).responses())
    assert names(plan) == ["rt_kernel | boot loader"]
    assert plan.reboot is None


def test_the_same_host_has_the_same_fingerprints_and_a_changed_one_has_not() -> None:
    desired = target()
    first, second = (prepared(desired, Deployed(desired).responses()) for _ in range(2))
    assert not list(first.differences(second))
    drifted = prepared(desired, Deployed(desired, modes={CHRONY: "0600"}).responses())
    assert "base | files: what is on the host has changed since" in list(first.differences(drifted))
    other = prepared(target(rt_tuning={"sysctl": {"vm.swappiness": 1}}), Deployed(desired).responses())
    found = list(first.differences(other))
    assert "its settings are not those that the plan was made with" in found
    assert "rt_tuning | files: it would do something else now" in found


class TestMirror:
    """A host that is pointed at the mirror."""

    def plan(self, has_certificates: bool) -> HostPlan:
        settings = host_with({}, groups=["mirror_client"]).config[MIRROR_CLIENT]
        assert settings is not None

        def steps(state: State) -> None:
            add_deploy(state, mirror_client.configure, settings, replace(PLACE, host="@fake/golden"), False)

        return HostPlan.from_json(planned(target(), {"echo @@": served_answer(has_certificates)}, steps))

    def test_what_follows_from_certificates_that_are_not_made_yet_is_unknown(self) -> None:
        plan = self.plan(has_certificates=False)
        assert "certificate that this run makes" in str(change(plan, "unknown", "files")["text"])
        assert plan.changes == 1

    def test_files_and_versions(self) -> None:
        plan = self.plan(has_certificates=True)
        assert "+URIs: https://192.0.2.5:443/apt" in str(change(plan, "file", mirror_client.SOURCE)["diff"])
        assert f"of release {NAME}" in str(change(plan, "step", "packages")["text"])
        assert change(plan, "unknown", "packages")


def test_no_secret_is_in_a_plan_that_is_shown_or_saved() -> None:
    """Neither one that is planted in the settings, nor one that the host still has in its files."""
    where = view(is_rt=True, agents=here(), rt_app=here(), gateways=here(), alertmanager=at("ops", "192.0.2.20"))
    paths = preflight.state(shipped("preflight", **SETTINGS), where).files
    secrets = [path for path in paths if isinstance(path, File) and path.secret]
    assert any(b"value-of-" in path.content for path in secrets)
    gone = Absent(path="/etc/rtinfra/older.env")

    def steps(state: State) -> None:
        add_op(state, files.sync, name="files", paths=[*paths, gone])

    older = base64.b64encode(b"TOKEN=older-value\n").decode()
    stat = [f"600\troot\troot\tregular file\t{path.path}" for path in (*secrets, gone)]
    answers = {
        "base64 --": [line for path in (*secrets, gone) for line in (f"@@{path.path}", older)],
        "echo @@stat": ["@@stat", *stat, "@@sha256", "@@pending"],
    }
    found = planned(target(), answers, steps)
    plan = HostPlan.from_json(found)
    assert {
        change.name
        for change in plan.operations[0].changes
        if isinstance(change, FileChange) and change.content == "secret"
    } == {path.path for path in secrets}
    assert change(plan, "file", gone.path)["text"] == "removed"
    shown = "".join(line.plain for line in show.lines(Plan("", "", {"golden": plan})))
    for text in (json.dumps(found), json.dumps(plan.to_saved()), shown):
        assert "value-of-" not in text
        assert "older-value" not in text
        assert older not in text
