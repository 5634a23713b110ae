"""What the `drift` role puts on a host: the checker, when it runs, and what it expects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from pyinfra.api.operation import add_op

from roles.composition import compose
from roles.drift import role as drift
from roles.drift.model import EXPECTED, SERVICE, TIMER, DriftSettings
from roles.drift.role import Expectation, document
from roles.shape import RoleState
from roles.target import Target
from rtinfra.cpu import Topology
from rtinfra.facts.files import PENDING_DIR
from rtinfra.facts.packet_filter import UNIT as PACKET_FILTER_UNIT
from rtinfra.operations import files as file_operations
from rtinfra.operations.resources import Absent, Action, Directory, File, Resource, RuntimeValue, Unit
from rtinfra.paths import PROJECT
from tests.golden.plan import commands, host_with, target_of
from tests.unit.telemetry_site import here, view

KINDS = {"file": "regular file", "directory": "directory"}
SETTINGS = DriftSettings(enabled=True, packages=("python3",), at="04:10")


def expectation(
    paths: Sequence[Resource] = (),
    units: Sequence[Unit] = (),
    packages: Sequence[str] = (),
    sysctl: Mapping[str, int] = {},
) -> Expectation:
    """Return what a small host should be."""
    return Expectation(
        host="robot",
        settings_sha256="0" * 64,
        paths=paths,
        units=units,
        packages=packages,
        local_packages=(),
        runtime=[
            RuntimeValue(
                kind="sysctl",
                name=key,
                paths=f"/proc/sys/{key.replace('.', '/')}",
                value=str(value),
                action=Action("sysctl", "sysctl -p"),
            )
            for key, value in sysctl.items()
        ],
        kernel=None,
    )


@pytest.fixture(scope="module")
def target() -> Target:
    return target_of(host_with({}), "debian-13", Topology.flat(4, nodes=2))


def expected_by(target: Target) -> dict[str, object]:
    (file,) = [path for path in target.composed.paths if path.path == EXPECTED]
    assert isinstance(file, File)
    found: dict[str, object] = json.loads(file.content)
    return found


def test_every_path_of_the_host_is_expected(target: Target) -> None:
    """The very values that operations are handed; the golden plan shows the same ones."""
    found = {entry["path"] for entry in expected_by(target)["files"]}  # type: ignore[attr-defined, union-attr]
    plan = (PROJECT / "tests/golden/expected/debian-13.txt").read_text(encoding="utf-8")
    planned = set(re.findall(r"^(?:file|directory|absent) (/\S+)", plan, re.MULTILINE))
    assert found == planned - {EXPECTED}, "all but the file that says so"


def test_every_unit_and_package_is_expected(target: Target) -> None:
    expected = expected_by(target)
    every = [PACKET_FILTER_UNIT, *(unit.name for unit in target.composed.units)]
    assert [unit["name"] for unit in expected["units"]] == every  # type: ignore[attr-defined, union-attr]
    assert TIMER in [unit.name for unit in target.composed.units]
    assert set(expected["packages"]) >= {"chrony", "python3", "linux-image-rt-amd64"}  # type: ignore[call-overload]


def test_the_kernel_is_expected_as_it_was_told(target: Target) -> None:
    expected = expected_by(target)
    kernel = expected["kernel"]
    assert isinstance(kernel, dict)
    assert kernel["release"] == "*-rt-amd64"
    assert "isolcpus=managed_irq,2-3" in kernel["words"]
    sysctl = yaml.safe_load((PROJECT / "group_data/rt_hosts.yaml").read_text())["rt_tuning"]["sysctl"]
    live = {entry["name"]: entry["value"] for entry in expected["live"] if entry["kind"] == "sysctl"}  # type: ignore[attr-defined, union-attr]
    assert live == {key: str(value) for key, value in sysctl.items()}


def test_what_can_be_put_back_names_its_action(target: Target) -> None:
    """Everything but what only a reboot changes."""
    without = {value.kind for value in target.composed.runtime if value.action is None}
    assert without == {"isolation"}


def test_the_file_with_hashes_of_secrets_is_for_root_alone(target: Target) -> None:
    (file,) = [path for path in target.composed.paths if path.path == EXPECTED]
    assert isinstance(file, File)
    assert (file.mode, file.secret) == ("0600", True)


def test_the_same_settings_give_the_same_bytes(target: Target) -> None:
    again = compose(target.view)
    assert [path for path in target.composed.paths if isinstance(path, File)] == [
        path for path in again.paths if isinstance(path, File)
    ]


def test_what_is_expected_changes_with_every_setting() -> None:
    one = document(expectation(sysctl={"vm.swappiness": 10}), [])
    other = document(expectation(sysctl={"vm.swappiness": 1}), [])
    assert one != other


def test_a_path_that_two_roles_ask_for_is_there_once() -> None:
    twice = [Directory(path="/etc/a"), Directory(path="/etc/a")]
    assert len(document(expectation(paths=twice), twice)["files"]) == 1


def drift_of(housekeeping: bool = False, **changes: object) -> RoleState:
    """The role's state on a host that nothing else runs on."""
    settings = SETTINGS.model_copy(update=changes)
    return drift.state(settings, view(drift=here(settings), is_rt=housekeeping))


def test_switched_off_everything_goes_away() -> None:
    off = drift_of(enabled=False)
    assert all(isinstance(path, Absent) for path in off.files)
    assert {path.path for path in drift_of().files if isinstance(path, File)} <= {path.path for path in off.files}
    assert off.units == (Unit(TIMER, startup="disabled", running=False),)
    assert off.packages == ()


def test_drift_that_was_found_asks_the_next_deploy_for_a_new_check(target: Target) -> None:
    """The marker that the service is told to leave is the one of an action that the role's operation knows."""
    (service,) = [path for path in target.composed.paths if path.path.endswith(f"/{SERVICE}")]
    assert isinstance(service, File)
    (marker,) = re.findall(r"--marker (\S+)", service.content.decode())
    directory, _, name = marker.rpartition("/")
    assert directory == PENDING_DIR
    assert name in {action.name for path in target.composed.paths for action in path.actions}


def test_the_checker_runs_on_housekeeping_cores() -> None:
    def service(housekeeping: str | None) -> str:
        paths = drift_of(housekeeping is not None).files
        return next(
            path.content.decode() for path in paths if path.path.endswith(".service") and isinstance(path, File)
        )

    assert "CPUAffinity=0-1" in service("0-1")
    assert "CPUAffinity" not in service(None)


# ---- the deploy puts back what the checker found


@pytest.fixture
def sent(target: Target, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What the deploy sends for rt_tuning to a host that has all its files; @fake answers as the host would."""
    (batch,) = [batch for batch in target.composed.batches if batch.name == "rt_tuning"]
    paths = batch.state.files
    answer = ["@@stat"]
    answer += [
        f"{path.mode}\t{path.owner}\t{path.group}\t{KINDS[path.kind]}\t{path.path}"
        for path in paths
        if isinstance(path, File | Directory)
    ]
    answer += ["@@sha256", *(f"{path.sha256}  {path.path}" for path in paths if isinstance(path, File)), "@@pending"]

    def run(*drifted: str, pending: Sequence[str] = ()) -> list[str]:
        found: set[str] = set()

        def bundle(paths: Sequence[Resource], actions: Sequence[Action], restarts: Sequence[str]) -> str:
            found.update([*(path.path for path in paths), *(action.command for action in actions), *restarts])
            return ""

        monkeypatch.setattr(file_operations, "bundle", bundle)
        commands(
            lambda state: add_op(state, file_operations.sync, paths=paths, runtime=batch.state.runtime),
            {"echo @@": ["@@drift", *drifted, *answer, *pending]},
        )
        return sorted(found)

    return run


def test_an_unchanged_host_costs_nothing(sent: Callable[..., list[str]]) -> None:
    assert sent() == []


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("sysctl", "sysctl -q -p /etc/sysctl.d/zz-rtinfra.conf"),
        ("tune", "systemctl restart rtinfra-tune.service"),
        ("partition", "systemctl restart rtinfra-partition.service"),
    ],
)
def test_the_deploy_does_exactly_what_is_called_for(sent: Callable[..., list[str]], action: str, command: str) -> None:
    assert sent(f"{action}\tsomething: expected this, found that") == [command]
    # Cut off after its marker was left: the next run does it, whatever the checker says.
    assert sent(pending=[action]) == [command]


def test_an_action_that_nobody_knows_is_left_alone(sent: Callable[..., list[str]]) -> None:
    assert sent("tomorrow\tsomething that an older checker calls for") == []


def test_the_checker_is_the_file_that_is_sent() -> None:
    (program,) = [path for path in drift_of().files if path.path.endswith("/drift.py")]
    assert isinstance(program, File)
    assert program.content == Path(PROJECT / "roles/drift/checker/drift.py").read_bytes()
