"""pyinfra's ssh connector as a user who becomes root: `ssh.become` of the inventory, for all that is done on a host.

pyinfra's own `_sudo` puts passwords into the arguments of programs on the host, where every user can read them, carries
files through a folder that others can write to, and has to be said to each fact and operation. Here the connector does
it, so that nothing above it knows.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import chain
from typing import IO, Any, cast

import pyinfra.connectors.ssh
from pyinfra import logger
from pyinfra.api.arguments import ConnectorArguments
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.api.output import echo
from pyinfra.api.util import get_file_io
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, extract_control_arguments, make_unix_command_for_host

from rtinfra import sudo
from rtinfra.config import FleetHost, SshSettings
from rtinfra.inventory import HOST_DATA_KEY
from rtinfra.local.errors import LocalError
from rtinfra.passwords import PASSWORDS

_MARK = "_rtinfra"
# The connection over which sudo took the password; another one begins anew.
_TAKEN = "_rtinfra_sudo_taken_on"
_BLOCK = 1 << 20

Run = Callable[..., tuple[bool, CommandOutput]]
Put = Callable[..., bool]


def become_root() -> None:
    """Let root do on a host whatever is done there, where its login is another user's."""
    run, put = cast(Run, SSHConnector.run_shell_command), cast(Put, SSHConnector.put_file)
    if getattr(run, _MARK, False):
        return

    def run_shell_command(
        self: SSHConnector,
        command: StringCommand,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> tuple[bool, CommandOutput]:
        ssh = _becomes(self.host)
        if ssh is None:
            return run(self, command, print_output, print_input, **arguments)
        control: dict[str, Any] = dict(extract_control_arguments(cast(Any, arguments)))
        inner = make_unix_command_for_host(self.state, self.host, command, **arguments)
        if print_input:
            echo(f"{self.host.print_prefix}>>> {inner}", err=True)
        login = _Login(self, ssh)
        stdin = [login.head(inner.get_raw_value()), *_lines(control.pop("_stdin", None))]
        done, output = run(
            self, StringCommand(login.command), print_output, False, _shell_executable=None, _stdin=stdin, **control
        )
        login.ended(done, output.stderr)
        return done, output

    def put_file(
        self: SSHConnector, filename_or_io: str | IO[Any], remote_filename: str, *args: Any, **arguments: Any
    ) -> bool:
        ssh = _becomes(self.host)
        if ssh is None:
            return put(self, filename_or_io, remote_filename, *args, **arguments)
        return _carry(self, _Login(self, ssh), filename_or_io, remote_filename)

    setattr(run_shell_command, _MARK, True)
    SSHConnector.run_shell_command = run_shell_command  # type: ignore[method-assign]
    SSHConnector.put_file = put_file  # type: ignore[method-assign]
    _ask_nobody_twice()


def _becomes(host: Host) -> SshSettings | None:
    """Return how a host is reached when root is to be become there; None where the login is root's."""
    found = host.host_data.get(HOST_DATA_KEY)
    return found.ssh if isinstance(found, FleetHost) and found.ssh.become else None


class _Login:
    """One command as root over the connection that is open now.

    Raises:
        DeployError: there is no password to give to sudo.
    """

    def __init__(self, connector: SSHConnector, ssh: SshSettings) -> None:
        self._connector, self._ssh = connector, ssh
        try:
            secret = PASSWORDS.of(ssh)
        except LocalError as error:
            raise _refused(connector.host, str(error)) from error
        self._password = None if secret is None else secret.get_secret_value()
        tried = getattr(connector, _TAKEN, None) is connector.client
        self.command = sudo.command(password=secret is not None, tried=tried)

    def head(self, script: str) -> str:
        """Return what goes to standard input first."""
        return sudo.head(script, self._password)

    def ended(self, done: bool, said: str) -> None:
        """Take note of how a command ended, and what came on its standard error.

        Raises:
            DeployError: sudo ran nothing.
        """
        if not done and (refusal := sudo.refusal(self._ssh.user, said)) is not None:
            raise _refused(self._connector.host, str(refusal))
        setattr(self._connector, _TAKEN, self._connector.client)


def _refused(host: Host, why: str) -> DeployError:
    """Return the end of a run, or of this host's part of it when others are being changed already."""
    if host.state is not None and host.state.is_executing:
        # pyinfra only counts the host as failed.
        logger.error("%s%s", host.print_prefix, why)
        return DeployError(why)
    return DeployError(f"{host.name} is refused, nothing was changed on any host: {why}")


def _lines(stdin: Any) -> list[str]:
    """Return standard input as pyinfra takes it: text, lines, or a file."""
    if not stdin:
        return []
    found = stdin.readlines() if hasattr(stdin, "readlines") else stdin
    return [found] if isinstance(found, str) else list(found)


def _carry(connector: SSHConnector, login: _Login, source: str | IO[Any], target: str) -> bool:
    """Write a file of this computer to where root wants it. It lies nowhere else meanwhile, where others could swap it.

    Raises:
        DeployError: sudo ran nothing.
    """
    assert connector.client is not None
    stdin, stdout, stderr = connector.client.exec_command(login.command)
    with get_file_io(source) as file, stdin:
        blocks = iter(lambda: file.read(_BLOCK), b"")
        for block in chain([login.head(f"cat >{shlex.quote(target)}").encode()], blocks):
            try:
                stdin.write(block)
            except OSError:
                # It ended early, as on a full disk, and says why.
                break
        stdin.channel.shutdown_write()
    said = stderr.read().decode("utf-8", "replace")
    done = stdout.channel.recv_exit_status() == 0
    login.ended(done, said)
    if not done:
        logger.error("%s%s cannot be written: %s", connector.host.print_prefix, target, said.strip())
    return done


def _ask_nobody_twice() -> None:
    """Keep pyinfra from asking for a password by itself: where `become` is set, what to do is said in the inventory."""
    original = pyinfra.connectors.ssh.execute_command_with_sudo_retry

    def execute(
        host: Host, command_arguments: ConnectorArguments, execute_command: Callable[..., tuple[int, CommandOutput]]
    ) -> tuple[int, CommandOutput]:
        if _becomes(host) is not None:
            return execute_command()
        return original(host, command_arguments, execute_command)

    pyinfra.connectors.ssh.execute_command_with_sudo_retry = execute
