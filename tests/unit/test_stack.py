"""`rtinfra stack`: what it sends to hosts, what it reads from the answers, and what it tells people."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from roles.host import TELEMETRY_ROLES, HostConfig, load_hosts
from rtinfra.config import Fleet
from rtinfra.deb import LocalPackage
from rtinfra.images import ImageMissing
from rtinfra.limits import project_limits
from rtinfra.operations.managed import File
from rtinfra.paths import PROJECT
from rtinfra.programs import STARTING_ORDER, Program, programs_of
from rtinfra.quadlet import DATA_ROOT, Account, Container
from rtinfra.secrets import SecretError
from rtinfra.stack import check, cli, run, scripts

INVENTORY = """hosts:
  robot: {groups: [rt_hosts, lab, agents], ssh: {address: 192.0.2.1}}
  backend: {groups: [gateways, jaeger, prometheus], ssh: {address: 192.0.2.2}}
"""
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
    path = tmp_path / "hosts.yaml"
    path.write_text(INVENTORY)
    return path


@pytest.fixture
def fleet(inventory: Path) -> Fleet[HostConfig]:
    return load_hosts(PROJECT, inventory)


def container(name: str) -> Container:
    return Container(
        name=name,
        description=name,
        image=name,
        account=Account(f"rtinfra-{name}", 421),
        command=("run",),
        config_mount="/etc/x",
        data={name: "/data"},
        ready=f"http://192.0.2.2:1/{name}",
        memory_max="1G",
        cpu_quota="100%",
    )


def program(name: str, role: str = "jaeger", host: str = "backend", **more: Any) -> Program:
    made = container(name)
    return Program(host, role, name, f"{name}.service", made, made.ready, **more)


# --- which programs there are


def test_every_role_has_a_place_in_the_order() -> None:
    assert set(STARTING_ORDER) == set(TELEMETRY_ROLES)


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
@http GET http://192.0.2.2:1/jaeger 200 3

@http GET http://192.0.2.2:1/prometheus 0 0

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
            check.script(own),
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
    monkeypatch.setattr("rtinfra.programs.DATA_ROOT", str(root))
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
    monkeypatch.setattr("rtinfra.programs.DATA_ROOT", str(root))
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


# --- env-check


class Nothing:
    """Neither secrets nor images."""

    def read(self, name: str) -> bytes:
        raise SecretError(f"the secret {name} is not defined: put it there")

    def image(self, name: str) -> str:
        raise ImageMissing(f"there is no image {name}", "run `rtinfra images build`")

    def package(self, name: str) -> LocalPackage:
        raise ImageMissing(f"there is no package {name}", "build it")


class Everything(Nothing):
    """All of them."""

    def read(self, name: str) -> bytes:
        return b"value"

    def image(self, name: str) -> str:
        return f"{name}@sha256:ab"


def seen(**more: Any) -> check.Surroundings:
    empty: dict[str, Any] = {"hashes": {}, "changed": {}, "started": {}, "owners": {}, "used_percent": 10}
    return check.Surroundings(**{**empty, **more})


def results(fleet: Fleet[HostConfig], surroundings: check.Surroundings, local: Nothing) -> Mapping[str, check.Check]:
    host = fleet.hosts["backend"]
    own = programs_of(fleet, host)
    return {one.check: one for one in check.checks(host, own, own, surroundings, local, local)}


def deployed(fleet: Fleet[HostConfig]) -> dict[str, str]:
    return {file.path: file.sha256 for one in programs_of(fleet, fleet.hosts["backend"]) for file in one.config}


def test_all_is_well(fleet: Fleet[HostConfig]) -> None:
    found = results(fleet, seen(hashes=deployed(fleet)), Everything())
    assert not [one for one in found.values() if not one.ok]
    assert any(name.startswith("environment of otel-gateway-1") for name in found)


def test_every_failure_has_a_remedy(fleet: Fleet[HostConfig]) -> None:
    jaeger = fleet.hosts["backend"].config.jaeger
    assert jaeger is not None
    port = jaeger.ui_port
    surroundings = seen(owners={port: ("/system.slice/nginx.service",)}, used_percent=91)
    found = results(fleet, surroundings, Nothing())
    failed = {one.check: one for one in found.values() if not one.ok}
    assert {f"port {port}", "disk space", "image jaeger", "environment of otel-gateway-1"} <= failed.keys()
    assert all(one.remedy for one in failed.values())
    assert failed[f"port {port}"].found.endswith("taken by nginx.service")
    assert "images build" in failed["image jaeger"].remedy


def test_a_disk_is_full_from_where_the_alert_comes(fleet: Fleet[HostConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    full = round(100 * project_limits().disk_used_low_ratio)
    for used, is_enough in ((full - 1, True), (full, False)):
        assert results(fleet, seen(used_percent=used), Everything())["disk space"].ok is is_enough
    stricter = project_limits().model_copy(update={"disk_free_low_ratio": 0.5})
    monkeypatch.setattr(check, "project_limits", lambda: stricter)
    found = results(fleet, seen(used_percent=50), Everything())["disk space"]
    assert not found.ok and "above 50 %" in found.remedy


def test_a_port_that_is_ours(fleet: Fleet[HostConfig]) -> None:
    jaeger = fleet.hosts["backend"].config.jaeger
    assert jaeger is not None
    group = "/backends.slice/jaeger.service/libpod-payload-ab"
    found = results(fleet, seen(owners={jaeger.ui_port: (group,)}), Everything())
    assert found[f"port {jaeger.ui_port}"].ok
    assert found[f"port {jaeger.ui_port}"].found.endswith("ours")


def test_settings_that_were_not_deployed_or_not_started_with(fleet: Fleet[HostConfig]) -> None:
    hashes = deployed(fleet)
    path = next(path for path in hashes if "otel-gateway-1" in path)
    name = "environment of otel-gateway-1"
    changed = results(fleet, seen(hashes={**hashes, path: "0"}), Everything())[name]
    assert not changed.ok and "differs from the settings" in changed.found
    times = {"changed": {path: 200}, "started": {"otel-gateway-1.service": 100}}
    stale = results(fleet, seen(hashes=hashes, **times), Everything())[name]
    assert not stale.ok and "rtinfra stack restart otel-gateway-1 --host backend" in stale.remedy


def test_answer_to_the_environment_script() -> None:
    text = """@@hashes
abc  /etc/rtinfra/jaeger/config.yaml
@@changed
1700000000 /etc/rtinfra/jaeger/config.yaml
@@started
1700000100 jaeger.service
@@listeners
LISTEN 0      4096       192.0.2.2:16686      0.0.0.0:*    users:(("jaeger",pid=77,fd=9))
LISTEN 0      128             [::]:22            [::]:*    users:(("sshd",pid=5,fd=4),("systemd",pid=1,fd=90))
LISTEN 0      128                *:9999             *:*
@@groups
/proc/77/cgroup:0::/backends.slice/jaeger.service/libpod-payload-ab
/proc/5/cgroup:0::/system.slice/ssh.service
@@disk
Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda1         12000000 6000000   6000000      50% /
"""
    found = check.parse(text)
    assert found.hashes == {"/etc/rtinfra/jaeger/config.yaml": "abc"}
    assert found.changed == {"/etc/rtinfra/jaeger/config.yaml": 1700000000}
    assert found.started == {"jaeger.service": 1700000100}
    assert found.owners[16686] == ("/backends.slice/jaeger.service/libpod-payload-ab",)
    assert found.owners[22] == ("/system.slice/ssh.service", "")
    assert found.owners[9999] == ("",)
    assert found.used_percent == 50


def test_only_files_that_name_environment_or_tenants_are_compared(fleet: Fleet[HostConfig]) -> None:
    host = fleet.hosts["backend"]
    assert check.labelled(host, File(path="/a", content=b"environment: prod\n"))
    assert not check.labelled(host, File(path="/a", content=b"product: 1\n"))


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
    return folder


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
