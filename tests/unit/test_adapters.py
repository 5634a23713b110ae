"""What pyinfra is taught: a directory as inventory, connections that are quick and never wait for the dead.

In a pytest process of its own (tests/run): pyinfra's command line makes the standard library cooperative as soon as it
is imported, which no other test here is made for.
"""

from __future__ import annotations

import io
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import paramiko
import pyinfra_cli.cli
import pytest
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.connectors import ssh
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient import client
from pyinfra_cli.exceptions import CliError

from rtinfra import adapters
from rtinfra.become import become_root
from rtinfra.config import FleetHost, SshSettings
from rtinfra.inventory import HOST_DATA_KEY
from tests.unit.test_sudo import PASSWORD, SUDO

HOSTS = """hosts:
  robot-1:
    groups: [rt_hosts]
    ssh: {address: 192.0.2.1}
  store-1:
    groups: []
    ssh: {address: 192.0.2.2}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    return tmp_path


class TestDirectoryAdapter:
    @pytest.fixture(autouse=True)
    def _restored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pyinfra_cli.cli, "make_inventory", lambda *args, **kwargs: ("original", args, kwargs))
        monkeypatch.setattr(SSHConnector, "_connect", SSHConnector._connect)

    def test_a_directory_is_loaded(self, directory: Path) -> None:
        adapters.accept_inventory_directory()
        adapters.accept_inventory_directory()  # config.py may be executed twice
        loaded = pyinfra_cli.cli.make_inventory(str(directory), cwd=str(directory))
        assert {host.name for host in loaded} == {"robot-1", "store-1"}

    def test_everything_else_is_pyinfras_own(self) -> None:
        adapters.accept_inventory_directory()
        assert pyinfra_cli.cli.make_inventory("@local", cwd=None) == ("original", ("@local",), {"cwd": None})

    def test_errors_are_sentences(self, directory: Path) -> None:
        (directory / "hosts.yaml").write_text(HOSTS.replace("groups: []", "groups: [rt_host]"))
        adapters.accept_inventory_directory()
        with pytest.raises(CliError, match=r"hosts.yaml:6.*rt_hosts"):
            pyinfra_cli.cli.make_inventory(str(directory), cwd=None)


class Transport:
    """As paramiko's: answers a number of requests, then falls silent."""

    def __init__(self, answers: int) -> None:
        self.sock = socket.socket()
        self.answers = answers
        self.active = True

    def is_active(self) -> bool:
        return self.active

    def global_request(self, kind: str) -> None:
        if self.answers == 0:
            gevent.sleep(60)
        self.answers -= 1

    def close(self) -> None:
        self.active = False
        self.sock.close()


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> SSHConnector:
    """A connector with what config.py teaches it; its server answers three times."""
    transport = Transport(answers=3)

    class Client:
        def get_transport(self) -> Transport:
            return transport

        def close(self) -> None:
            transport.close()

    def connect(self: SSHConnector) -> None:
        self.client = Client()  # type: ignore[assignment]

    monkeypatch.setattr(SSHConnector, "_connect", connect)
    monkeypatch.setattr(SSHConnector, "disconnect", lambda self: None)
    monkeypatch.setattr(SshSettings, "ALIVE_INTERVAL_SECONDS", 0.05)
    adapters.tend_connections()
    made = SSHConnector.__new__(SSHConnector)
    made.host = SimpleNamespace(print_prefix="[robot-1] ")  # type: ignore[assignment]
    return made


def transport_of(connector: SSHConnector) -> Any:
    assert connector.client is not None
    return connector.client.get_transport()


def test_no_delay_is_set_on_the_socket(connector: SSHConnector) -> None:
    connector._connect()
    assert transport_of(connector).sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    connector.disconnect()


def test_a_connection_to_a_host_that_falls_silent_is_closed(
    connector: SSHConnector, caplog: pytest.LogCaptureFixture
) -> None:
    connector._connect()
    transport = transport_of(connector)
    gevent.sleep(0.1)
    assert transport.is_active()
    with gevent.Timeout(10):
        while transport.is_active():
            gevent.sleep(0.05)
    assert transport.answers == 0
    assert "[robot-1] has been silent" in caplog.text


def test_disconnecting_closes_the_connection(connector: SSHConnector, caplog: pytest.LogCaptureFixture) -> None:
    connector._connect()
    connector.disconnect()
    gevent.sleep(0.2)
    assert not transport_of(connector).is_active()
    assert not caplog.text


KEYS = {
    name: paramiko.ECDSAKey.generate() if name == "far" else paramiko.RSAKey.generate(1024)
    for name in ("near", "far", "gone")
}


def line(host: str, name: str) -> str:
    return f"{host} {KEYS[name].get_name()} {KEYS[name].get_base64()}"


@pytest.mark.parametrize(
    "bad",
    (
        f"@cert-authority *.example.com {KEYS['gone'].get_name()} {KEYS['gone'].get_base64()}",
        "192.0.2.7 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDamaged",
        "192.0.2.7 ssh-rsa !!!",
        "192.0.2.7 ssh-ed25519 AAAA",
        "192.0.2.7",
        "192.0.2.7 1024 35 1234567890",
        "\x00\xff",
        "|1|short|short ssh-rsa AAAA",
    ),
)
def test_one_bad_line_of_known_hosts_loses_no_other(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{line('192.0.2.1', 'near')}\n{bad}\n\n# a comment\n{line('  192.0.2.2  ', 'far')}  me@here\n")
    found = adapters.host_keys_in((str(tmp_path / "nowhere"), str(file)))
    assert found.check("192.0.2.1", KEYS["near"])
    assert found.check("192.0.2.2", KEYS["far"])
    assert not found.check("192.0.2.7", KEYS["near"])


def test_a_revoked_key_is_no_hosts(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{line('192.0.2.1', 'near')}\n{line('@revoked *', 'near')}\n{line('192.0.2.1', 'far')}\n")
    found = adapters.host_keys_in((str(file),))
    assert not found.check("192.0.2.1", KEYS["near"])
    assert found.check("192.0.2.1", KEYS["far"])


def test_pyinfra_reads_them_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "get_host_keys", client.get_host_keys)
    adapters.know_hosts_line_by_line()
    assert client.get_host_keys is adapters.host_keys_in


class Local:
    """A client whose host is this computer, with a stand-in of sudo (tests/unit/test_sudo.py)."""

    def __init__(self, place: Path) -> None:
        self.environment = {"PATH": f"{place}:/usr/bin:/bin", "STAND_IN": str(place), "SSH_CONNECTION": "by here"}
        self.commands: list[str] = []

    def exec_command(self, command: str, get_pty: bool = False) -> tuple[Any, Any, Any]:
        self.commands.append(command)
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        assert process.stdin and process.stdout and process.stderr
        channel = SimpleNamespace(recv_exit_status=process.wait, shutdown_write=process.stdin.flush)
        stdin, stdout = (Stream(stream, channel) for stream in (process.stdin, process.stdout))
        return stdin, stdout, process.stderr


class Stream:
    """A stream of a process with what paramiko's have beside."""

    def __init__(self, stream: Any, channel: Any) -> None:
        self.stream, self.channel = stream, channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def write(self, data: bytes | str) -> None:
        self.stream.write(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SSHConnector:
    """A connector that logs in as pilot, who becomes root with the secret `pilot_sudo`."""
    for name in ("run_shell_command", "put_file"):
        monkeypatch.setattr(SSHConnector, name, getattr(SSHConnector, name))
    monkeypatch.setattr(ssh, "execute_command_with_sudo_retry", ssh.execute_command_with_sudo_retry)
    monkeypatch.setenv("RTINFRA_SECRET_PILOT_SUDO", PASSWORD)
    (tmp_path / "sudo").write_text(SUDO)
    (tmp_path / "sudo").chmod(0o755)
    (tmp_path / "wants").write_text(PASSWORD)
    become_root()
    settings = SshSettings(address="192.0.2.1", user="pilot", become=True, become_password="pilot_sudo")
    made = SSHConnector.__new__(SSHConnector)
    host = FleetHost("robot-1", (), settings, config=settings, source="")
    made.host = SimpleNamespace(  # type: ignore[assignment]
        name="robot-1",
        print_prefix="[robot-1] ",
        host_data={HOST_DATA_KEY: host},
        connector_data={},
        state=SimpleNamespace(is_executing=False),
        get_temp_dir_config=lambda: "/tmp",
    )
    made.state = SimpleNamespace()  # type: ignore[assignment]
    made.client = Local(tmp_path)  # type: ignore[assignment]
    return made


def test_commands_are_run_by_root_with_their_own_standard_input(user: SSHConnector) -> None:
    done, output = user.run_shell_command(StringCommand('cat; echo "$SSH_CONNECTION"'), _stdin="one\ntwo")
    assert done, output.stderr
    assert output.stdout_lines == ["one", "two", "by here"]
    done, output = user.run_shell_command(StringCommand("exit 3"), _success_exit_codes=[3])
    assert done
    assert user.client is not None
    assert not any(PASSWORD in command or "cat" in command.split("sh -c")[-1][-40:] for command in user.client.commands)


def test_files_are_written_by_root_where_they_belong_and_nowhere_else(user: SSHConnector, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    source, target = tmp_path / "source", tmp_path / "it's here"
    source.write_bytes(content)
    before = set(tmp_path.iterdir())
    assert user.put_file(str(source), str(target))
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {target.name, "log"}
    assert user.put_file(io.BytesIO(b"new"), str(target)) and target.read_bytes() == b"new"
    assert not user.put_file(str(source), str(tmp_path / "no" / "folder"))


def test_a_refusal_ends_the_run_and_nobody_is_asked(
    user: SSHConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyinfra.connectors.util.getpass", lambda text: pytest.fail("asked"))
    (tmp_path / "wants").write_text("another")
    with pytest.raises(DeployError, match=r"robot-1 is refused, nothing was changed .* take the password of pilot"):
        user.run_shell_command(StringCommand("true"))
    (tmp_path / "tty").touch()
    with pytest.raises(DeployError, match="requiretty"):
        user.put_file(io.BytesIO(b""), str(tmp_path / "x"))
    monkeypatch.delenv("RTINFRA_SECRET_PILOT_SUDO")
    with pytest.raises(DeployError, match="pilot_sudo is not defined"):
        user.run_shell_command(StringCommand("true"))
