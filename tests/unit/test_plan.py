"""Plans and runs as values and as commands; the process that works on hosts is a small program here."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from rtinfra.cli import app
from rtinfra.plan import cli, display, run_record, show, worker_process
from rtinfra.plan.model import HOST_ITSELF, HostPlan, Plan, PlanError

SYSCTL = {
    "kind": "file",
    "name": "/etc/sysctl.d/60.conf",
    "text": "content",
    "consequence": False,
    "content": "shown",
    "diff": "--- a\n+++ b\n-vm.x = 1\n+vm.x = 2",
}
RESTART = {
    "kind": "unit",
    "name": "a.service",
    "text": "restart",
    "consequence": True,
    "because": "/etc/sysctl.d/60.conf changes",
}
HOST: Mapping[str, Any] = {
    "operations": [{"name": "rt | files", "changes": [SYSCTL]}, {"name": "units", "changes": [RESTART]}],
    "all_operations": ["packages", "rt | files", "units"],
    "settings": "5e",
    "fingerprints": {
        name: {"observed": f"o-{name}", "wanted": f"w-{name}"}
        for name in ("packages", "rt | files", "units", HOST_ITSELF)
    },
}
QUIET = {**HOST, "operations": []}


def plan_of(host: Mapping[str, Any] = HOST) -> Plan:
    return Plan("2026-01-01T00:00:00Z", "inventory", {"robot": HostPlan.from_json(host)})


class TestModel:
    def test_counts(self) -> None:
        host = HostPlan.from_json(HOST)
        assert (host.changes, host.consequences, host.reboot) == (1, 1, None)
        assert [operation.is_consequence for operation in host.operations] == [False, True]

    def test_a_saved_plan_comes_back_and_is_nobody_elses(self, tmp_path: Path) -> None:
        path = tmp_path / "saved"
        plan_of().save(path)
        assert path.stat().st_mode & 0o777 == 0o600
        loaded = Plan.load(path)
        assert loaded == plan_of()
        loaded.require_same(plan_of())

    def test_hashes_are_in_saved_plans_only(self) -> None:
        assert "fingerprints" not in json.dumps(plan_of().to_json())

    def test_what_has_changed_since_is_named(self) -> None:
        host = HostPlan.from_json(HOST)
        now = replace(
            host,
            settings="other",
            fingerprints={**host.fingerprints, "packages": {"observed": "x", "wanted": "w-packages"}},
        )
        with pytest.raises(PlanError) as caught:
            plan_of().require_same(Plan("later", "inventory", {"robot": now}))
        assert "robot: its settings are not those" in caught.value.message
        assert "robot: packages: what is on the host has changed since" in caught.value.message
        with pytest.raises(PlanError, match="no such host"):
            plan_of().require_same(Plan("later", "inventory", {}))

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "made": "", "inventory": "", "hosts": 5}'],
    )
    def test_what_is_no_plan_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "p").write_text(text)
        with pytest.raises(PlanError):
            Plan.load(tmp_path / "p")

    def test_a_change_of_no_known_kind_is_refused_without_being_shown(self, tmp_path: Path) -> None:
        path = tmp_path / "p"
        plan_of().save(path)
        path.write_text(path.read_text().replace('"kind": "file"', '"kind": "planted"'))
        with pytest.raises(PlanError, match="is no saved plan: a change") as error:
            Plan.load(path)
        assert "planted" not in str(error.value)

    @settings(deadline=None)
    @given(
        st.recursive(
            st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        )
    )
    @pytest.mark.slow
    def test_no_json_is_too_odd(self, tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
        path = tmp_path_factory.getbasetemp() / "odd"
        path.write_text(json.dumps({"format": 1, "made": "", "inventory": "", "hosts": value}))
        try:
            Plan.load(path)
        except PlanError as error:
            assert error.next_step

    def test_for_people(self) -> None:
        lines = [line.plain for line in show.lines(plan_of())]
        assert lines[0] == "robot: 1 change, 1 consequence; reboot needed: no"
        assert "    ~ file /etc/sysctl.d/60.conf: content" in lines
        assert "        +vm.x = 2" in lines
        assert "  units (only follows from the above)" in lines
        assert "    > unit a.service: restart; /etc/sysctl.d/60.conf changes" in lines
        assert not any("vm.x" in line.plain for line in show.lines(plan_of(), diffs=False))


# Tells what the test says, then waits for the word to go on, and tells the rest.
WORKER = """
import json, sys, time
before, after, request = json.loads(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.stdin.readline())
for event in before:
    print(json.dumps(event), flush=True)
if request["apply"] and sys.stdin.readline().strip() == "go":
    for event in after:
        if event == "sleep":
            time.sleep(60)
        print(json.dumps(event), flush=True)
"""


def finished(operation: str, status: str) -> dict[str, Any]:
    changes = [SYSCTL] if status == "changed" else []
    return {
        "event": "finished",
        "host": "robot",
        "operation": operation,
        "status": status,
        "seconds": 0.5,
        "changes": changes,
    }


READY = {"event": "ready", "question": None}
PLANNED = {"event": "planned", "hosts": {"robot": HOST}, "failed": []}
GOOD = [
    {"event": "started", "host": "robot", "operation": "packages"},
    finished("packages", "unchanged"),
    {"event": "log", "level": "info", "text": "[robot] Success"},
    finished("rt | files", "changed"),
    finished("units", "changed"),
    {"event": "done", "failed": []},
]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program in the worker's place and run records into a folder of the test."""
    monkeypatch.setattr(run_record, "RUNS", tmp_path / "runs")

    def tells(*before: object, after: list[object] | None = None) -> None:
        words = (sys.executable, "-c", WORKER, json.dumps([READY, *before]), json.dumps(after or []))
        monkeypatch.setattr(worker_process, "_WORKER", words)

    return tells


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


class TestPlanCommand:
    def test_changes(self, worker, tmp_path: Path) -> None:
        worker(PLANNED)
        ended = run("plan", "--json", "--output", str(tmp_path / "saved"))
        assert ended.exit_code == 2
        data = json.loads(ended.stdout)
        assert data["has_changes"]
        assert data["hosts"]["robot"]["reboot"] == {"needed": False, "reasons": [], "added": [], "removed": []}
        assert Plan.load(tmp_path / "saved").hosts["robot"].settings == "5e"

    def test_no_changes(self, worker) -> None:
        worker({**PLANNED, "hosts": {"robot": QUIET}})
        ended = run("plan")
        assert (ended.exit_code, ended.stdout) == (0, "robot: no changes; reboot needed: no\n")

    @pytest.mark.parametrize(
        ("event", "text"),
        [
            ({"event": "wrong", "text": "hosts.yaml:3: no"}, "hosts.yaml:3"),
            ({"event": "refused", "text": "robot is refused", "detail": ""}, "robot is refused"),
        ],
    )
    def test_errors_are_never_changes(self, worker, event: dict[str, str], text: str) -> None:
        worker(event)
        ended = run("plan")
        assert ended.exit_code == 1
        assert text in ended.stderr
        assert run("plan", "--nonsense").exit_code == 1
        assert run("plan", "--help").exit_code == 0

    def test_a_host_that_cannot_be_asked_is_an_error(self, worker) -> None:
        worker(
            {"event": "log", "level": "error", "text": "[other] Connection refused"}, {**PLANNED, "failed": ["other"]}
        )
        ended = run("plan")
        assert ended.exit_code == 1
        assert "Connection refused" in ended.stderr

    def test_a_password_is_asked_for_on_behalf_of_the_worker(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """It has no terminal. What is typed goes to it and nowhere else."""
        asked = {"event": "ready", "question": "Password of pilot for sudo: "}
        program = (
            "import json; from pathlib import Path; input(); "
            f"print(json.dumps({asked!r}), flush=True); "
            f"Path({str(tmp_path / 'told')!r}).write_text(json.loads(input())); "
            f"print(json.dumps({ {**PLANNED, 'hosts': {'robot': QUIET}}!r}), flush=True); input()"
        )
        monkeypatch.setattr(worker_process, "_WORKER", (sys.executable, "-c", program))
        questions: list[str] = []
        monkeypatch.setattr(worker_process, "ask_on_terminal", lambda text: questions.append(text) or 'it\'s "x"')
        ended = run("plan")
        assert ended.exit_code == 0, ended.output
        assert questions == ["Password of pilot for sudo: "]
        assert (tmp_path / "told").read_text() == 'it\'s "x"'
        assert 'it\'s "x"' not in ended.output

    def test_a_worker_that_ends_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        program = (sys.executable, "-c", "input(); raise SystemExit('out of memory')")
        monkeypatch.setattr(worker_process, "_WORKER", program)
        ended = run("plan")
        assert ended.exit_code == 1
        assert "out of memory" in ended.stderr


class TestApplyCommand:
    def record(self, tmp_path: Path) -> Mapping[str, Any]:
        (path,) = (tmp_path / "runs").glob("*.json")
        data: Mapping[str, Any] = json.loads(path.read_text())
        return data

    def test_a_good_run(self, worker, tmp_path: Path) -> None:
        worker(PLANNED, after=GOOD)
        ended = run("apply", "--yes", "--json")
        assert ended.exit_code == 0, ended.output
        assert json.loads(ended.stdout) == self.record(tmp_path)
        data = self.record(tmp_path)
        assert (data["outcome"], data["hosts"]["robot"]["changed"], data["hosts"]["robot"]["seconds"]) == ("ok", 2, 1.5)
        assert "vm.x" not in json.dumps(data)
        assert "robot: rt | files: changed" in ended.stderr

    def test_a_failed_host(self, worker, tmp_path: Path) -> None:
        after = [finished("packages", "failed"), {"event": "done", "failed": ["robot"]}]
        worker(PLANNED, after=after)
        ended = run("apply", "--yes")
        assert ended.exit_code == 1
        assert "rtinfra apply --host robot" in ended.stderr.replace("\n", " ")
        assert self.record(tmp_path)["outcome"] == "failed"

    def test_a_worker_that_dies_leaves_a_record(self, worker, tmp_path: Path) -> None:
        worker(PLANNED, after=[finished("packages", "unchanged")])
        assert run("apply", "--yes").exit_code == 1
        assert self.record(tmp_path)["outcome"] == "failed"

    def test_nothing_to_do(self, worker, tmp_path: Path) -> None:
        worker({**PLANNED, "hosts": {"robot": QUIET}})
        assert run("apply", "--yes").exit_code == 0
        assert self.record(tmp_path)["hosts"]["robot"]["unchanged"] == 3

    def test_nobody_to_ask(self, worker, tmp_path: Path) -> None:
        worker(PLANNED, after=GOOD)
        ended = run("apply")
        assert ended.exit_code == 2
        assert "--yes" in ended.stderr
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
    def test_somebody_is_asked(
        self, worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
    ) -> None:
        monkeypatch.setattr(cli, "_can_ask", lambda: True)
        worker(PLANNED, after=GOOD)
        ended = CliRunner().invoke(app, ["apply"], input=answer)
        assert ended.exit_code == code
        assert "file /etc/sysctl.d/60.conf: content" in ended.stderr
        assert (tmp_path / "runs").exists() == (code == 0)

    def test_a_plan_that_does_not_hold_is_refused(self, worker, tmp_path: Path) -> None:
        plan_of().save(tmp_path / "saved")
        drifted = {**HOST, "settings": "other"}
        worker({**PLANNED, "hosts": {"robot": drifted}}, after=GOOD)
        ended = run("apply", "--yes", "--plan", str(tmp_path / "saved"))
        assert ended.exit_code == 2
        assert "its settings are not those" in ended.stderr
        assert not (tmp_path / "runs").exists()
        worker(PLANNED, after=GOOD)
        assert run("apply", "--yes", "--plan", str(tmp_path / "saved")).exit_code == 0

    @pytest.mark.slow
    def test_interrupted(self, tmp_path: Path) -> None:
        """Ctrl-C ends the worker too, and the record says so."""
        words = [sys.executable, "-c", WORKER, json.dumps([READY, PLANNED]), json.dumps([GOOD[0], "sleep"])]
        program = (
            "from pathlib import Path; from rtinfra.plan import run_record, worker_process; "
            "from rtinfra.cli import app; "
            f"worker_process._WORKER = {words!r}; run_record.RUNS = Path({str(tmp_path / 'runs')!r}); "
            "app(['apply', '--yes'])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 30
        while not list((tmp_path / "runs").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        assert self.record(tmp_path)["outcome"] == "interrupted"


class TestLive:
    TOTALS: ClassVar = {"robot": 3, "other": 3}

    def test_a_row_for_each_host_on_a_terminal(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        with display.watched(console, self.TOTALS) as view:
            for event in (*GOOD[:3], finished("rt | files", "failed"), None):
                view.tell(event)
        assert isinstance(console.file, io.StringIO)
        shown = console.file.getvalue()
        assert "2/3, 0 changed" in shown
        assert "failed: rt | files" in shown
        assert "waiting" in shown

    def test_a_sign_of_life_in_a_log(self) -> None:
        console = Console(file=io.StringIO(), width=100)
        with display.watched(console, self.TOTALS) as view:
            for event in (GOOD[0], {"event": "log", "level": "info", "text": "[robot] installing a"}, None):
                view.tell(event)
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue().splitlines() == [
            "[robot] installing a",
            "... robot: still working on packages: 0 s",
            "... other: waiting for other hosts: 0 s",
        ]


@pytest.mark.slow
class TestRealWorker:
    @pytest.fixture
    def inventory(self, tmp_path: Path) -> Path:
        """A host that cannot be reached."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
        (tmp_path / "known").touch()
        ssh = f"{{address: 127.0.0.1, port: 1, key: {tmp_path / 'key'}, known_hosts: {tmp_path / 'known'}}}"
        path = tmp_path / "hosts.yaml"
        path.write_text(f"hosts:\n  robot: {{groups: [], ssh: {ssh}}}\n")
        return path

    def test_no_answer_is_told_with_its_reason(self, inventory: Path) -> None:
        ended = run("plan", "--json", "--inventory", str(inventory))
        assert ended.exit_code == 1
        assert json.loads(ended.stdout)["hosts"] == {}
        assert "[robot]" in ended.stderr
        assert "No answer from robot" in ended.stderr

    def test_a_key_that_is_none_is_never_no_changes(self, inventory: Path, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("no key")
        ended = run("plan", "--inventory", str(inventory))
        assert ended.exit_code == 1
        assert str(tmp_path / "key") in ended.stderr.replace("\n", "")

    def test_wrong_input_is_refused_with_file_and_line(self, inventory: Path) -> None:
        inventory.write_text(inventory.read_text().replace("groups: []", "groups: [nobody]"))
        plan, apply = (run(command, "--inventory", str(inventory)) for command in ("plan", "apply"))
        assert (plan.exit_code, apply.exit_code) == (1, 2)
        assert "hosts.yaml:2" in plan.stderr
        assert run("plan", "--host", "nobody", "--inventory", str(inventory)).exit_code == 1


def test_exit_codes_are_documented() -> None:
    assert "0: nothing, 2: changes, 1: could not look" in (cli.plan.__doc__ or "")
    assert "1: a host failed, 2: refused, 130: interrupted" in (cli.apply.__doc__ or "")
