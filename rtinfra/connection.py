"""Connections to the hosts of the inventory through OpenSSH's client, as root, quick and strict about host keys."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from rtinfra import sudo
from rtinfra.config import FleetHost, SshSettings
from rtinfra.local.errors import LocalError
from rtinfra.passwords import PASSWORDS

_CONNECT_SECONDS = 30
# ssh's own exit status when it is not the command's, ssh(1).
_SSH_FAILED = 255


class Unreachable(Exception):
    """A host that cannot be reached; the text says why and what to do, for a reader without IT knowledge."""


@dataclass(frozen=True)
class Output:
    """What a command on a host said and how it ended."""

    status: int
    text: str
    errors: str = field(default="", repr=False)


class Connections:
    """One multiplexed ssh connection for each host, closed together.

    Every command is a client of its own. With a control socket all but the first use an open connection: some 10 ms
    instead of 200.
    """

    def __init__(self, hosts: Iterable[FleetHost[Any]]) -> None:
        # In /tmp, since the path of a socket must be shorter than 108 characters.
        self._directory = tempfile.TemporaryDirectory(prefix="rtv-", dir="/tmp")  # nosec B108 - mode 0700
        self._hosts = {host.name: host for host in hosts}
        self._config = Path(self._directory.name) / "config"
        self._round_trips: Counter[str] = Counter()
        # Hosts whose sudo has taken the password.
        self._taken: set[str] = set()
        self._config.write_text(ssh_config(self._hosts.values(), Path(self._directory.name)))

    def host(self, name: str) -> Host:
        """Return testinfra's view of a host; connects with its first command."""
        return Host(_Backend(self, name))

    def feed(self, name: str, script: str, seconds: float | None = None) -> Output:
        """Run a shell script as root. It travels on standard input, so that it may hold secrets and be of any size.

        Raises:
            Unreachable: there is no connection, sudo runs nothing, or there is no end of it within `seconds`.
        """
        self._round_trips[name] += 1
        ended = self.run(name, script, seconds)
        return Output(ended.returncode, *(said.decode("utf-8", "replace") for said in (ended.stdout, ended.stderr)))

    def run(self, name: str, script: str, seconds: float | None = None) -> subprocess.CompletedProcess[bytes]:
        """As `feed`, uncounted and with the bytes that came."""
        arguments, head = self._login(name, "exec sh -s")
        # In braces the shell reads all of it before it begins, so that no command can take the rest for its input.
        whole = f"{head}{{\n{script}\n}} </dev/null\n".encode()
        try:
            ended = subprocess.run(arguments, input=whole, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"{name} gave no answer within {seconds:.0f} s.") from error
        self.ended(name, ended.returncode, ended.stderr.decode("utf-8", "replace"))
        return ended

    def start(self, name: str, command: str) -> subprocess.Popen[str]:
        """Begin a command as root whose output is read while it comes, after one that `feed` was given.

        Raises:
            Unreachable: there is no password for sudo.
        """
        arguments, head = self._login(name, f"exec {command}")
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace",
        )  # fmt: skip
        assert process.stdin is not None
        # A client that has ended by then says why itself.
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(head)
        return process

    def round_trips(self, name: str) -> int:
        """Return how many scripts a host was fed."""
        return self._round_trips[name]

    def ended(self, name: str, status: int, said: str) -> None:
        """Take note of how a command ended, and what came on its standard error.

        Raises:
            Unreachable: there was no connection, or sudo ran nothing.
        """
        ssh = self._hosts[name].ssh
        if status == _SSH_FAILED:
            raise Unreachable(explain(ssh, said))
        if status and ssh.become and (refusal := sudo.refusal(ssh.user, said)) is not None:
            raise Unreachable(str(refusal))
        self._taken.add(name)

    def close(self) -> None:
        """Close all connections."""
        for name in self._hosts:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    ["ssh", "-F", str(self._config), "-O", "exit", name],
                    check=False,
                    capture_output=True,
                    timeout=10,
                )
        self._directory.cleanup()

    def _login(self, name: str, script: str) -> tuple[list[str], str]:
        """Return the arguments of an ssh client that runs a short script as root, and what it is told first."""
        ssh = self._hosts[name].ssh
        client = ["ssh", "-F", str(self._config), "-o", f"ConnectTimeout={_CONNECT_SECONDS}", name]
        if not ssh.become:
            return [*client, script], ""
        try:
            secret = PASSWORDS.of(ssh)
        except LocalError as error:
            raise Unreachable(str(error)) from error
        words = sudo.command(password=secret is not None, tried=name in self._taken)
        return [*client, words], sudo.head(script, None if secret is None else secret.get_secret_value())


class _Backend(BaseBackend):  # type: ignore[misc]  # without type information
    """testinfra's way to a host: through the connection that is open, as root."""

    NAME = "ssh"

    def __init__(self, connections: Connections, name: str) -> None:
        super().__init__(name)
        self._connections, self._name = connections, name

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a command whose `%s` are `args`, quoted."""
        whole = self.get_command(command, *args)
        ended = self._connections.run(self._name, whole)
        return self.result(ended.returncode, self.encode(whole), ended.stdout, ended.stderr)


def ssh_config(hosts: Iterable[FleetHost[Any]], directory: Path) -> str:
    """Return an ssh_config(5) that knows the given hosts by their inventory names."""
    lines = [
        "StrictHostKeyChecking yes",
        "BatchMode yes",
        "ControlMaster auto",
        f'ControlPath "{directory}/%C"',
        "ControlPersist 60",
        f"ServerAliveInterval {SshSettings.ALIVE_INTERVAL_SECONDS}",
        f"ServerAliveCountMax {SshSettings.ALIVE_COUNT_MAX}",
    ]
    for host in hosts:
        ssh = host.ssh
        lines += [
            f"Host {host.name}",
            f"  HostName {ssh.address}",
            f"  Port {ssh.port}",
            f"  User {ssh.user}",
        ]
        if ssh.known_hosts is not None:
            lines.append(f'  UserKnownHostsFile "{ssh.known_hosts.expanduser()}"')
        if ssh.key is not None:
            lines += [f'  IdentityFile "{ssh.key.expanduser()}"', "  IdentitiesOnly yes"]
    return "\n".join(lines) + "\n"


def explain(ssh: SshSettings, stderr: str) -> str:
    """Turn what the ssh client said into a sentence with its remedy."""
    where = f"{ssh.user}@{ssh.address} port {ssh.port}"
    known_hosts = ssh.known_hosts or Path("~/.ssh/known_hosts")
    said = stderr.lower()
    if "identification has changed" in said:
        return (
            f"{where} shows another host key than the one in {known_hosts}. Either the machine was installed "
            "anew, or another machine answers in its place: compare with what the host's own screen shows, and "
            f"only then replace the key in {known_hosts}."
        )
    if "host key verification failed" in said:
        return (
            f"the host key of {where} is not known. Add it with `ssh-keyscan -p {ssh.port} {ssh.address} >> "
            f"{known_hosts}` and compare it with what the host's own screen shows."
        )
    if "permission denied" in said:
        key = f" with the key {ssh.key}" if ssh.key else ""
        return f"{where} does not let us log in{key}. Put our public key into the user's authorized_keys there."
    if "could not resolve" in said:
        return f"nobody knows an address for {ssh.address}. Correct `ssh.address` in the inventory."
    for sign, meaning in (
        ("connection refused", "is there, but no SSH server answers on that port"),
        ("timed out", "does not answer: it is off, or a firewall is in between"),
        ("no route to host", "cannot be reached over the network"),
    ):
        if sign in said:
            return f"{where} {meaning}."
    last = (stderr.strip().splitlines() or ["it gave no reason"])[-1]
    return f"{where} cannot be reached. The ssh client says: {last}"
