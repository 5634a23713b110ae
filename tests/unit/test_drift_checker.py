"""The program that looks for drift on a host, on a tree that plays the host, and against what a deploy would do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.drift.checker import drift
from roles.drift.role import document
from rtinfra.cpu import format_cpu_list, format_cpu_mask
from rtinfra.facts import keyed_hash
from rtinfra.facts.files import DRIFT_CHECKER, Files, parse_files_state
from rtinfra.facts.units import UnitState
from rtinfra.operations.resources import Absent, Directory, File, Resource, Unit
from rtinfra.operations.units import _steps
from tests.unit.monitoring_tools import tool
from tests.unit.test_role_drift import expectation
from tests.unit.test_sync import ME

PROGRAM = Path(drift.__file__)


def put(root: Path, path: str, text: str) -> Path:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def live(root: Path, **entry: str) -> list[tuple[str, str]]:
    whole = {"kind": "value", "name": "", "form": "text", "action": "", **entry}
    return [(found.name, found.actual) for found in drift.live([whole], root)]


# ---- values of the running kernel


def test_a_sysctl_that_was_changed_is_named(tmp_path: Path) -> None:
    put(tmp_path, "proc/sys/vm/swappiness", "60\n")
    found = list(
        drift.live(
            [
                {
                    "kind": "sysctl",
                    "name": "vm.swappiness",
                    "paths": "/proc/sys/vm/swappiness",
                    "value": "10",
                    "form": "text",
                    "action": "sysctl",
                }
            ],
            tmp_path,
        )
    )
    assert [str(one) for one in found] == ["sysctl vm.swappiness: expected 10, found 60"]
    assert found[0].action == "sysctl"


def test_blanks_are_no_drift_and_what_a_kernel_lacks_is_none_either(tmp_path: Path) -> None:
    put(tmp_path, "proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n")
    assert not live(tmp_path, paths="/proc/sys/net/ipv4/tcp_rmem", value="4096 131072 6291456")
    assert not live(tmp_path, paths="/proc/sys/kernel/absent", value="1")


@pytest.mark.parametrize(("text", "found"), [("always madvise [never]", False), ("[always] madvise never", True)])
def test_one_of_several(text: str, found: bool, tmp_path: Path) -> None:
    put(tmp_path, "sys/thp", text)
    assert bool(live(tmp_path, paths="/sys/thp", value="never", form="choice")) == found


@pytest.mark.parametrize(
    ("masks", "astray"),
    [
        ({"": "3", "/writeback": "3"}, []),
        # The common mask bounds the others: one made late shows all CPUs and is no drift.
        ({"": "3", "/late": "f"}, []),
        ({"": "f", "/writeback": "3"}, ["/sys/devices/virtual/workqueue/cpumask"]),
        (
            {"": "f", "/writeback": "f"},
            ["/sys/devices/virtual/workqueue/cpumask", "/sys/devices/virtual/workqueue/writeback/cpumask"],
        ),
    ],
)
def test_workqueues(masks: dict[str, str], astray: list[str], tmp_path: Path) -> None:
    base = "/sys/devices/virtual/workqueue"
    for name, mask in masks.items():
        put(tmp_path, f"{base}{name}/cpumask", mask)
    found = live(tmp_path, paths=f"{base}/cpumask", value="3", form="mask")
    found += live(tmp_path, paths=f"{base}/*/cpumask", value="3", form="workqueue")
    assert [name for name, _ in found] == astray


def test_an_interrupt_may_keep_to_some_of_the_cores(tmp_path: Path) -> None:
    for number, cpus in (("4", "0-1"), ("5", "1"), ("6", "2"), ("7", "0-3")):
        put(tmp_path, f"proc/irq/{number}/smp_affinity_list", cpus)
    found = live(tmp_path, paths="/proc/irq/[0-9]*/smp_affinity_list", value="0-1", form="interrupt")
    assert found == [("/proc/irq/6/smp_affinity_list", "2"), ("/proc/irq/7/smp_affinity_list", "0-3")]
    assert (tmp_path / "proc/irq/6/smp_affinity_list").read_text() == "2", "asking changes nothing"


def test_an_interrupt_that_nobody_can_move_is_no_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "proc/irq/6/smp_affinity_list", "2")

    def refuse(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", refuse)
    assert not live(tmp_path, paths="/proc/irq/[0-9]*/smp_affinity_list", value="0-1", form="interrupt")


def stat_line(name: str, policy: int, priority: int) -> str:
    fields = ["S", *("0" for _ in range(50))]
    fields[40 - 3], fields[41 - 3] = str(priority), str(policy)
    return f"12 ({name}) {' '.join(fields)}"


def test_priorities_of_kernel_threads(tmp_path: Path) -> None:
    for pid, text in enumerate(
        [
            stat_line("ksoftirqd/0", 1, 2),
            stat_line("ksoftirqd/1", 0, 0),
            stat_line("a ) b", 0, 0),
            stat_line("ktimers/0", 1, 9),
        ]
    ):
        put(tmp_path, f"proc/{pid}/stat", text)
    found = live(tmp_path, paths="ksoftirqd/*", value="2", form="fifo")
    assert found == [("ksoftirqd/1", "policy 0, priority 0")]


def test_isolated_cores(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/system/cpu/isolated", "2-3\n")
    put(tmp_path, "sys/devices/system/cpu/nohz_full", "(null)\n")
    assert not live(tmp_path, paths="/sys/devices/system/cpu/isolated", value="2,3", form="cpus")
    assert live(tmp_path, paths="/sys/devices/system/cpu/nohz_full", value="2-3", form="cpus")


CPUS = st.frozensets(st.integers(0, 200), max_size=40)


@given(cpus=CPUS)
def test_lists_and_masks_are_read_as_the_rest_of_the_project_writes_them(cpus: frozenset[int]) -> None:
    assert drift._cpus(format_cpu_list(cpus)) == cpus
    assert drift._mask(format_cpu_mask(cpus)) == sum(1 << cpu for cpu in cpus)


@pytest.mark.parametrize(
    ("booted", "found"),
    [
        ("quiet isolcpus=domain,2-3 nohz=on BOOT_IMAGE=/x", []),
        ("isolcpus=domain,3 nohz=on", ["isolcpus: expected isolcpus=domain,2-3, found isolcpus=domain,3"]),
        ("isolcpus=domain,2-3", ["nohz: expected nohz=on, found absent"]),
        (
            "isolcpus=domain,2-3 nohz=on nohz=off",
            ["nohz: expected nohz=on, found nohz=on nohz=off"],
        ),
    ],
)
def test_kernel_command_line(booted: str, found: list[str], tmp_path: Path) -> None:
    put(tmp_path, "proc/cmdline", booted)
    expected = {"release": "*", "words": ["isolcpus=domain,2-3", "nohz=on"]}
    assert [str(one).removeprefix("kernel command line ") for one in drift.kernel(expected, tmp_path)] == found


def test_another_kernel(tmp_path: Path) -> None:
    put(tmp_path, "proc/cmdline", "")
    (found,) = drift.kernel({"release": "*-rt-nowhere", "words": []}, tmp_path)
    assert found.name == "release"


# ---- the same opinion as a deploy


def deploy_says(paths: list[Resource]) -> set[str]:
    """Paths that a deploy would touch, after looking with its own fact."""
    fact, key = Files(), "".join(keyed_hash.KEY.readlines())
    script = fact.command([path.path for path in paths]).get_raw_value()
    ran = subprocess.run(["sh", "-c", script], input=f"{key}\n", capture_output=True, text=True, check=True)
    state = fact.process(ran.stdout.split("\n"))
    return {path.path for path in paths if path.difference(state.paths.get(path.path))}


def no_change(_: Path) -> None:
    """Leave everything as it is."""


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": no_change,
    "content": lambda path: (path / "file").write_text("other"),
    "mode of a file": lambda path: (path / "file").chmod(0o600),
    "mode of a directory": lambda path: (path / "directory").chmod(0o700),
    "removed": lambda path: (path / "file").unlink(),
    "a link instead": lambda path: (path / "file").rename(path / "x") and (path / "file").symlink_to(path / "x"),
    "a directory instead": lambda path: (path / "file").unlink() or (path / "file").mkdir(),
    "a file instead": lambda path: (path / "directory").rmdir() or (path / "directory").touch(),
    "one that must not be": lambda path: (path / "absent").touch(),
    "a link that must not be": lambda path: (path / "absent").symlink_to("nowhere"),
    "empty": lambda path: (path / "file").write_text(""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_drift_and_deploy_agree_on_paths(change: str, tmp_path: Path) -> None:
    paths: list[Resource] = [
        File(path=str(tmp_path / "file"), content=b"content", mode="0644", **ME),
        Directory(path=str(tmp_path / "directory"), mode="0755", **ME),
        Absent(path=str(tmp_path / "absent")),
    ]
    put(tmp_path, "file", "content").chmod(0o644)
    (tmp_path / "directory").mkdir(mode=0o755)
    CHANGES[change](tmp_path)
    expected = document(expectation(paths=paths), [])["files"]
    found = {one.name for one in drift.files(expected, Path("/"))}
    assert found == deploy_says(paths)
    assert bool(found) == (change != "nothing")


STATES = [
    {"LoadState": load, "ActiveState": active, "UnitFileState": file, "NeedDaemonReload": reload}
    for load, active, file, reload in product(
        ("loaded", "masked", "not-found"),
        ("active", "inactive", "failed"),
        ("enabled", "disabled", "masked", "static", ""),
        ("no", "yes"),
    )
]
UNITS = [
    Unit("a.service", startup, running)
    for startup in ("enabled", "disabled", "masked", None)
    for running in (True, False, None)
]


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_drift_and_deploy_agree_on_units(unit: Unit) -> None:
    for state in STATES:
        seen = UnitState(
            state["LoadState"], state["ActiveState"], "", state["UnitFileState"], state["NeedDaemonReload"] == "yes"
        )
        touched = bool(list(_steps(unit, seen, frozenset())))
        # A reload concerns the manager, whatever the unit should be.
        reloaded = seen.needs_reload and unit.startup != "masked"
        entry = {"name": unit.name, "startup": unit.startup, "running": unit.running}
        assert bool(list(drift._unit(entry, state))) == (touched or reloaded), state


# ---- the program as a whole


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree that plays a host: one managed file, one sysctl, one unit, one package; nothing has drifted."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "systemctl": f"cat {tmp_path}/units",
        "dpkg-query": f"cat {tmp_path}/packages",
    }.items():
        put(programs, name, f"#!/bin/sh\n{text}\n").chmod(0o755)
    put(tmp_path, "units", "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n")
    put(tmp_path, "packages", "chrony\t4.6\tii \n")
    put(tmp_path, "etc/a.conf", "a").chmod(0o644)
    put(tmp_path, "proc/sys/vm/swappiness", "10\n")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    expected = document(
        expectation(
            paths=[File(path="/etc/a.conf", content=b"a", **ME)],
            units=[Unit("chrony.service")],
            packages=["chrony"],
            sysctl={"vm.swappiness": 10},
        ),
        [],
    )
    put(tmp_path, "state/expected.json", json.dumps(expected))
    (tmp_path / "textfiles").mkdir()
    yield tmp_path


def look(host: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--root", str(host), "--directory", str(host / "state"), "--textfiles", str(host / "textfiles"), *more]
    return subprocess.run(
        [sys.executable, "-I", str(PROGRAM), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def result(host: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((host / "state/result.json").read_text())
    return found


def test_a_host_as_it_was_deployed(host: Path) -> None:
    ran = look(host)
    assert (ran.returncode, ran.stdout) == (0, "everything is as it was deployed\n"), ran.stderr
    assert result(host)["drift"] == []
    assert (host / "state/result.json").stat().st_mode & 0o777 == 0o600
    metrics = (host / "textfiles/rtinfra_drift.prom").read_text()
    assert 'rtinfra_drift_items{kind="sysctl"} 0' in metrics
    assert "rtinfra_drift_found{" not in metrics


def test_every_drift_is_told_by_name_everywhere(host: Path) -> None:
    put(host, "proc/sys/vm/swappiness", "60\n")
    (host / "etc/a.conf").chmod(0o666)
    put(host, "units", "LoadState=loaded\nActiveState=failed\nUnitFileState=disabled\nNeedDaemonReload=yes\n")
    put(host, "packages", "chrony\t4.6\trc \n")
    ran = look(host)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.splitlines() == [
        "file /etc/a.conf: expected mode 0644, found mode 0666",
        "unit chrony.service: expected enabled, found disabled",
        "unit chrony.service: expected active, found failed",
        "unit chrony.service: expected its file as systemd has read it, found changed since",
        "package chrony: expected installed, found not installed",
        "sysctl vm.swappiness: expected 10, found 60",
        "6 things are not as they were deployed",
    ]
    assert [f"{one['kind']} {one['name']}" for one in result(host)["drift"]][-1] == "sysctl vm.swappiness"
    metrics = (host / "textfiles/rtinfra_drift.prom").read_text()
    assert 'rtinfra_drift_items{kind="unit"} 3' in metrics
    assert 'rtinfra_drift_found{kind="sysctl",name="vm.swappiness"} 1' in metrics
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_marker_is_there_exactly_while_there_is_drift(host: Path) -> None:
    """It makes the deploy that puts things back be followed by a new check."""
    marker = host / "run/pending/drift-check-soon"
    put(host, "proc/sys/vm/swappiness", "60\n")
    look(host, "--marker", str(marker))
    assert marker.exists()
    put(host, "proc/sys/vm/swappiness", "10\n")
    look(host, "--marker", str(marker))
    assert not marker.exists()


def test_what_a_deploy_asks_for_is_only_what_it_can_put_back(host: Path) -> None:
    put(host, "proc/sys/vm/swappiness", "60\n")
    (host / "etc/a.conf").chmod(0o666)
    ran = look(host, "--live")
    assert ran.stdout == "sysctl\tsysctl vm.swappiness: expected 10, found 60\n"
    assert not (host / "state/result.json").exists(), "a deploy that only looks leaves nothing behind"
    state = parse_files_state(["@@drift", *ran.stdout.splitlines()])
    assert state.drift == (("sysctl", "sysctl vm.swappiness: expected 10, found 60"),)


def test_the_files_fact_asks_only_where_there_is_a_checker() -> None:
    """On a bare host the section is empty and nothing fails; without `runtime` nobody asks at all."""
    assert DRIFT_CHECKER not in Files().command(["/etc/hosts"]).get_raw_value()
    fact = Files()
    script = fact.command(["/etc/hosts"], runtime=True).get_raw_value()
    assert f"{DRIFT_CHECKER} --live" in script
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert fact.process(ran.stdout.split("\n")).drift == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda host: (host / "state/expected.json").unlink(), "expected.json"),
        (lambda host: put(host, "state/expected.json", "{}"), "another format; run the deploy again"),
        (lambda host: put(host, "bin/systemctl", "#!/bin/sh\necho no bus >&2; exit 1\n"), "systemctl: no bus"),
        (lambda host: put(host, "units", ""), "systemctl told about 0 of 1 units"),
    ],
)
def test_what_cannot_be_looked_at_is_an_error_and_no_result(
    host: Path, change: Callable[[Path], object], said: str
) -> None:
    change(host)
    ran = look(host)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert not (host / "state/result.json").exists(), "an old result must not look fresh"


def test_secrets_stay_secret(host: Path) -> None:
    secret = File(path="/etc/key", content=b"hunter2", mode="0600", secret=True, **ME)
    put(host, "etc/key", "another").chmod(0o600)
    expected = json.dumps(document(expectation(paths=[secret]), []))
    assert "hunter2" not in expected
    put(host, "state/expected.json", expected)
    put(host, "units", "")
    ran = look(host)
    assert ran.stdout.startswith("file /etc/key: expected the content that was deployed, found another content")
    everything = (
        ran.stdout
        + ran.stderr
        + "".join(path.read_text() for path in (host / "state/result.json", host / "textfiles/rtinfra_drift.prom"))
    )
    assert "hunter2" not in everything and "another\n" not in everything
    assert secret.sha256 not in everything, "of a short secret a hash could be tried out"


@pytest.mark.parametrize(("delivered", "told"), [("3", "0-1, but delivered to 3"), ("1", None), ("", None)])
def test_an_interrupt_that_goes_elsewhere_than_it_was_sent(tmp_path: Path, delivered: str, told: str | None) -> None:
    """Where it may go is right, and the card delivers it to an isolated core."""
    path = put(tmp_path, "proc/irq/9/smp_affinity_list", "0-1\n")
    put(tmp_path, "proc/irq/9/effective_affinity_list", f"{delivered}\n")
    found = live(tmp_path, paths="/proc/irq/[0-9]*/smp_affinity_list", value="0-1", form="interrupt")
    assert found == ([(f"/{path.relative_to(tmp_path)}", told)] if told else [])


# ---- folders that another account can write ---------------------------------------------------------------


@pytest.mark.parametrize("name", [".rtinfra_drift.prom.new", "rtinfra_drift.prom"])
def test_a_link_in_the_folder_of_metrics_leads_nowhere(tmp_path: Path, name: str) -> None:
    """The account of the preflight can write there: it pointed root at expected.json, and at markers of restarts."""
    victim, folder = tmp_path / "expected.json", tmp_path / "textfiles"
    victim.write_text("what is expected")
    folder.mkdir(mode=0o777)
    (folder / name).symlink_to(victim)
    drift.replace(folder / "rtinfra_drift.prom", "metrics\n", 0o644)
    assert victim.read_text() == "what is expected"
    assert not (folder / "rtinfra_drift.prom").is_symlink()
    assert (folder / "rtinfra_drift.prom").read_text() == "metrics\n"
    assert [path.name for path in folder.iterdir()] == ["rtinfra_drift.prom"]


def test_a_folder_of_metrics_that_became_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "textfiles").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError):
        drift.replace(tmp_path / "textfiles" / "rtinfra_drift.prom", "metrics\n", 0o644)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_pipe_or_a_link_is_never_read_as_the_file_that_it_was(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert drift._sha256(tmp_path / "file")
    assert not drift._sha256(tmp_path / "pipe")
    assert not drift._sha256(tmp_path / "link")
