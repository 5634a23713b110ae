"""`rtinfra stack`: what it sends to hosts, what it reads from the answers, and what it tells people."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from roles.catalogue import STARTING_ORDER
from roles.fleet import load_hosts
from roles.host import HostConfig
from rtinfra.config import Fleet
from rtinfra.facts import output_sections
from rtinfra.paths import PROJECT
from rtinfra.quadlet import DATA_ROOT, Container
from rtinfra.stack import cli, run, scripts, surroundings
from rtinfra.stack_programs import Program, programs_of
from tests.unit.stack_site import container, program, write_inventory

UNITS = """Id=jaeger.service
ActiveState=active
SubState=running
ActiveEnterTimestamp=Fri 2026-11-20 12:00:00 UTC
MemoryCurrent=104857600
NRestarts=0

Id=prometheus.service
ActiveState=failed
SubState=failed
ActiveEnterTimestamp=
MemoryCurrent=[not set]
NRestarts=4
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return write_inventory(tmp_path)


@pytest.fixture
def fleet(inventory: Path) -> Fleet[HostConfig]:
    return load_hosts(PROJECT, inventory)


# --- which programs there are


def test_what_stores_starts_before_what_shows_and_both_before_what_sends() -> None:
    names = [role.name for role in STARTING_ORDER]
    for earlier, later in (
        ("garage", "loki"),
        ("prometheus", "grafana"),
        ("elasticsearch", "kibana"),
        ("grafana", "gateways"),
        ("gateways", "agents"),
    ):
        assert names.index(earlier) < names.index(later)


def test_programs_follow_from_the_settings_without_secrets_or_images(fleet: Fleet[HostConfig]) -> None:
    found = programs_of(fleet, fleet.hosts["backend"])
    assert [one.name for one in found] == ["jaeger", "prometheus", "otel-gateway-1"]
    jaeger = found[0]
    assert jaeger.unit == "jaeger.service"
    assert jaeger.directories == (f"{DATA_ROOT}/jaeger",)
    assert jaeger.ready is not None and jaeger.ready.startswith("http://192.0.2.2:")
    agents = programs_of(fleet, fleet.hosts["robot"])
    assert {one.name for one in agents} == {"rtinfra-otelcol", "prometheus-node-exporter"}
    assert all(one.ready for one in agents)
    assert all(not one.directories for one in agents)


def test_files_that_hold_a_stand_in_are_not_compared(fleet: Fleet[HostConfig]) -> None:
    files = [file for host in fleet.hosts.values() for one in programs_of(fleet, host) for file in one.config]
    assert files
    assert not [file.path for file in files if file.secret or b"0" * 64 in file.content]


def test_what_stores_starts_first_and_stops_last() -> None:
    parts = (program("agent", "agents", "robot"), program("gateway", "gateways"), program("jaeger"))
    assert [[one.name for one in wave] for wave in run.waves(parts)] == [["jaeger"], ["gateway"], ["agent"]]
    assert [[one.name for one in wave] for wave in run.waves(parts, down=True)] == [["agent"], ["gateway"], ["jaeger"]]


def test_one_host_takes_one_round_trip() -> None:
    parts = (program("gateway", "gateways"), program("jaeger"), program("loki", "loki"))
    (wave,) = run.waves(parts)
    assert [one.name for one in wave] == ["jaeger", "loki", "gateway"]
    (wave,) = run.waves(parts, down=True)
    assert [one.name for one in wave] == ["gateway", "loki", "jaeger"]
    assert run.waves(()) in ([], [()])


# --- what hosts are told and what they answer


def test_state_of_programs() -> None:
    text = f"""@@units
{UNITS}
@@containers
jaeger localhost/rtinfra/jaeger@sha256:{"ab" * 32}
@@labels
jaeger 2.13
@@ready
@http GET http://192.0.2.2:1/jaeger 200 3 1

@http GET http://192.0.2.2:1/prometheus 0 0 1

"""
    good, bad = scripts.parse_status(text, [program("jaeger"), program("prometheus", "prometheus")])
    assert (good.image, good.state, good.memory_mb, good.ready) == ("jaeger 2.13 abababababab", "active", 100.0, True)
    assert good.ok
    assert (bad.image, bad.state, bad.memory_mb, bad.restarts, bad.ready) == ("", "failed", None, 4, False)
    assert not bad.ok


def test_version_of_a_plain_service_is_that_of_its_own_package_only() -> None:
    exporter = Program("h", "agents", "exporter", "exporter.service", packages=("prometheus-node-exporter",))
    log = Program("h", "alertmanager", "log", "log.service")
    text = "@@packages\nexporter prometheus-node-exporter 1.9.0-1\nlog python3-minimal 3.13\n"
    first, second = scripts.parse_status(text, [exporter, log])
    assert first.image == "prometheus-node-exporter 1.9.0-1"
    assert second.image == ""
    assert first.state == "unknown"
    assert not first.ok


def test_a_host_that_says_nothing_has_nothing_running() -> None:
    (status,) = scripts.parse_status("", [program("jaeger")])
    assert not status.ok


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_scripts_are_valid_shell(verb: scripts.Verb, fleet: Fleet[HostConfig]) -> None:
    for host in fleet.hosts.values():
        own = programs_of(fleet, host)
        for script in (
            scripts.action_script(verb, own),
            scripts.status_script(own),
            scripts.sizes_script(own),
            scripts.reset_script(own),
            surroundings.script(own),
        ):
            assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


def test_failed_starts_come_with_their_journal() -> None:
    text = "@@jaeger.service\nok\n@@loki.service\nJob for loki.service failed.\nfailed\npermission denied\n"
    good, bad, silent = scripts.parse_action(text, [program("jaeger"), program("loki"), program("tempo")])
    assert good.ok and not good.journal
    assert not bad.ok and bad.journal[-1] == "permission denied"
    assert not silent.ok


def test_sizes_of_data() -> None:
    text = f"2048\t{DATA_ROOT}/jaeger\n"
    there, absent = scripts.parse_sizes(text, [program("jaeger"), program("loki")])
    assert (there.directory, there.size_mb) == (f"{DATA_ROOT}/jaeger", 2.0)
    assert absent.size_mb is None


# --- reset


def shims(tmp_path: Path) -> dict[str, str]:
    """Programs of the same names that only note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("systemctl", "journalctl"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n')
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_reset_empties_exactly_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    monkeypatch.setattr(scripts, "DATA_ROOT", str(root))
    monkeypatch.setattr("rtinfra.stack_programs.DATA_ROOT", str(root))
    (root / "jaeger" / "deep").mkdir(parents=True)
    (root / "jaeger" / "deep" / "block").write_text("x")
    (root / "jaeger" / ".hidden").write_text("x")
    (root / "jaeger" / "logs").mkdir()
    (root / "jaeger" / "logs" / "old").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (root / "jaeger" / "link").symlink_to(outside)
    (root / "other").mkdir()
    (root / "other" / "block").write_text("x")
    one = program("jaeger", kept=(f"{root}/jaeger/logs",))
    script = scripts.reset_script([one])
    ended = subprocess.run(["sh", "-c", script], env=shims(tmp_path), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in (root / "jaeger").rglob("*")) == ["logs"]
    assert (outside / "precious").exists()
    assert (root / "other" / "block").exists()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "systemctl stop jaeger.service"
    assert calls[-1] == "systemctl start jaeger.service"
    assert scripts.parse_action(ended.stdout, [one])[0].ok


def test_what_does_not_stop_keeps_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    monkeypatch.setattr(scripts, "DATA_ROOT", str(root))
    monkeypatch.setattr("rtinfra.stack_programs.DATA_ROOT", str(root))
    (root / "jaeger").mkdir(parents=True)
    (root / "jaeger" / "block").write_text("x")
    environment = shims(tmp_path)
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho 'Job timed out.' >&2\nexit 1\n")
    one = program("jaeger")
    ended = subprocess.run(
        ["sh", "-c", scripts.reset_script([one])], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert scripts.parse_action(ended.stdout, [one]) == [
        scripts.Outcome("backend", "jaeger", False, ("Job timed out.",))
    ]
    assert (root / "jaeger" / "block").exists()


@given(st.sampled_from(["/", "..", "../etc", "a/../..", "", " ", "-x", "a b", "$(x)", "/etc"]))
def test_reset_refuses_directories_elsewhere(name: str) -> None:
    odd = Container(**{**vars(container("jaeger")), "data": {name: "/data"}})
    with pytest.raises(ValueError, match="is not a directory below"):
        scripts.reset_script([Program("h", "jaeger", "jaeger", "jaeger.service", odd)])


# --- the commands


@pytest.fixture
def hosts_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder whose files are what hosts answer; a host without one does not answer."""
    folder = tmp_path / "answers"
    folder.mkdir()
    program_ = tmp_path / "bin" / "ssh"
    program_.parent.mkdir()
    program_.write_text(
        "#!/bin/sh\n"
        'case "$*" in *"-O exit"*) exit 0 ;; esac\n'
        f'for word; do if [ -f {folder}/"$word" ]; then cat >>{folder}/sent; cat {folder}/"$word"; exit 0; fi; done\n'
        "echo 'Connection refused' >&2; exit 255\n"
    )
    program_.chmod(0o755)
    monkeypatch.setenv("PATH", str(program_.parent), prepend=":")
    # What they answer is written before the run that asks.
    monkeypatch.setattr(output_sections, "unguessable_marker", lambda: output_sections.MARKER)
    return folder


def test_a_journal_cannot_say_that_another_program_works(
    inventory: Path, hosts_say: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_sections, "unguessable_marker", lambda: "@@f00d:")
    journal = "failed\n @@jaeger.service\n ok\n"
    (hosts_say / "backend").write_text(f"@@f00d:jaeger.service\n{journal}@@f00d:prometheus.service\nok\n")
    ran = stack("restart", "jaeger", "prometheus", "--inventory", str(inventory))
    assert ran.exit_code == 1, ran.output
    assert "echo @@f00d:$unit" in (hosts_say / "sent").read_text()


def stack(*words: str, answer: str = "") -> Any:
    return CliRunner().invoke(cli.app, list(words), input=answer)


def test_ps_names_what_does_not_run(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text(f"@@units\n{UNITS}\n")
    ran = stack("ps", "jaeger", "prometheus", "--inventory", str(inventory), "--json")
    assert ran.exit_code == 1
    found = {one["program"]: one for one in json.loads(ran.stdout)["programs"]}
    assert found["prometheus"]["state"] == "failed"
    table = stack("ps", "jaeger", "--inventory", str(inventory))
    assert "backend" in table.output and "jaeger" in table.output


def test_a_host_that_does_not_answer_is_no_success(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text("@@jaeger.service\nok\n@@prometheus.service\nok\n@@otel-gateway-1.service\nok\n")
    ran = stack("up", "--inventory", str(inventory))
    assert ran.exit_code == 2
    assert "backend  jaeger: started" in ran.output
    assert "no SSH server answers" in ran.output


def test_a_failed_start_shows_the_journal(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text("@@jaeger.service\nfailed\nbind: address already in use\n")
    ran = stack("restart", "jaeger", "--inventory", str(inventory))
    assert ran.exit_code == 1
    assert "bind: address already in use" in ran.output


def test_reset_asks_and_names_what_it_deletes(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text(f"2048\t{DATA_ROOT}/jaeger\n@@jaeger.service\nok\n")
    refused = stack("reset", "jaeger", "--inventory", str(inventory), answer="yes\n")
    assert f"{DATA_ROOT}/jaeger  2.0 MB" in refused.output
    assert "nothing was deleted" in refused.output
    assert refused.exit_code == 1
    assert "-delete" not in (hosts_say / "sent").read_text()
    agreed = stack("reset", "jaeger", "--inventory", str(inventory), answer="backend\n")
    assert agreed.exit_code == 0, agreed.output
    assert "-delete" in (hosts_say / "sent").read_text()


def test_reset_for_programs_asks_nothing_and_needs_a_yes(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text(f"2048\t{DATA_ROOT}/jaeger\n@@jaeger.service\nok\n")
    assert stack("reset", "jaeger", "--inventory", str(inventory), "--json").exit_code == 2
    ran = stack("reset", "jaeger", "--inventory", str(inventory), "--json", "--yes")
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["deleted"][0]["directory"] == f"{DATA_ROOT}/jaeger"


def test_agents_keep_nothing_that_reset_deletes(inventory: Path, hosts_say: Path) -> None:
    ran = stack("reset", "agents", "--inventory", str(inventory), "--yes")
    assert ran.exit_code == 2
    assert "keeps no data of its own" in ran.output


def test_environment_check_says_what_to_do(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text("@@disk\n/dev/vda1 1 1 1 97% /\n")
    ran = stack("env-check", "jaeger", "--inventory", str(inventory))
    assert ran.exit_code == 1
    assert "FAIL backend  disk space: 97 % used" in ran.output
    assert "what to do:" in ran.output


def test_logs_name_their_host(inventory: Path, hosts_say: Path) -> None:
    (hosts_say / "backend").write_text("2026-11-20 jaeger: started\n")
    ran = stack("logs", "jaeger", "--inventory", str(inventory), "-n", "5")
    assert ran.exit_code == 0
    assert ran.stdout == "backend | 2026-11-20 jaeger: started\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ps", "jager"], "no program jager; there are"),
        (["ps", "--host", "nobody"], "no host nobody in the inventory"),
    ],
)
def test_wrong_names_are_told(inventory: Path, words: list[str], said: str) -> None:
    ran = stack(*words, "--inventory", str(inventory))
    assert ran.exit_code == 2
    assert said in ran.output


@pytest.mark.parametrize("command", ["up", "down", "restart", "ps", "logs", "env-check", "reset"])
def test_every_command_explains_itself(command: str) -> None:
    ran = stack(command, "--help")
    assert ran.exit_code == 0
    assert f"rtinfra stack {command}" in ran.output
