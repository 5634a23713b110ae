"""What the lab asks of this computer: programs, memory, ports, processes, acceleration; and what it says."""

from __future__ import annotations

import io
import os
import re
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from rtinfra.lab import accel, qemu, sshkeys, tools
from rtinfra.lab.errors import LabError
from rtinfra.lab.firmware import Firmware
from rtinfra.lab.inventory import inventory_yaml
from rtinfra.lab.spec import MachineSpec
from rtinfra.local import bootstrap, programs
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import ConsoleReporter, seconds

WIRING = qemu.Wiring(
    name="rt1",
    disk=Path("/d/disk.qcow2"),
    variables=Path("/d/firmware.qcow2"),
    seed=Path("/d/seed.img"),
    console=Path("/d/console.log"),
    log=Path("/d/qemu.log"),
    pidfile=Path("/d/qemu.pid"),
    qmp=Path("/r/x.qmp"),
    ports=((20022, 22), (20080, 80)),
    credentials=(("lab.hostname", Path("/d/hostname")),),
    lan=("230.0.0.77", 21000),
)


# ---- shape -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [{"cpus": 3}, {"cpus": 0}, {"nodes": 0}, {"memory_mb": 512}, {"memory_mb": 2049}, {"disk_gb": 1}],
)
def test_impossible_shapes_are_refused(shape: dict[str, int]) -> None:
    with pytest.raises(LabError):
        MachineSpec(**shape)


def test_shape_survives_a_file() -> None:
    spec = MachineSpec(cpus=2, nodes=1, forwards=(80, 443), restricted=True)
    assert MachineSpec.from_json({**spec.__dict__, "forwards": [80, 443]}) == spec


def test_command_line_has_the_nodes_the_network_and_both_watchdogs() -> None:
    words = " ".join(qemu.command_line(MachineSpec(restricted=True), WIRING, accel.TCG))
    assert "-smp 4,sockets=2,cores=2,threads=1 -m 3072M" in words
    assert "id=memory1,size=1536M -numa node,nodeid=1,memdev=memory1" in words
    assert "-numa cpu,node-id=1,socket-id=1" in words
    assert "restrict=on,hostfwd=tcp:127.0.0.1:20022-:22,hostfwd=tcp:127.0.0.1:20080-:80" in words
    assert "-device i6300esb -action watchdog=reset -global ICH9-LPC.noreboot=false" in words
    assert "name=opt/io.systemd.credentials/lab.hostname,file=/d/hostname" in words
    assert "restrict" not in " ".join(qemu.command_line(MachineSpec(), WIRING, accel.KVM))


def test_a_machine_starts_by_uefi_unless_another_firmware_is_asked_for() -> None:
    def words(spec: MachineSpec) -> str:
        return " ".join(qemu.command_line(spec, WIRING, accel.TCG))

    uefi, secure, bios = (words(MachineSpec(firmware=kind)) for kind in Firmware)
    assert words(MachineSpec()) == uefi
    own = "-drive if=pflash,unit=1,format=qcow2,file=/d/firmware.qcow2"
    assert "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd" in uefi
    # QEMU keeps a snapshot's memory in the first disk that can hold it.
    assert uefi.index("/d/disk.qcow2") < uefi.index(own)
    assert "-machine q35,smm=on" in secure
    assert "property=secure,value=on" in secure and "OVMF_CODE_4M.secboot.fd" in secure and own in secure
    assert "pflash" not in bios and "-machine q35 " in bios


def test_a_machine_made_before_there_was_a_choice_starts_by_bios() -> None:
    """Its disk has no EFI system partition."""
    old = {name: value for name, value in MachineSpec().__dict__.items() if name not in ("firmware", "backports")}
    assert MachineSpec.from_json(old).firmware is Firmware.BIOS


def test_mac_addresses_are_stable_and_differ() -> None:
    assert qemu.mac_address("rt1") == qemu.mac_address("rt1") != qemu.mac_address("rt2")
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", qemu.mac_address("rt1"))


# ---- this computer ---------------------------------------------------------------------------------------


def test_too_little_memory_is_refused_with_both_numbers() -> None:
    qemu.require_memory(MachineSpec(), accel.TCG, "MemTotal: 9 kB\nMemAvailable:  4000000 kB\n")
    with pytest.raises(LabError, match="needs 3772 MiB and this machine has 2929 MiB"):
        qemu.require_memory(MachineSpec(), accel.TCG, "MemAvailable:    3000000 kB\n")
    with pytest.raises(LabError, match="not enough memory"):
        qemu.require_memory(MachineSpec(memory_mb=10**9), accel.KVM)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not qemu.port_is_free(port)
        with pytest.raises(LabError) as caught:
            qemu.require_port("rt1", port)
        assert f"sport = :{port}" in caught.value.next_step
    qemu.require_port("rt1", port)


def test_only_our_own_process_is_ours(tmp_path: Path) -> None:
    pidfile = tmp_path / "qemu.pid"
    for pid, words in (
        (1, ["/usr/bin/qemu-system-x86_64", "-pidfile", str(pidfile)]),
        (2, ["/usr/bin/qemu-system-x86_64", "-pidfile", "/another/qemu.pid"]),
        (3, ["vim", str(pidfile)]),
        (4, [""]),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    ours = [pid for pid in (1, 2, 3, 4, 5) if qemu.is_ours(pid, pidfile, proc=tmp_path)]
    assert ours == [1]
    # A pid file left behind whose number now belongs to another program.
    pidfile.write_text(str(os.getpid()))
    wiring = qemu.Wiring(**{**WIRING.__dict__, "pidfile": pidfile})
    assert qemu.running_pid(wiring) is None
    pidfile.write_text("not a number")
    assert qemu.running_pid(wiring) is None


def test_kvm_needs_more_than_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setattr(accel, "_qemu_runs", lambda acceleration: True)
    for flags, works in (("fpu sse2 hypervisor", False), ("fpu vmx", True), ("fpu svm", True)):
        monkeypatch.setattr(Path, "read_text", lambda self, flags=flags, **options: f"flags : {flags}")
        assert accel._kvm_works() is works
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not accel._kvm_works()


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)", "QEMU 7.2 lets an emulated kernel crash"),
        ("QEMU emulator version 8.0.5", "QEMU 8.0 lets"),
        ("QEMU emulator version 8.1.0", None),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", None),
        ("something else", None),
    ],
)
def test_an_emulator_that_lets_kernels_crash_is_known(said: str, known: str | None) -> None:
    found = accel.weakness_of(said)
    assert (found is None) == (known is None)
    assert known is None or known in (found or "")


def test_with_kvm_nothing_is_said_of_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    accel.weakness.cache_clear()
    monkeypatch.setattr(accel, "choose", lambda: accel.KVM)
    assert accel.weakness() is None
    accel.weakness.cache_clear()


@pytest.mark.parametrize(
    ("script", "runs"),
    [
        ('echo \'{"return": {"status": "running", "running": true}}\'', True),
        ('echo \'{"return": {"status": "internal-error"}}\'', False),
        ("exit 134", False),
    ],
)
def test_qemu_itself_is_asked_whether_it_runs(
    script: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "qemu-system-x86_64"
    if not programs.find(program.name):
        assert not accel._qemu_runs(accel.KVM)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert accel._qemu_runs(accel.KVM) is runs


def test_programs_and_files_are_found() -> None:
    assert programs.find("sh") is not None
    assert programs.find("/etc/passwd") == Path("/etc/passwd")
    assert programs.find("/no/such/file") is None
    assert programs.find("no-such-program") is None


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LocalError) as caught:
        tools.ensure_tools()
    assert "fakeroot, fdisk, mmdebstrap" in caught.value.message
    assert caught.value.next_step.startswith("run: sudo apt-get install --yes --no-install-recommends debian-")


def test_missing_packages_are_installed_after_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    program = tmp_path / "sfdisk"

    def execute(command: list[str], **options: object) -> object:
        calls.append(next(word for word in command if word in ("install", "update")))
        if len(calls) == 3:
            program.touch()
        return programs.subprocess.CompletedProcess(command, 0 if len(calls) == 3 else 100, "E: no such package", "")

    monkeypatch.setattr(bootstrap, "tools", lambda: ())
    monkeypatch.setattr(tools, "_ALWAYS", (programs.Tool(str(program), "fdisk"),))
    monkeypatch.setattr(programs, "execute", execute)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tools.ensure_tools()
    assert calls == ["install", "update", "install"]
    tools.ensure_tools()
    assert len(calls) == 3
    program.unlink()
    with pytest.raises(LocalError, match="apt-get could not install fdisk"):
        tools.ensure_tools()


def test_execute_reports_failure_and_a_missing_program() -> None:
    assert programs.execute(["sh", "-c", "echo out; echo err >&2"], timeout=10).stdout == "out\nerr\n"
    with pytest.raises(LocalError, match="sh ended with exit code 3") as caught:
        programs.execute(["sh", "-c", "echo why; exit 3"], timeout=10)
    assert caught.value.detail == "why"
    with pytest.raises(LocalError, match="no-such-program is needed"):
        programs.execute(["no-such-program"], timeout=10)


def test_execute_ends_the_whole_family_in_time(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(LocalError, match="did not finish within 0 s"):
        programs.execute(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; wait"], timeout=0.5)
    assert time.monotonic() - start < 5
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{child}/cmdline").read_bytes():
            break  # ended, not yet collected by its new parent
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()


def test_sockets_live_in_a_directory_of_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshkeys, "Path", lambda text: tmp_path / Path(text).name)
    found = sshkeys.runtime_directory()
    assert found.stat().st_mode & 0o777 == 0o700
    found.chmod(0o755)
    with pytest.raises(LabError, match="only this user can enter"):
        sshkeys.runtime_directory()


# ---- what it says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "text"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (106, "1 min 46 s")])
def test_durations_for_people(value: float, text: str) -> None:
    assert seconds(value) == text


def test_a_log_gets_plain_lines() -> None:
    output = io.StringIO()
    report = ConsoleReporter(Console(file=output))
    with report.step("Doing [this]", usual=90):
        pass
    assert output.getvalue() == "... Doing [this] (usually 1 min 30 s)\nok  Doing [this]: 0 s\n"


def test_a_terminal_gets_a_running_clock() -> None:
    output = io.StringIO()
    report = ConsoleReporter(Console(file=output, force_terminal=True, width=80))
    with report.step("Waiting", usual=3):
        time.sleep(1.2)
    assert "Waiting (usually 3 s) - 1 s" in output.getvalue()


def test_an_error_reads_in_the_order_of_use() -> None:
    assert str(LocalError("It failed", "do that", "raw\n")) == "It failed\nraw\nNext step: do that"
    assert sys.exc_info() == (None, None, None)


class OnTheLan:
    """As much of a machine as the inventory asks for."""

    port = 20022
    key_path = Path("/k")
    known_hosts_path = Path("/h")
    console_path = Path("/c")

    def __init__(self, name: str, groups: tuple[str, ...], lan_addresses: tuple[str, ...], user: str = "root") -> None:
        self.name, self.groups, self.lan_addresses, self.user = name, groups, lan_addresses, user


def test_a_machine_on_the_shared_network_is_told_its_address_and_its_gateways() -> None:
    text = inventory_yaml(
        [
            OnTheLan("obs1", ("gateways", "jaeger"), ("10.77.0.10", "10.77.0.11")),
            OnTheLan("rt1", ("rt_hosts", "lab"), ()),
            OnTheLan("ubuntu", ("rt_hosts", "lab"), (), user="ops"),
        ]
    )
    hosts = YAML(typ="safe").load(text)["hosts"]
    assert (hosts["ubuntu"]["ssh"]["user"], hosts["ubuntu"]["ssh"]["become"]) == ("ops", True)
    assert "become" not in hosts["rt1"]["ssh"]
    assert hosts["obs1"]["groups"] == ["gateways", "jaeger"]
    assert hosts["obs1"]["settings"] == {
        "telemetry": {"address": "10.77.0.10"},
        "gateways": {"addresses": ["10.77.0.10", "10.77.0.11"]},
    }
    assert hosts["rt1"]["settings"] == {}


def test_the_shared_network_is_a_second_card_on_this_host_only() -> None:
    alone = qemu.command_line(MachineSpec(), WIRING, accel.TCG)
    assert "lan" not in " ".join(alone)
    joined = " ".join(qemu.command_line(MachineSpec(lan_addresses=2), WIRING, accel.TCG))
    assert "socket,id=lan,mcast=230.0.0.77:21000,localaddr=127.0.0.1" in joined
    assert qemu.mac_address("obs1", card=1) in " ".join(
        qemu.command_line(MachineSpec(lan_addresses=1), replace(WIRING, name="obs1"), accel.TCG)
    )
    assert qemu.mac_address("obs1", card=1) != qemu.mac_address("obs1")
    with pytest.raises(LabError, match="addresses on the lab's network"):
        MachineSpec(lan_addresses=10)
