"""Reading what pyinfra did: its own JSON, a failed run without any, and long silence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rtinfra import deb, runner
from rtinfra.render import render, render_json

RESULTS = {
    "plan": [],
    "results": {
        "operations": [
            {"name": "base | files", "success": ["a"], "error": [], "no_change": []},
            {"name": "units", "success": [], "error": [], "no_change": ["a"]},
        ],
        "totals": {"hosts": 2, "success": 1, "error": 0, "no_change": 1},
        "failed_hosts": [],
    },
}


@pytest.fixture
def pyinfra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program in pyinfra's place; how pyinfra itself behaves is the end-to-end scenarios' business."""

    def write(body: str) -> None:
        program = tmp_path / "pyinfra"
        program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    return write


def test_counts(pyinfra) -> None:
    pyinfra(f"print({json.dumps(RESULTS)!r}); print('--> Connected', file=sys.stderr)")
    said: list[str] = []
    result = runner.deploy(say=said.append)
    assert result.ok
    assert (result.changed, result.unchanged) == (1, 1)
    assert result.changed_operations == ("base | files",)
    assert said == ["--> Connected"]


def test_a_run_that_ends_early_is_not_ok(pyinfra) -> None:
    pyinfra("print('--> pyinfra error: no', file=sys.stderr); sys.exit(1)")
    result = runner.deploy()
    assert not result.ok
    assert "pyinfra error" in result.log


def test_no_results_is_never_success(pyinfra) -> None:
    pyinfra("pass")
    assert not runner.deploy().ok


@pytest.mark.slow
def test_silence_is_broken(pyinfra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HEARTBEAT_SECONDS", 0.05)
    pyinfra("print('--> Starting operation: packages ', file=sys.stderr, flush=True); time.sleep(2)")
    said: list[str] = []
    result = runner.deploy(say=said.append)
    assert "Traceback" not in result.log, result.log
    assert any("still working on packages" in line and "usually" in line for line in said), said


def test_options_and_inventory_reach_pyinfra(pyinfra) -> None:
    pyinfra("print(sys.argv[1:], file=sys.stderr)")
    log = runner.deploy("inventory/lab.py", ["--limit", "rt1"]).log
    assert log == str(["--json", "-y", "--limit", "rt1", "inventory/lab.py", "deploy.py"])


def test_a_file_that_is_no_package(tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    path.write_text("no")
    with pytest.raises(ValueError, match="is not a Debian package"):
        deb.read(path)


def test_render_json_ends_with_a_line_break_and_keeps_the_order() -> None:
    assert render_json({"b": 1, "a": [2]}) == b'{\n  "b": 1,\n  "a": [\n    2\n  ]\n}\n'


def test_a_misspelt_name_in_a_template_is_an_error() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("base/limits.conf.j2", gruop="x")
