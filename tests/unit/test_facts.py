"""What facts make of a host's answers. The texts are what a Debian 13 host really prints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.facts import output_sections
from rtinfra.facts.boot import Boot, parse_boot_state
from rtinfra.facts.contents import Contents
from rtinfra.facts.files import Files, parse_files_state
from rtinfra.facts.host import COMMANDS, GRUB_FOLDER, LOADER_INFO, Host, parse_host_state, state_of
from rtinfra.facts.packages import parse_packages_state
from rtinfra.facts.units import parse_units_state

HOST = """@@os
debian-13
@@kernels
6.12.117+deb13-amd64
@@memory_kb
2989192
@@online
0-3
@@siblings
/sys/devices/system/cpu/cpu0/topology/thread_siblings_list:0,2
/sys/devices/system/cpu/cpu1/topology/thread_siblings_list:1,3
/sys/devices/system/cpu/cpu2/topology/thread_siblings_list:0,2
/sys/devices/system/cpu/cpu3/topology/thread_siblings_list:1,3
@@nodes
/sys/devices/system/node/node0/cpulist:0-1
/sys/devices/system/node/node1/cpulist:2-3
@@free_mb
/ 10970
/boot 10970
/var 10970
@@grub
yes
@@systemd
yes
@@uid
0
@@clock
1795180142
""".splitlines()


@pytest.mark.parametrize(
    ("left", "booted", "other"),
    [
        ("GRUB 2.12-9+deb13u4", True, ""),
        ("GRUB 2.12-9+deb13u4", False, ""),
        ("systemd-boot 257.9-1~deb13u1", True, "systemd-boot 257.9-1~deb13u1"),
        (None, True, ""),
        (None, False, "another boot loader"),
    ],
)
def test_what_started_a_host(left: str | None, booted: bool, other: str, tmp_path: Path) -> None:
    """The variable is as GRUB leaves it on a real machine: attributes, UTF-16, no end of line."""
    variable = tmp_path / "LoaderInfo"
    if left is not None:
        variable.write_bytes(b"\6\0\0\0" + f"{left}\0".encode("utf-16-le"))
    told = "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda1" if booted else "initrd=\\initrd root=/dev/vda1"
    (tmp_path / "cmdline").write_text(f"{told}\n")
    asked = {name: COMMANDS[name] for name in ("loader", "started_by_grub", "initramfs_tools")}
    text = output_sections.script(asked)
    for real, here in ((LOADER_INFO, variable), ("/proc/cmdline", tmp_path / "cmdline")):
        text = text.replace(real, str(here))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    found = output_sections.parse([*HOST, *done.stdout.splitlines()])
    assert set(asked) <= set(found)
    assert state_of(found).boot_loader == other


@pytest.mark.parametrize(
    ("superusers", "options", "asked"),
    [
        ("", "", False),
        ('set superusers="admin"', "", True),
        ('set superusers="admin"', "--unrestricted ", False),
        ('set superusers="admin"', "--users guest ", True),
    ],
)
def test_whether_grub_asks_for_a_password(superusers: str, options: str, asked: bool, tmp_path: Path) -> None:
    release = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    # One who may start an old kernel is of no use to the one that runs.
    entries = "".join(
        f"\tmenuentry 'Debian, with Linux {kernel}' {words}--class debian "
        f"$menuentry_id_option 'gnulinux-{kernel}-advanced-0' {{\n\tlinux /vmlinuz-{kernel}\n\t}}\n"
        for kernel, words in ((release, options), ("4.0-old", "--unrestricted "))
    )
    (tmp_path / "grub.cfg").write_text(f"{superusers}\nsubmenu 'Advanced' {{\n{entries}}}\n")
    text = output_sections.script({"grub_password": COMMANDS["grub_password"].replace(GRUB_FOLDER, str(tmp_path))})
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert state_of(output_sections.parse([*HOST, *done.stdout.splitlines()])).asks_password is asked


def test_host() -> None:
    state = parse_host_state(HOST)
    assert state.distribution == "debian-13"
    assert state.memory_mb == 2919
    assert state.topology.nodes == {0: {0, 1}, 1: {2, 3}}
    assert state.topology.siblings[3] == {1, 3}
    assert state.topology.core_count(state.topology.online) == 2
    assert state.free_mb["/boot"] == 10970
    assert state.has_grub
    assert state.has_systemd
    assert state.is_root
    assert state.kernels == ("6.12.117+deb13-amd64",)


def test_host_without_numa_is_one_node() -> None:
    lines = [line for line in HOST if "/node/" not in line]
    assert parse_host_state(lines).topology.nodes == {0: {0, 1, 2, 3}}


def test_host_that_says_nothing() -> None:
    with pytest.raises(ValueError, match="which CPUs"):
        parse_host_state(["@@os", "debian-13"])


def test_scripts_run_in_sh_and_never_fail() -> None:
    """On this machine, whatever it has: every script ends with success and prints its sections."""
    for fact, arguments in (
        (Host(), {}),
        (Files(), {"paths": ["/etc/passwd", "/nonexistent", "/etc"]}),
        (Boot(), {"image_pattern": "*-rt-*"}),
        (Contents(), {"paths": ["/etc/hostname", "/nonexistent"]}),
    ):
        command = str(fact.command(**arguments))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert fact.sections(done.stdout.splitlines()), "it has its own marker"
        fact.process(done.stdout.splitlines())


def test_files_of_this_machine() -> None:
    fact = Files()
    command = str(fact.command(paths=["/etc/passwd", "/nonexistent", "/etc"]))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    state = fact.process(done.stdout.splitlines())
    assert set(state.paths) == {"/etc/passwd", "/etc"}
    assert state.paths["/etc"].kind == "directory"
    digest = subprocess.run(["sha256sum", "/etc/passwd"], capture_output=True, text=True, check=True).stdout[:64]
    assert state.paths["/etc/passwd"].sha256 == digest
    assert state.paths["/etc/passwd"].mode == "0644"


def test_empty_file_is_a_regular_file() -> None:
    state = parse_files_state(
        ["@@stat", "600\troot\troot\tregular empty file\t/a b", "@@sha256", "@@pending", "sysctl"]
    )
    assert state.paths["/a b"].kind == "regular file"
    assert state.pending == {"sysctl"}


def test_packages() -> None:
    lines = ["@@query", "chrony\t4.6.1-3\tii ", "old\t1\trc ", "held\t2\thi ", "@@audit"]
    state = parse_packages_state(lines)
    assert state.installed == {"chrony": "4.6.1-3", "held": "2"}
    assert not state.interrupted
    assert parse_packages_state([*lines, "0001"]).interrupted


def test_units_by_position() -> None:
    """An alias answers with another unit's name."""
    lines = [
        "@@show",
        *["Id=chrony.service", "LoadState=loaded", "ActiveState=active", "UnitFileState=enabled"],
        *["NeedDaemonReload=yes", "SubState=running", ""],
        *["Id=x.service", "LoadState=not-found", "ActiveState=inactive", "UnitFileState=", "NeedDaemonReload=no"],
        *["SubState=dead", "@@pending", "restart@chrony.service"],
    ]
    state = parse_units_state(["chronyd.service", "x.service"], lines)
    assert state.units["chronyd.service"].needs_reload
    assert state.units["chronyd.service"].file == "enabled"
    assert state.units["x.service"].load == "not-found"
    assert state.pending == {"restart@chrony.service"}


def test_boot() -> None:
    lines = [
        *["@@boot_id", "a", "@@release", "6.12.1-amd64", "@@version", "#1 SMP PREEMPT_DYNAMIC Debian"],
        *["@@cmdline", "BOOT_IMAGE=/boot/vmlinuz-6.12.1-amd64 root=UUID=1 ro quiet"],
        *["@@installed", "6.12.1-rt-amd64", "6.12.2-rt-amd64", "@@grub_cfg"],
        "/boot/vmlinuz-6.12.2-rt-amd64\troot=UUID=1 ro quiet isolcpus=3",
        "/boot/vmlinuz-6.12.2-rt-amd64\troot=UUID=1 ro single",
    ]
    state = parse_boot_state(lines)
    assert state.newest == "6.12.2-rt-amd64"
    assert not state.is_realtime
    assert state.parameters == ("root=UUID=1", "ro", "quiet")
    assert state.next_parameters == ("root=UUID=1", "ro", "quiet", "isolcpus=3")
    assert not state.default_is_good


def test_a_pattern_is_no_way_into_the_shell() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Boot().command(image_pattern="*; reboot")


@given(st.lists(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]))))
def test_sections_keep_every_line(lines: list[str]) -> None:
    marker = output_sections.unguessable_marker()
    said = ["before", f"{marker}a", *lines, "", f"{marker}b"]
    assert output_sections.parse(said, marker) == {"a": lines, "b": []}


def test_a_failing_command_leaves_the_others() -> None:
    script = output_sections.script({"one": "false; echo x", "two": "no-such-program", "three": "echo y"})
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert output_sections.parse(done.stdout.splitlines()) == {"one": ["x"], "two": [], "three": ["y"]}


def test_kinds_of_cores_and_shared_caches() -> None:
    """As Intel's processors with two kinds of cores show them; ARM's by a number."""
    online = {"online": ["0-7"]}
    caches = [f"/sys/devices/system/cpu/cpu{cpu}/cache/index2/shared_cpu_list:4-7" for cpu in range(4, 8)]
    intel = ["/sys/devices/cpu_core/cpus:0-3", "/sys/devices/cpu_atom/cpus:4-7"]
    topology = state_of({**online, "caches": caches, "core_kinds": intel}).topology
    assert topology.clusters == (frozenset({4, 5, 6, 7}),)
    assert topology.kinds_of({3, 4}) == {"performance": {3}, "efficiency": {4}}
    arm = [f"/sys/devices/system/cpu/cpu{cpu}/cpu_capacity:{512 if cpu < 4 else 1024}" for cpu in range(8)]
    assert set(state_of({**online, "core_kinds": arm}).topology.kinds_of({0, 4})) == {"capacity 512", "capacity 1024"}
    alike = state_of({**online, "core_kinds": arm[:4]}).topology
    assert (alike.kinds_of({0, 3}), alike.clusters) == ({}, ())
