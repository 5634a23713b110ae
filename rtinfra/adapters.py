"""What pyinfra 3.10 does not do by itself. config.py switches these on; each says what it replaces and why."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pyinfra_cli.cli
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.exceptions import CliError

from rtinfra.config import ConfigError
from rtinfra.inventory import make_inventory, source
from rtinfra.paths import PROJECT, lab_inventory

_MARK = "_rtinfra"


def accept_inventory_directory() -> None:
    """Let `pyinfra inventory deploy.py` take a directory; as shipped it fails with IsADirectoryError.

    Everything in it is validated here, before pyinfra connects to any host.
    """
    original = pyinfra_cli.cli.make_inventory
    if getattr(original, _MARK, False):
        return

    def load(inventory: str, *args: Any, **kwargs: Any) -> Inventory:
        directory = Path(kwargs.get("cwd") or ".") / inventory
        try:
            if not directory.is_dir():
                loaded: Inventory = original(inventory, *args, **kwargs)
                return loaded
            # Here, because the roles' settings need the roles, and this module is loaded before them.
            from roles.fleet import load_checked_hosts

            fleet = load_checked_hosts(PROJECT, source(directory, lab_inventory()))
        except ConfigError as error:
            raise CliError(str(error)) from error
        return make_inventory(fleet, kwargs.get("override_data"))

    setattr(load, _MARK, True)
    pyinfra_cli.cli.make_inventory = load


def send_without_delay() -> None:
    """Set TCP_NODELAY on SSH connections; neither pyinfra nor paramiko does, and each command waits ~45 ms."""
    original = SSHConnector._connect
    if getattr(original, _MARK, False):
        return

    def connect(self: SSHConnector) -> None:
        original(self)
        transport = self.client.get_transport() if self.client is not None else None
        # A connection through a jump host is a channel, not a socket.
        if transport is not None and isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    setattr(connect, _MARK, True)
    SSHConnector._connect = connect  # type: ignore[method-assign]
