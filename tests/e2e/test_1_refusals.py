"""A bare host is refused for every reason there is, each with its clear sentence, and nothing is changed.

Processors are taken away by the kernel's own CPU hotplug instead of making a second machine: to everything that
looks, the host then has two cores.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtinfra.lab import Machine
from rtinfra.runner import environment
from tests.e2e.conftest import LAB, MACHINE, fingerprint
from tests.project import Project


def refused(result: object, *expected: str) -> None:
    """Assert that a run failed and said all of `expected`."""
    assert result.exit_code != 0  # type: ignore[attr-defined]
    log = result.log  # type: ignore[attr-defined]
    for text in expected:
        assert text in log, f"{text!r} is not in:\n{log}"
    assert "Traceback" not in log, log


def write_host(project: Project, settings: str = "{}", **ssh: object) -> None:
    """Write an inventory with the lab machine as an operator's host, with these settings (YAML flow)."""
    data = {"key": LAB / MACHINE / "id_ed25519", "user": "root", "address": "127.0.0.1"} | ssh
    shown = "\n".join(f"      {key}: {value}" for key, value in data.items())
    project.write_hosts(
        f"hosts:\n  {MACHINE}:\n    groups: [rt_hosts, lab]\n    ssh:\n{shown}\n    settings: {settings}\n"
    )


@contextmanager
def unchanged(machine: Machine) -> Iterator[None]:
    """Assert that what happens inside changes nothing on the host."""
    before = fingerprint(machine)
    yield
    assert fingerprint(machine) == before


# ---- settings: refused before any host is contacted -----------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{cpu: {isolatd: 2-3}}", ["inventory/hosts.yaml:8", "isolatd", "isolated"]),
        ("{cpu: {isolated: 2-3, housekeeping: 0-2}}", ["cpu.housekeeping", "2"]),
        ("{rt_app: {non_rt_process: {health_port: 8080}}}", ["8080", "already taken", "rt_app.rt_process.health_port"]),
        (
            "{rt_app: {application: {kind: binary, rt_binary: a/rt, non_rt_binary: a/non}}}",
            ["rt_app.application.rt_binary", "a/rt", "is not a file"],
        ),
        ("{rt_app: {rt_process: {priority: 120}}}", ["rt_app.rt_process.priority", "120", "99"]),
        ("{rt_app: {unit: {watchdog: 1s}}}", ["rt_app.unit.watchdog", "health check"]),
    ],
    ids=["unknown key", "overlapping sets", "port clash", "missing application", "priority", "watchdog"],
)
def test_settings(project: Project, settings: str, expected: list[str]) -> None:
    write_host(project, settings)
    refused(project.deploy(), *expected)


def test_malformed_yaml(project: Project) -> None:
    project.write_hosts("hosts:\n  a:\n    groups: [rt_hosts\n    ssh: {}\n")
    refused(project.deploy(), "inventory/hosts.yaml:")


def test_no_hosts_at_all(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RTINFRA_LAB_DIR", str(tmp_path / "no-lab"))
    refused(project.deploy(), "there are no hosts yet", "hosts.example.yaml", "make demo")


# ---- connection -----------------------------------------------------------------------------------------


def test_unreachable_host(project: Project, machine: Machine) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_host(project, port=port)
    refused(project.deploy(), "Could not connect")


def test_missing_private_key(project: Project) -> None:
    write_host(project, key="/nowhere/id_ed25519")
    refused(project.deploy(), "inventory/hosts.yaml:", "ssh.key", "/nowhere/id_ed25519", "no such file")


def test_wrong_host_key(project: Project, machine: Machine, tmp_path: Path) -> None:
    """The known key of the host is another one: somebody may be in between."""
    other = tmp_path / "known_hosts"
    key = machine.key_path.with_suffix(".pub").read_text().split()
    other.write_text(f"[127.0.0.1]:{machine.port} {key[0]} {key[1]}\n")
    write_host(project, port=machine.port, known_hosts=other)
    with unchanged(machine):
        refused(project.deploy(), "host key")


def test_unknown_host_key(project: Project, machine: Machine, tmp_path: Path) -> None:
    """A host that was never seen is not trusted by itself."""
    (tmp_path / "known_hosts").write_text("")
    write_host(project, port=machine.port, known_hosts=tmp_path / "known_hosts")
    with unchanged(machine):
        refused(project.deploy(), "127.0.0.1")


# ---- the host itself: refused after one look ------------------------------------------------------------


@pytest.fixture
def on_host(project: Project, machine: Machine) -> Iterator[Project]:
    """A project with the lab machine as the operator's host, and a proof that the host stays as it is."""
    write_host(project, port=machine.port, known_hosts=machine.known_hosts_path)
    with unchanged(machine):
        yield project


def with_settings(project: Project, machine: Machine, settings: str) -> Project:
    write_host(project, settings, port=machine.port, known_hosts=machine.known_hosts_path)
    return project


def test_a_dry_run_tells_and_changes_nothing(on_host: Project) -> None:
    """pyinfra without -y asks every operation what it would do, on a host that has nothing yet."""
    dry = subprocess.run(
        [str(Path(sys.executable).with_name("pyinfra")), "--dry", "inventory", "deploy.py"],
        cwd=on_host.path,
        env=environment(on_host.path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert dry.returncode == 0, dry.stderr
    for operation in ("packages", "rt_kernel | boot loader", "rt_kernel | reboot when needed", "units"):
        assert operation in dry.stderr


def test_list_beyond_the_last_cpu(on_host: Project, machine: Machine) -> None:
    with_settings(on_host, machine, '{cpu: {isolated: "4-N"}}')
    refused(on_host.deploy(), "inventory/hosts.yaml:", "cpu.isolated", "4-N", "last CPU is 3")


def test_cores_on_another_numa_node(on_host: Project, machine: Machine) -> None:
    """RT-5 on a machine whose cores 2 and 3 are on node 1: reported, not applied."""
    with_settings(on_host, machine, "{rt_app: {rt_process: {numa_node: 0}}}")
    refused(on_host.deploy(), "rt_app.rt_process.numa_node", "node 1")


def test_two_cores(on_host: Project, machine: Machine) -> None:
    machine.run("echo 0 | tee /sys/devices/system/cpu/cpu2/online /sys/devices/system/cpu/cpu3/online")
    try:
        refused(on_host.deploy(), "prerequisites.cores", "this host has 2", "cpu.isolated")
    finally:
        machine.run("echo 1 | tee /sys/devices/system/cpu/cpu2/online /sys/devices/system/cpu/cpu3/online")


def test_no_grub(on_host: Project, machine: Machine) -> None:
    # Covered by a device that nobody can execute, so that nothing on the disk is touched.
    machine.run("mount --bind /dev/null /usr/sbin/update-grub")
    try:
        refused(on_host.deploy(), "has no GRUB", "apt-get install grub-pc")
    finally:
        machine.run("umount /usr/sbin/update-grub")


def test_disk_almost_full(on_host: Project, machine: Machine) -> None:
    machine.run("fallocate -l $(( $(stat -f -c '%a * %S' /) - 200 * 1048576 )) /filler")
    try:
        refused(on_host.deploy(), "rt_kernel.headroom_root_mb", "MB must be free in /", "du -xh")
    finally:
        machine.run("rm -f /filler")
