"""What pyinfra is taught: a directory as inventory, connections that are quick and never wait for the dead.

In a pytest process of its own (tests/run): pyinfra's command line makes the standard library cooperative as soon as it
is imported, which no other test here is made for.
"""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pyinfra_cli.cli
import pytest
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.exceptions import CliError

from rtinfra import adapters
from rtinfra.config import SshSettings

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
