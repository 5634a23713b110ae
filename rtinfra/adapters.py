"""What pyinfra 3.10 does not do by itself. config.py switches these on; each says what it replaces and why."""

from __future__ import annotations

import inspect
import socket
from functools import cache, partial
from pathlib import Path
from typing import Any

import gevent
import pyinfra.api.util
import pyinfra.connectors.sshuserclient.client
import pyinfra_cli.cli
from paramiko import HostKeys, SSHException, Transport
from paramiko.hostkeys import HostKeyEntry
from pyinfra import logger
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.exceptions import CliError

from rtinfra.config import ConfigError, SshSettings
from rtinfra.inventory import make_inventory, source
from rtinfra.local.errors import LocalError
from rtinfra.passwords import PASSWORDS
from rtinfra.paths import PROJECT, lab_inventory

_MARK = "_rtinfra"
# Markers of known_hosts, sshd(8).
_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"


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
            PASSWORDS.ask_early(fleet.hosts.values())
        except (ConfigError, LocalError) as error:
            raise CliError(str(error)) from error
        return make_inventory(fleet, kwargs.get("override_data"))

    setattr(load, _MARK, True)
    pyinfra_cli.cli.make_inventory = load


def tend_connections() -> None:
    """Make SSH connections quick, and end those to hosts that fell silent.

    TCP_NODELAY: neither pyinfra nor paramiko sets it, and each command waits ~45 ms. Silence: as shipped, a run waits
    for ever for a host that died in the middle of a command, since a dead host does not close its connections. And
    `disconnect` leaves the connection as it is.
    """
    original = SSHConnector._connect
    if getattr(original, _MARK, False):
        return

    def connect(self: SSHConnector) -> None:
        original(self)
        transport = self.client.get_transport() if self.client is not None else None
        if transport is None:
            return
        # A connection through a jump host is a channel, not a socket.
        if isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gevent.spawn(end_when_silent, transport, self.host.print_prefix)

    def disconnect(self: SSHConnector) -> None:
        original_disconnect(self)
        if self.client is not None:
            self.client.close()

    original_disconnect = SSHConnector.disconnect
    setattr(connect, _MARK, True)
    SSHConnector._connect = connect  # type: ignore[method-assign]
    SSHConnector.disconnect = disconnect  # type: ignore[method-assign]


def know_hosts_line_by_line() -> None:
    """Let one line of known_hosts that paramiko cannot read cost that line, as ssh does it, and not all that follow."""
    pyinfra.connectors.sshuserclient.client.get_host_keys = host_keys_in


@cache
def host_keys_in(files: tuple[str, ...]) -> HostKeys:
    """Return the host keys of known_hosts files, without those that a line of them revokes.

    Lines of certificate authorities are left out: paramiko knows no certificates of hosts.
    """
    found: list[HostKeyEntry] = []
    revoked: set[bytes] = set()
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            logger.warning("%s cannot be read: %s", file, error.strerror)
            continue
        for number, line in enumerate(map(str.strip, lines), start=1):
            marker = line.split()[0] if line.startswith("@") else ""
            if not line or line.startswith("#") or marker == _AUTHORITY:
                continue
            # paramiko takes one blank between fields, ssh any number.
            entry = _host_key(" ".join(line.removeprefix(marker).split()), number)
            if entry is None:
                logger.debug("%s:%d is not understood", file, number)
            elif marker == _REVOKED:
                revoked.add(entry.key.asbytes())
            else:
                found.append(entry)
    keys = HostKeys()
    for entry in found:
        if entry.key.asbytes() not in revoked:
            for name in entry.hostnames:
                # As of a file with two keys of one kind, the first counts.
                if name not in keys or entry.key.get_name() not in keys[name]:
                    keys.add(name, entry.key.get_name(), entry.key)
    return keys


def _host_key(line: str, number: int) -> HostKeyEntry | None:
    try:
        entry = HostKeyEntry.from_line(line, number)
    # Of a damaged key paramiko raises whatever its parser of that kind of key does.
    except Exception:
        return None
    return entry if entry is not None and entry.key is not None else None


def read_no_sources() -> None:
    """Let pyinfra find out from which lines an operation was called without reading the source of every caller.

    It orders operations by the numbers of those lines and has no use for the lines themselves; looking them up takes a
    third of the processor time of a plan.
    """
    pyinfra.api.util.stack = partial(inspect.stack, context=0)
    pyinfra.api.util.getframeinfo = partial(inspect.getframeinfo, context=0)


def end_when_silent(transport: Transport, print_prefix: str) -> None:
    """Ask the host for a sign of life now and then, and close the connection when it gives none.

    What waits for the host then fails, as when the network had told that it is gone. Returns when the connection ends.
    """
    interval, unanswered = SshSettings.ALIVE_INTERVAL_SECONDS, 0
    # Counted, not timed: this computer may have been asleep.
    while transport.is_active() and unanswered < SshSettings.ALIVE_COUNT_MAX:
        if unanswered == 0:
            gevent.sleep(interval)
        try:
            with gevent.Timeout(interval):
                # Nobody knows this request; that a server answers even so is what RFC 4254, section 4, asks of it.
                transport.global_request("keepalive@openssh.com")
            unanswered = 0
        except gevent.Timeout:
            unanswered += 1
        except (OSError, EOFError, SSHException):
            # It ended by itself; who uses it hears of that.
            return
    if transport.is_active():
        logger.error(
            "%shas been silent for %.0f s, so its connection is closed. Look at its screen: is it running? "
            "Then run the same again; it goes on where it stopped",
            print_prefix,
            interval * unanswered,
        )
        transport.close()
