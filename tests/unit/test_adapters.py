"""What pyinfra is taught: a directory as inventory, no delay on its connections.

In a pytest process of its own (tests/run): pyinfra's command line makes the standard library cooperative as soon as it
is imported, which no other test here is made for.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pyinfra_cli.cli
import pytest
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.exceptions import CliError

from rtinfra import adapters

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


def test_no_delay_is_set_on_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        sock = socket.socket()

    class Client:
        def get_transport(self) -> Transport:
            return Transport()

    def connect(self: SSHConnector) -> None:
        self.client = Client()  # type: ignore[assignment]

    monkeypatch.setattr(SSHConnector, "_connect", connect)
    adapters.send_without_delay()
    with Transport.sock:
        SSHConnector._connect(SSHConnector.__new__(SSHConnector))
        assert Transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
