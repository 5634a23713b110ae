"""Connections to the hosts of the inventory through testinfra's ssh backend, quick and strict about host keys."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from rtinfra.config import FleetHost, SshSettings

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

    testinfra starts one ssh client per command. With a control socket all but the first use an open connection:
    some 10 ms instead of 200.
    """

    def __init__(self, hosts: Iterable[FleetHost[Any]]) -> None:
        # In /tmp, since the path of a socket must be shorter than 108 characters.
        self._directory = tempfile.TemporaryDirectory(prefix="rtv-", dir="/tmp")  # nosec B108 - mode 0700
        self._hosts = {host.name: host for host in hosts}
        self._config = Path(self._directory.name) / "config"
        self._round_trips: Counter[str] = Counter()
        self._config.write_text(ssh_config(self._hosts.values(), Path(self._directory.name)))

    def host(self, name: str) -> Host:
        """Return testinfra's view of a host; connects with its first command."""
        settings = self._hosts[name].ssh
        return testinfra.get_host(
            f"ssh://{name}",
            ssh_config=str(self._config),
            timeout=_CONNECT_SECONDS,
            sudo=settings.user != "root",
        )

    def feed(self, name: str, script: str, seconds: float | None = None) -> Output:
        """Run a shell script as root. It travels on standard input, so that it may hold secrets and be of any size.

        Raises:
            Unreachable: there is no connection, or no end of it within `seconds`.
        """
        self._round_trips[name] += 1
        # In braces the shell reads all of it before it begins, so that no command can take the rest for its input.
        whole = f"{{\n{script}\n}} </dev/null\n".encode()
        try:
            ended = subprocess.run(
                self.command(name, "sh -s"), input=whole, capture_output=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"{name} gave no answer within {seconds:.0f} s.") from error
        stderr = ended.stderr.decode("utf-8", "replace")
        if ended.returncode == _SSH_FAILED:
            raise Unreachable(explain(self._hosts[name].ssh, stderr))
        return Output(ended.returncode, ended.stdout.decode("utf-8", "replace"), stderr)

    def round_trips(self, name: str) -> int:
        """Return how many scripts a host was fed."""
        return self._round_trips[name]

    def command(self, name: str, command: str) -> list[str]:
        """Return the arguments of an ssh client that runs a command as root on a host."""
        as_root = "" if self._hosts[name].ssh.user == "root" else "sudo "
        return ["ssh", "-F", str(self._config), "-o", f"ConnectTimeout={_CONNECT_SECONDS}", name, as_root + command]

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
