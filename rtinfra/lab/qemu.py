"""The QEMU process of a machine: its command line, starting it, and knowing that a process is ours."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtinfra.lab.accel import Acceleration
from rtinfra.lab.errors import LabError
from rtinfra.lab.qmp import Qmp, QmpError
from rtinfra.lab.spec import MachineSpec
from rtinfra.local import programs

PROGRAM = "qemu-system-x86_64"
LOOPBACK = "127.0.0.1"
# What QEMU itself takes besides the guest's memory, in MiB; under TCG mostly the translated code.
_OVERHEAD_MB = {"kvm": 150, "tcg": 700}


@dataclass(frozen=True)
class Wiring:
    """The files and ports that connect a machine with this host."""

    name: str
    disk: Path
    variables: Path
    """What UEFI firmware remembers; not there for a BIOS."""
    seed: Path
    """What an operator's image is told at its first start; not there for other machines."""
    console: Path
    log: Path
    pidfile: Path
    qmp: Path
    ports: Sequence[tuple[int, int]]
    """(port on the host's 127.0.0.1, port of the guest)."""
    credentials: Sequence[tuple[str, Path]]
    """systemd credentials for the guest: name and file (systemd.system-credentials(7))."""
    lan: tuple[str, int]
    """Multicast group and port that stand for the cable between the lab's machines."""


def command_line(spec: MachineSpec, wiring: Wiring, acceleration: Acceleration) -> list[str]:
    """The command that boots the machine and leaves it in the background."""
    per_node = spec.cpus // spec.nodes
    words = [PROGRAM, "-name", f"rtinfra-{wiring.name}", "-daemonize", "-nodefaults", "-display", "none"]
    words += ["-pidfile", str(wiring.pidfile), "-D", str(wiring.log)]
    words += ["-qmp", f"unix:{wiring.qmp},server=on,wait=off"]
    words += [*acceleration.arguments, "-machine", spec.firmware.machine]
    words += ["-smp", f"{spec.cpus},sockets={spec.nodes},cores={per_node},threads=1"]
    words += ["-m", f"{spec.memory_mb}M"]
    for node in range(spec.nodes):
        size = spec.memory_mb // spec.nodes
        words += ["-object", f"memory-backend-ram,id=memory{node},size={size}M"]
        words += ["-numa", f"node,nodeid={node},memdev=memory{node}"]
    for node in range(spec.nodes):
        words += ["-numa", f"cpu,node-id={node},socket-id={node}"]
    # "unsafe" does not wait for this host's disk when the guest flushes, which is fast and loses data only when this
    # host crashes. What a power cut of the guest loses is in cut_off().
    words += ["-drive", f"file={wiring.disk},if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap"]
    # The first one: firmware starts from it without asking the network first, and QEMU keeps snapshots in it.
    words += ["-device", "virtio-blk-pci,drive=disk,serial=lab,bootindex=0"]
    words += spec.firmware.arguments(wiring.variables)
    if spec.image:
        words += ["-drive", f"file={wiring.seed},if=none,id=seed,format=raw,readonly=on"]
        words += ["-device", "virtio-blk-pci,drive=seed,serial=seed"]
    network = "user,id=network"
    if spec.restricted:
        network += ",restrict=on"
    for host, inside in wiring.ports:
        network += f",hostfwd=tcp:{LOOPBACK}:{host}-:{inside}"
    words += ["-netdev", network]
    words += ["-device", f"virtio-net-pci,netdev=network,mac={mac_address(wiring.name)},romfile="]
    if spec.lan_addresses:
        group, port = wiring.lan
        # Needs no rights, no bridge and no order of starting; localaddr keeps it on this host.
        words += ["-netdev", f"socket,id=lan,mcast={group}:{port},localaddr={LOOPBACK}"]
        words += ["-device", f"virtio-net-pci,netdev=lan,mac={mac_address(wiring.name, card=1)},romfile="]
    words += ["-device", "virtio-rng-pci"]
    # Two hardware watchdogs, as many real boards have. The chip set's own (iTCO) would never reset the machine
    # unless its "no reboot" strap is off.
    words += ["-device", "i6300esb", "-action", "watchdog=reset", "-global", "ICH9-LPC.noreboot=false"]
    words += ["-chardev", f"file,id=console,path={wiring.console},append=on", "-serial", "chardev:console"]
    for name, path in wiring.credentials:
        words += ["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file={path}"]
    return words


def mac_address(name: str, card: int = 0) -> str:
    """A stable address from the range QEMU uses for its cards; ``card`` 1 is the one on the lab's network."""
    digest = hashlib.sha256(f"{name}/{card}".encode() if card else name.encode()).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def require_memory(spec: MachineSpec, acceleration: Acceleration, meminfo: str | None = None) -> None:
    """Refuse to start a machine that would drive this host out of memory (``meminfo``: /proc/meminfo)."""
    text = Path("/proc/meminfo").read_text(encoding="ascii") if meminfo is None else meminfo
    available = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvailable:"))
    needed = spec.memory_mb + _OVERHEAD_MB[acceleration.name]
    if available // 1024 < needed:
        raise LabError(
            f"not enough memory: the lab machine needs {needed} MiB and this machine has"
            f" {available // 1024} MiB available",
            "stop another lab machine (`rtinfra lab down NAME`) or another program, or give this one less"
            " with --memory",
        )


def port_is_free(port: int) -> bool:
    """Whether a program could listen on this TCP port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As QEMU does; otherwise a connection closed a minute ago makes the port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_port(name: str, port: int) -> None:
    """Refuse to start when another program listens on the machine's port."""
    if not port_is_free(port):
        raise LabError(
            f"port {port} of this machine, which leads to the lab machine {name}, is in use by another program",
            f"see which one with `ss -ltnp 'sport = :{port}'` and stop it; or take another port, which also"
            f" starts {name} afresh: `rtinfra lab reset {name}`",
        )


def running_pid(wiring: Wiring) -> int | None:
    """The process id of this machine's QEMU, or None when it is not running."""
    try:
        pid = int(wiring.pidfile.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if is_ours(pid, wiring.pidfile) else None


def is_ours(pid: int, pidfile: Path, proc: Path = Path("/proc")) -> bool:
    """Whether ``pid`` is the QEMU that wrote ``pidfile``: process ids are used again by others."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return Path(os.fsdecode(words[0])).name == PROGRAM and os.fsencode(pidfile) in words


def start(command: Sequence[str]) -> None:
    """Start QEMU in the background. Raises LabError with QEMU's own words when it refuses."""
    result = programs.execute(command, timeout=120, check=False)
    if result.returncode != 0:
        raise LabError(
            "QEMU could not start the lab machine",
            "its words above say why; `rtinfra lab reset` starts afresh when the machine's disk is the reason",
            result.stdout[-2000:],
        )


def wait_gone(pid: int, timeout: float) -> bool:
    """Wait until a process has ended; False when it still runs after ``timeout`` seconds.

    Ended means that its ports and locks are free: a process on its way out has lost its command line (so it is
    no longer recognised as ours) while it still holds them.
    """
    deadline = time.monotonic() + timeout
    while _holds_resources(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _holds_resources(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        state = _state(process / "stat")
        threads = len(list((process / "task").iterdir()))
    except OSError:
        return False
    # A zombie (Z) has closed everything, but a process shows as one as soon as its first thread has ended, while
    # others may still hold its files.
    return state not in "ZX" or threads > 1


def _state(stat: Path) -> str:
    """The state of a process or thread, one letter as in ps(1)."""
    # It stands behind the name in parentheses.
    return stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]


def end(wiring: Wiring) -> None:
    """End the machine's process at once, orderly for its disk: harder when it does not obey."""
    pid = running_pid(wiring)
    if pid is not None:
        with contextlib.suppress(QmpError), Qmp(wiring.qmp) as qmp:
            qmp.quit()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if wait_gone(pid, timeout=15):
                break
            if is_ours(pid, wiring.pidfile):
                os.kill(pid, number)
        wait_gone(pid, timeout=15)
    _forget(wiring)


def cut_off(wiring: Wiring) -> None:
    """Take the machine's power away.

    Lost are what the guest's kernel had not written yet, and of what it had written without a flush after that all
    that went to new places of the disk: where those lie in the file is known to QEMU's process alone until the guest
    flushes. So a later write may be there and an earlier one not, as with the cache of a real disk.
    """
    pid = running_pid(wiring)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid, timeout=15)
    _forget(wiring)


@contextlib.contextmanager
def standing_still(wiring: Wiring) -> Iterator[None]:
    """Stop the process of a running machine meanwhile: its files are as they would be after `cut_off` now."""
    pid = running_pid(wiring)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        _wait_stopped(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _wait_stopped(pid: int, timeout: float = 10.0) -> None:
    """Wait until no thread of a process runs or writes any more, after it was told to stop."""
    deadline = time.monotonic() + timeout
    while any(_state(task / "stat") != "T" for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise LabError(f"process {pid} does not stand still", "is the disk of this computer very busy? Try again")
        time.sleep(0.01)


def _forget(wiring: Wiring) -> None:
    wiring.pidfile.unlink(missing_ok=True)
    wiring.qmp.unlink(missing_ok=True)
