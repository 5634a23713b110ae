"""The command lines: `rtinfra preflight`, `rtinfra notify test`, `rtinfra wheels`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rtinfra.cli import app
from rtinfra.paths import PROJECT

SHIPPED = yaml.safe_load((PROJECT / "group_data" / "preflight.yaml").read_text())


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_help_is_that_of_the_program_on_the_hosts() -> None:
    code, output = run("preflight", "--help")
    assert code == 0
    for option in ("--settings", "--json", "--output-json", "--output-prom", "--no-metrics", "--no-alerts"):
        assert option in output
    assert "0 all passed, 1 passed with warnings, 2 not ready, 3 no verdict" in output


def test_settings_that_check_nothing_are_no_verdict(tmp_path: Path) -> None:
    """As shipped, away from a host that says what its application is."""
    code, output = run("preflight", "--no-alerts", "--state", str(tmp_path))
    assert code == 3 and "ask for no check" in output


def test_settings_of_the_project_run_here(tmp_path: Path) -> None:
    path, prom = tmp_path / "preflight.yaml", tmp_path / "x.prom"
    checks = SHIPPED["preflight"]["checks"] | {"variables": [{"name": "PATH"}]}
    path.write_text(yaml.safe_dump({"preflight": SHIPPED["preflight"] | {"checks": checks}}))
    (tmp_path / "all.yaml").write_text("telemetry: {environment: dev}\n")
    words = ["--no-alerts", "--state", str(tmp_path), "--output-prom", str(prom), "--settings", str(path)]
    code, output = run("preflight", *words)
    assert code == 0, output
    assert "PASS  variables" in output and 'rtinfra_preflight_runs_total{env="paper"} 1.0' in prom.read_text()


def test_a_state_directory_that_cannot_be_made_is_not_ready_and_said(tmp_path: Path) -> None:
    """Also with messages on, whose record cannot be kept either. Never a traceback, whose exit code means warnings."""
    path, blocked = tmp_path / "preflight.yaml", tmp_path / "file"
    blocked.write_text("")
    checks = SHIPPED["preflight"]["checks"] | {"variables": [{"name": "PATH"}]}
    path.write_text(yaml.safe_dump({"preflight": SHIPPED["preflight"] | {"checks": checks, "environment": "paper"}}))
    prom = str(tmp_path / "x.prom")
    code, output = run("preflight", "--state", str(blocked / "state"), "--output-prom", prom, "--settings", str(path))
    assert code == 2, output
    assert "results cannot be written" in output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("preflight: {environment: production}", "preflight.environment"),
        (yaml.safe_dump(SHIPPED), "set preflight.environment to paper, staging or prod"),
        ("other: 1", "has no section preflight"),
        ("preflight: [", "are wrong"),
    ],
)
def test_wrong_settings_are_no_verdict(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "preflight.yaml"
    path.write_text(text)
    code, output = run("preflight", "--settings", str(path))
    assert code == 3 and told in output


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    for name in ("none.yaml", "none.json"):
        code, output = run("preflight", "--settings", str(tmp_path / name))
        assert code == 3 and name in output


def test_a_trial_without_channels_is_wrong_usage() -> None:
    code, output = run("notify", "test")
    assert code == 2 and "no channel is configured" in output


def test_a_trial_with_a_channel_without_credential(tmp_path: Path) -> None:
    path = tmp_path / "preflight.yaml"
    notify = SHIPPED["preflight"]["notify"] | {"slack": {"url_secret": "nowhere"}}
    section = SHIPPED["preflight"] | {"notify": notify, "environment": "paper"}
    path.write_text(yaml.safe_dump({"preflight": section}))
    code, output = run("notify", "test", "--settings", str(path))
    assert code == 2 and "the channel slack is configured and has no credential" in output
