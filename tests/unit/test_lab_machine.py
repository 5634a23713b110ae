"""A machine's life with stand-ins for QEMU and ssh: real processes, sockets and files, no virtual machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from rtinfra.commands import EXIT_INTERRUPTED
from rtinfra.lab import Firmware, accel, cli, image, machine, qemu, sshkeys, tools
from rtinfra.lab.errors import CommandFailed, KernelCrashed, LabError
from rtinfra.lab.machine import Machine, machines
from rtinfra.lab.qmp import Qmp, QmpError
from rtinfra.lab.spec import MachineSpec
from rtinfra.local import archive
from rtinfra.local.progress import Reporter

# Answers on the control socket and, as an ssh server would, on the forwarded ports.
FAKE_QEMU = """
import json, os, pathlib, re, socket, sys, threading
words = sys.argv[1:]
value = lambda option: words[words.index(option) + 1]
disk = pathlib.Path(re.search(r"file=([^,]*)", value("-drive"))[1])
if disk.read_text() == "broken":
    sys.exit("qemu: the disk is broken")
pathlib.Path(disk.with_name("arguments")).write_text(json.dumps(words))
control = socket.socket(socket.AF_UNIX)
control.bind(value("-qmp").split(":")[1].split(",")[0])
control.listen()
servers = []
if disk.read_text() != "silent":
    for port in re.findall(r"hostfwd=tcp:127.0.0.1:(\\d+)-", value("-netdev")):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(port)))
        server.listen()
        servers.append(server)
if child := os.fork():
    pathlib.Path(value("-pidfile")).write_text(str(child))
    os._exit(0)
os.setsid()
os.dup2(os.open(os.devnull, os.O_RDWR), 1)
os.dup2(1, 2)
boots = disk.with_name("boots")
count = lambda: boots.write_text(boots.read_text() + "x" if boots.exists() else "x")
count()
def greet(server):
    while True:
        connection, _ = server.accept()
        connection.sendall(b"SSH-2.0-stand-in\\r\\n")
        connection.close()
for server in servers:
    threading.Thread(target=greet, args=(server,), daemon=True).start()
while True:
    connection, _ = control.accept()
    stream = connection.makefile("rw")
    say = lambda answer: (stream.write(json.dumps(answer) + "\\n"), stream.flush())
    say({"QMP": {}})
    for line in stream:
        request = json.loads(line)
        say({"event": "SOMETHING"})
        name = request["execute"]
        if name == "quit" or (name == "system_powerdown" and disk.read_text() != "stubborn"):
            os._exit(0)
        if name == "nonsense":
            say({"error": {"desc": "no such command"}})
        else:
            say({"return": {}})
"""

FAKE_SSH = """
import pathlib, sys, time
command = sys.argv[-1]
directory = pathlib.Path(sys.argv[2]).parent
if (directory / "refuse").exists():
    sys.exit("Permission denied (publickey).")
if "boot_id" in command:
    print(len((directory / "boots").read_text()))
elif command == "fail":
    print("some output")
    sys.exit("and why")
elif command == "cat":
    print(sys.stdin.read())
elif command == "hang":
    time.sleep(60)
with (directory / "commands").open("a") as log:
    log.write(command + "\\n")
"""

FAKE_QEMU_IMG = """
import json, pathlib, sys
disk = pathlib.Path(sys.argv[-1])
if sys.argv[1] == "create":
    disk.write_text("fresh")
    disk.with_name("base").write_text(sys.argv[sys.argv.index("-b") + 1])
elif sys.argv[1] == "convert":
    disk.write_text("variables of a new computer")
else:
    base = disk.with_name("base").read_text()
    print(json.dumps({"full-backing-filename": base}))
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("qemu-system-x86_64", FAKE_QEMU), ("ssh", FAKE_SSH), ("qemu-img", FAKE_QEMU_IMG)):
        script = programs / f"{name}.py"
        script.write_text(textwrap.dedent(text))
        # The process carries the program's name, which is how the lab knows its own.
        (programs / name).write_text(f'#!/bin/bash\nexec -a {name} {sys.executable} -S {script} "$@"\n')
        (programs / name).chmod(0o755)
    base = tmp_path / "base.qcow2"
    base.write_text("base")
    sockets = tmp_path / "s"
    sockets.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.setattr(tools, "ensure_tools", lambda report: None)
    monkeypatch.setattr(accel, "choose", lambda: accel.TCG)
    monkeypatch.setattr(archive, "discover", lambda: archive.Archive(main=()))
    monkeypatch.setattr(image, "ensure_image", lambda spec, found, report: base)
    monkeypatch.setattr(image, "require_space", lambda directory, needed, purpose: None)
    monkeypatch.setattr(qemu, "require_memory", lambda spec, acceleration: None)
    monkeypatch.setattr(sshkeys, "runtime_directory", lambda: sockets)
    yield tmp_path / "lab"
    for each in machines(tmp_path / "lab"):
        qemu.end(each._wiring)


@pytest.fixture
def host(root: Path) -> Machine:
    found = Machine("rt1", spec=MachineSpec(forwards=(8080,)))
    found.up()
    return found


def commands(found: Machine) -> list[str]:
    return (found.directory / "commands").read_text().splitlines()


def test_up_makes_everything_a_client_needs(host: Machine, root: Path) -> None:
    status = host.status()
    assert (status.state, status.port, list(status.forwards)) == ("up", host.port, [8080])
    assert host.forwarded(8080) != host.port
    assert host.known_hosts_path.read_text().startswith(f"[127.0.0.1]:{host.port} ssh-ed25519 ")
    assert f"Port {host.port}\n" in host.ssh_config_path.read_text()
    assert host.key_path.stat().st_mode & 0o077 == 0
    inventory = YAML(typ="safe").load(root / "inventory.yaml")
    assert inventory["hosts"]["rt1"] == {
        "groups": ["rt_hosts", "lab"],
        "ssh": {
            "address": "127.0.0.1",
            "port": host.port,
            "user": "root",
            "key": str(host.key_path),
            "known_hosts": str(host.known_hosts_path),
            "console_log": str(host.console_path),
        },
        "settings": {},
    }


def test_up_again_leaves_the_machine_as_it_is(host: Machine) -> None:
    pid = host.status().pid
    Machine("rt1").up()
    assert host.status().pid == pid
    with pytest.raises(LabError, match="another shape"):
        Machine("rt1", spec=MachineSpec(cpus=2, nodes=1)).up()


def test_down_keeps_the_machine_and_empties_the_inventory(host: Machine, root: Path) -> None:
    port = host.port
    host.down()
    assert host.status().state == "off"
    assert not (root / "inventory.yaml").exists()
    host.down()
    again = Machine("rt1", spec=MachineSpec(cpus=2, nodes=1))
    again.up()
    assert again.port == port
    assert "2,sockets=1,cores=2,threads=1" in json.loads((again.directory / "arguments").read_text())


def test_a_machine_that_ignores_its_power_button_loses_its_power(host: Machine) -> None:
    host.disk_path.write_text("stubborn")
    host.down(timeout=0.2)
    assert not host.is_running()


def test_every_machine_has_its_own_port_and_place_in_the_inventory(host: Machine, root: Path) -> None:
    other = Machine("other")
    other.up()
    assert other.port not in (host.port, host.forwarded(8080))
    assert list(YAML(typ="safe").load(root / "inventory.yaml")["hosts"]) == ["other", "rt1"]
    host.down()
    assert list(YAML(typ="safe").load(root / "inventory.yaml")["hosts"]) == ["other"]


def test_reset_gives_a_fresh_disk_with_the_same_keys(host: Machine) -> None:
    key, pid = host.key_path.read_text(), host.status().pid
    host.disk_path.write_text("used")
    host.reset()
    assert host.disk_path.read_text() == "fresh"
    assert host.key_path.read_text() == key
    assert host.status().pid not in (None, pid)


def test_what_the_firmware_remembers_is_kept_until_a_reset(host: Machine) -> None:
    variables = host.directory / "firmware.qcow2"
    variables.write_text("starts Debian first")
    host.power_cut()
    host.boot()
    assert variables.read_text() == "starts Debian first"
    host.reset()
    assert variables.read_text() == "variables of a new computer"


def test_another_firmware_needs_another_disk(host: Machine) -> None:
    host.down()
    with pytest.raises(LabError, match=r"started by uefi, not .* started by bios") as caught:
        Machine("rt1", spec=MachineSpec(firmware=Firmware.BIOS)).up()
    command = caught.value.next_step.partition("`rtinfra lab ")[2].partition("`")[0]
    assert lab(*command.split())[0] == 0
    assert not any("pflash" in word for word in json.loads((host.directory / "arguments").read_text()))
    assert Machine("rt1").status().firmware == "bios"


def test_run_passes_input_output_and_failure(host: Machine) -> None:
    assert host.run("cat", input=b"some bytes").stdout == "some bytes\n"
    with pytest.raises(CommandFailed) as caught:
        host.run("fail")
    assert (caught.value.returncode, caught.value.stdout) == (1, "some output\n")
    assert "and why" in str(caught.value)
    assert host.run("fail", check=False).returncode == 1
    with pytest.raises(LabError, match=r"did not finish within 0 s"):
        host.run("hang", timeout=0.3)


def test_nothing_runs_on_a_machine_that_is_off(root: Path) -> None:
    found = Machine("rt1")
    assert found.status().state == "absent"
    for call in (
        found.power_cut,
        found.boot_id,
        found.ssh_command,
        lambda: found.as_cut_off(root / "other"),
    ):
        with pytest.raises(LabError, match="rt1 is not up"):
            call()
    with pytest.raises(LabError, match="there is no machine called rt1"):
        found.boot()
    with pytest.raises(LabError, match="no port of this host"):
        _ = found.port


def test_power_cut_and_boot(host: Machine) -> None:
    first = host.boot_id()
    host.power_cut()
    host.boot()
    second = host.boot_id()
    with pytest.raises(LabError, match="running already"):
        host.boot()
    assert first != second
    with pytest.raises(LabError, match="did not reboot within 0 s"):
        host.wait_for_new_boot(host.boot_id(), timeout=0.3)


def test_a_machine_as_it_would_be_after_a_power_cut(host: Machine, tmp_path: Path) -> None:
    host.join("rt_hosts")
    (host.directory / "firmware.qcow2").write_text("starts Debian first")
    twin = host.as_cut_off(tmp_path / "other")
    assert twin.disk_path.read_text() == host.disk_path.read_text()
    assert (twin.directory / "firmware.qcow2").read_text() == "starts Debian first"
    assert twin.groups == ("rt_hosts",) and not twin.is_running()
    # A stand-in's disk keeps its base beside it.
    shutil.copy(host.directory / "base", twin.directory)
    twin.up()
    assert host.boot_id() and twin.boot_id(), "the first one goes on"
    assert twin.port != host.port and twin.key_path.read_text() == host.key_path.read_text()
    twin.power_cut()
    with pytest.raises(LabError, match="there is a machine rt1"):
        host.as_cut_off(tmp_path / "other")


def test_a_boot_that_does_not_come_up_shows_the_console(host: Machine) -> None:
    host.power_cut()
    host.disk_path.write_text("silent")
    with host.console_path.open("a") as console:
        console.write("\x1b[0;31mKernel panic\x1b[0m - not syncing\r\n")
    with pytest.raises(LabError) as caught:
        host.boot(timeout=0.5)
    assert caught.value.message == "rt1 did not come up within 0 s: ssh did not answer"
    assert "Kernel panic - not syncing" in caught.value.detail
    assert host.status().state == "booting"


def test_a_kernel_that_crashes_at_its_start_is_started_once_more(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulated one does so now and then. One that crashes twice is said to."""
    host.power_cut()
    answering = host.disk_path.read_text()
    crashes, start = [True, False], Machine._start

    def crash(self: Machine) -> None:
        crashing = crashes.pop(0)
        self.disk_path.write_text("silent" if crashing else answering)
        start(self)
        if crashing:
            with self.console_path.open("a") as console:
                console.write("---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---\r\n")

    monkeypatch.setattr(Machine, "_start", crash)
    host.boot()
    assert host.boot_id() and not crashes
    host.power_cut()
    crashes += [True, True]
    with pytest.raises(KernelCrashed, match="the kernel of rt1 crashed"):
        host.boot()


def test_a_refused_login_is_said(host: Machine) -> None:
    (host.directory / "refuse").touch()
    with pytest.raises(LabError, match=r"refused the login \(Permission denied"):
        host.wait_for_new_boot("before", timeout=0.5)


def test_qemus_own_words_are_shown(host: Machine) -> None:
    host.down()
    host.disk_path.write_text("broken")
    with pytest.raises(LabError) as caught:
        host.up()
    assert caught.value.detail == "qemu: the disk is broken"


def test_a_port_in_use_is_named_and_reset_takes_another(host: Machine) -> None:
    host.down()
    port = host.port
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(LabError, match=f"port {port} of this machine"):
            host.up()
        host.reset()
        assert host.port != port


def test_a_missing_base_image_and_another_disk_size_ask_for_a_reset(host: Machine) -> None:
    host.down()
    with pytest.raises(LabError, match="12 GiB, started by uefi, not Debian trixie with 20 GiB"):
        Machine("rt1", spec=MachineSpec(disk_gb=20)).up()
    (host.directory / "base").write_text("/gone.qcow2")
    with pytest.raises(LabError, match=r"is gone: /gone\.qcow2"):
        Machine("rt1", spec=MachineSpec()).up()


def test_interrupted_while_booting_it_is_switched_off(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Machine, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    host.down()
    monkeypatch.setattr(Machine, "_wait_ssh", interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.up()
    assert not host.is_running()


def test_control_socket_errors_are_told(host: Machine, tmp_path: Path) -> None:
    with Qmp(host._wiring.qmp) as qmp, pytest.raises(QmpError, match="no such command"):
        qmp.execute("nonsense")
    with pytest.raises(QmpError, match="does not answer"), Qmp(tmp_path / "nobody"):
        pytest.fail("nobody listens")


@pytest.mark.parametrize("name", ["", "Rt1", "1rt", "a/b", "x" * 40])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name"):
        Machine(name)


def lab(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_command_line_from_up_to_down(root: Path) -> None:
    assert lab("status") == (0, f"There is no lab machine in {root}. Make one: rtinfra lab up\n", "")
    code, out, err = lab("up", "small", "--cpus", "2", "--nodes", "1", "--forward", "80", "--air-gap", "--json")
    assert (code, json.loads(out)["cpus"], list(json.loads(out)["forwards"])) == (0, 2, ["80"])
    assert "... Booting small (usually 50 s)" in err
    assert Machine("small").spec.restricted
    assert lab("up", "small")[:2] == (0, out_of_up("small"))
    code, out, _ = lab("status", "--json")
    assert [each["name"] for each in json.loads(out)] == ["small"]
    assert "small" in lab("status")[1]
    assert lab("status", "small")[0] == 0
    assert lab("log", "small", "-n", "1")[1].endswith("small boots ===\n")
    assert json.loads(lab("reset", "small", "--json")[1])["state"] == "up"
    assert "bare and fresh" in lab("reset", "small")[1]
    assert lab("down", "--all")[0] == 0
    assert "nothing to do" in lab("down", "small")[2]
    code, out, _ = lab("status", "small", "--json")
    assert (code, json.loads(out)["state"]) == (cli.EXIT_NOT_UP, "off")


def out_of_up(name: str) -> str:
    return f"{name} is up. Log in: rtinfra lab ssh {name}. Deploy to it: pyinfra inventory deploy.py\n"


def test_command_line_errors_are_sentences(root: Path) -> None:
    code, _, err = lab("ssh", "rt1")
    assert (code, err) == (1, "Error: rt1 is not up\nNext step: start it: `rtinfra lab up rt1`\n")
    assert lab("log")[0] == 1
    assert lab("up", "--cpus", "3")[0] == 1
    assert lab("up", "--cpus", "many")[0] == 2


def test_ssh_hands_the_terminal_over(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, words: started.append(words))
    assert lab("ssh", "rt1", "uname", "-a")[0] == 0
    assert started == [["ssh", "-F", str(host.ssh_config_path), "rt1", "uname", "-a"]]


def test_interrupted_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Machine) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine.Machine, "up", interrupt)
    assert lab("up") == (EXIT_INTERRUPTED, "", "Interrupted.\n")


def test_a_quiet_reporter_is_the_default() -> None:
    assert type(Machine()._report) is Reporter
