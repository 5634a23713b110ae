"""Latency: the program on the host, with a stand-in for systemd, and how its numbers are read."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from rtinfra.render import render
from tests.compliance.test_latency import Latency

# Ends at once; cyclictest's part leaves what it was told, and a result where it has to.
_SYSTEMD_RUN = """#!/bin/sh
printf '%s\\n' "$*" >>"$CALLS"
for word; do
    case $word in --json=*) [ -z "${FAILS-}" ] || exit 1; echo '{"thread": {}}' >"${word#--json=}" ;; esac
done
"""


@dataclass(frozen=True)
class Program:
    """The measuring program in a folder, and what it left there."""

    folder: Path

    def run(self, *words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "CALLS": str(self.folder / "calls")} | ({"FAILS": "1"} if fails else {})
        command = ["sh", str(self.folder / "latency"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)

    @property
    def before(self) -> Path:
        return self.folder / "before.json"

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path)
    text = render(
        "rt_tuning/latency.sh.j2",
        before=str(made.before),
        boot=str(tmp_path / "bin" / "boot"),
        slice="rt.slice",
        histogram_us=1000,
    ).decode()
    assert text.count("/sys/devices/system/cpu/isolated") == 1
    text = text.replace("/sys/devices/system/cpu/isolated", str(tmp_path / "isolated"))
    text = text.replace("/sys/fs/cgroup/cpuset.cpus.isolated", str(tmp_path / "partitioned"))
    text = text.replace("/run/rtinfra-latency", str(tmp_path / "result"))
    (tmp_path / "latency").write_text(text)
    (tmp_path / "latency").chmod(0o755)
    (tmp_path / "isolated").write_text("\n")
    (tmp_path / "bin").mkdir()
    for name, script in {"systemd-run": _SYSTEMD_RUN, "systemctl": "#!/bin/sh\n", "boot": "#!/bin/sh\n"}.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    return made


def test_one_thread_for_each_cpu_of_the_list(program: Program) -> None:
    done = program.run("measure", "2-3,5,7-9", "90", "10")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cyclictest"] == {"thread": {}}
    load, cyclictest = program.calls
    assert "hackbench" in load
    assert "-p 90 -t 6 -a 2-3,5,7-9 -i 1000 -D 10 " in cyclictest


def test_before_isolation_it_measures_once(program: Program) -> None:
    assert program.run("before", "2-3", "90", "10").returncode == 0
    kept = program.before.read_text()
    assert json.loads(kept)["load"] == "hackbench"
    calls = program.calls
    assert program.run("before", "2-3", "90", "10").returncode == 0
    assert program.calls == calls
    assert program.before.read_text() == kept


@pytest.mark.parametrize("how", ["isolated", "partitioned"])
def test_an_isolated_host_is_not_measured(program: Program, how: str) -> None:
    (program.folder / how).write_text("2-3\n")
    assert program.run("before", "2-3", "90", "10").returncode == 0
    assert not program.calls
    assert not program.before.exists()


def test_a_host_that_somebody_holds_is_not_put_under_load(program: Program) -> None:
    (program.folder / "bin" / "boot").write_text('#!/bin/sh\n[ "$1" = hold ] && echo "arm 2 is moving"; exit 1\n')
    done = program.run("before", "2-3", "90", "10")
    assert (done.returncode, done.stderr) == (0, "arm 2 is moving\n")
    assert not program.calls
    assert not program.before.exists()


def test_a_measurement_that_fails_is_no_failure_of_the_deploy(program: Program) -> None:
    done = program.run("before", "2-3", "90", "10", fails=True)
    assert done.returncode == 0
    assert "was not measured" in done.stderr
    assert not program.before.exists()
    assert not list(program.folder.glob("*.new"))
    assert not list(program.folder.glob("result*"))


def test_numbers_of_all_threads_together() -> None:
    threads = {
        "0": {"cycles": 100, "max": 40, "avg": 10.0, "histogram": {"10": 99, "40": 1}},
        "1": {"cycles": 100, "max": 20, "avg": 20.0, "histogram": {"20": 100}},
    }
    found = Latency.of({"thread": threads})
    assert (found.worst_us, found.average_us, found.cycles, found.jitter_us) == (40, 15.0, 200, 20)


def test_cycles_later_than_the_histogram_reaches_are_not_forgotten() -> None:
    thread = {"cycles": 100, "max": 9000, "avg": 200.0, "histogram": {"10": 90}}
    assert Latency.of({"thread": {"0": thread}}).jitter_us == 9000
