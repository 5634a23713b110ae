"""A host as people have it: nobody logs in as root, an ordinary user has sudo. Everything is done by that user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from roles.fleet import load_hosts
from rtinfra import verify
from rtinfra.connection import Connections
from rtinfra.lab import Machine
from rtinfra.paths import PROJECT
from tests.e2e.conftest import INVENTORY, MACHINE
from tests.e2e.test_4_drift import MODE, check
from tests.e2e.test_4_plan import rtinfra
from tests.project import Project

USER, PASSWORD, SECRET = "pilot", "Chair $ 4 \"legs'", "pilot_sudo"
ROOT_OFF = "/etc/ssh/sshd_config.d/00-root-off.conf"
SUDOERS = f"/etc/sudoers.d/{USER}"
# sudo's worst habits, each found somewhere: a PATH without sbin, a umask that adds up, no variable kept.
HABITS = f'Defaults:{USER} secure_path="/usr/bin:/bin", umask=0077, umask_override, env_reset, timestamp_timeout=0'


def write_login(project: Project, **ssh: object) -> Path:
    """Write the machine into the operator's inventory with another login."""
    yaml = YAML()
    data = yaml.load(INVENTORY)
    data["hosts"][MACHINE]["ssh"] |= {"user": USER, "become": True, **ssh}
    path = project.path / "inventory" / "hosts.yaml"
    yaml.dump(data, path)
    return path


def let_sudo(machine: Machine, password: bool) -> None:
    """Let the user become root, with a password or without."""
    tag = "PASSWD" if password else "NOPASSWD"
    machine.run(
        f"printf '%s\\n' '{HABITS}' '{USER} ALL=(ALL:ALL) {tag}: ALL' >{SUDOERS}; chmod 0440 {SUDOERS}; visudo -cq >&2"
    )


@pytest.fixture
def pilot(settled: Project, machine: Machine) -> Iterator[Project]:
    """The project, and a machine on which the user has sudo and root no login. root's is back afterwards."""
    machine.run(
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install sudo && "
        f"useradd -m -s /bin/bash {USER} && install -d -m 0700 -o {USER} /home/{USER}/.ssh && "
        f"install -m 0600 -o {USER} /root/.ssh/authorized_keys /home/{USER}/.ssh/ && chpasswd",
        input=f"{USER}:{PASSWORD}\n".encode(),
        timeout=180,
    )
    let_sudo(machine, password=False)
    machine.run(f"echo PermitRootLogin no >{ROOT_OFF}; systemctl reload ssh")
    yield settled
    hosts = load_hosts(PROJECT, write_login(settled)).hosts
    connections = Connections(hosts.values())
    try:
        # Over the connection that was open before, in any case.
        let_sudo(machine, password=False)
        connections.feed(MACHINE, f"rm -f {ROOT_OFF}; systemctl reload ssh")
    finally:
        connections.close()
    machine.run(
        f"SUDO_FORCE_REMOVE=yes apt-get -q -y purge sudo; userdel -r {USER}; rm -f {SUDOERS}", timeout=120, check=False
    )


def test_everything_is_done_by_an_ordinary_user(
    request: pytest.FixtureRequest, pilot: Project, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inventory = write_login(pilot)
    result = pilot.deploy()
    assert result.ok, result.log
    assert result.changed == 0, result.changed_operations

    machine.run(f"chmod 0666 {MODE}")
    let_sudo(machine, password=True)
    refused = pilot.deploy()
    assert not refused.ok
    assert "refused, nothing was changed on any host" in refused.log
    assert f"sudo asks {USER} for a password" in refused.log and f"tee {SUDOERS}" in refused.log

    write_login(pilot, become_password=SECRET)
    monkeypatch.setenv(f"RTINFRA_SECRET_{SECRET.upper()}", PASSWORD)
    mended = pilot.deploy()
    assert mended.ok, mended.log
    assert sorted(mended.changed_operations) == ["rt_app | files", "units"]
    assert check(machine) == {}
    if request.config.getoption("--heavy"):
        report = verify.run(inventory, output=tmp_path)
        assert not report.problems, report.problems
        assert not report.failed, report.failed

    monkeypatch.setenv(f"RTINFRA_SECRET_{SECRET.upper()}", "wrong")
    ended = rtinfra(pilot, "plan")
    assert ended.returncode != 0
    assert f"sudo does not take the password of {USER}" in ended.stderr
    logs = machine.run("journalctl -b --no-pager -t sudo; cat /proc/*/cmdline | tr '\\0' ' '").stdout
    assert PASSWORD not in logs + mended.log + ended.stderr + ended.stdout
