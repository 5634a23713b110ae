"""A lab machine from the outside: make it, start it, talk to it, take its power away."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rtinfra.lab import accel, image, qemu, sshkeys, tools
from rtinfra.lab.errors import CommandFailed, KernelCrashed, LabError
from rtinfra.lab.inventory import inventory_yaml
from rtinfra.lab.qmp import Qmp, QmpError
from rtinfra.lab.spec import LAN_BLOCK, MachineSpec
from rtinfra.local import archive, programs
from rtinfra.local.lock import locked
from rtinfra.local.progress import Reporter
from rtinfra.paths import lab_directory

DEFAULT_NAME = "rt1"
_SSH_PORT = 22
# What a machine usually writes while it is provisioned and tested.
_MACHINE_SPACE = 3 * 1000**3
# Below the range the kernel gives to outgoing connections (32768 and up), which could hold a port for a moment.
_FIRST_PORT, _PORTS = 20000, 10000
_LAN_GROUP, _LAN_NETWORK = "230.0.0.77", "10.77.0"
#: The groups of a machine that nobody gave any.
DEFAULT_GROUPS = ("rt_hosts", "lab")
_CAPTURED_BYTES = 96
_BOOT_SECONDS = 10.0
# Terminal control: sequences that end with a letter, titles and colours set by "]", and single characters.
# The last line of a kernel that panicked and does not restart by itself (panic=0).
_STOPPED = b"---[ end Kernel panic"
_LAST_BYTES = 1000
_ESCAPE = re.compile(
    r"\x1b\[[0-9;?!]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[()][A-Z0-9]|\x1b[=>c78]"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)


@dataclass(frozen=True)
class MachineStatus:
    """What is known about a machine without changing anything."""

    name: str
    state: str
    """``absent`` (never made), ``off``, ``booting`` (running, ssh does not answer) or ``up``."""
    pid: int | None
    port: int | None
    forwards: dict[int, int]
    """Port of the guest -> port of 127.0.0.1 on this host."""
    accelerator: str
    cpus: int
    nodes: int
    memory_mb: int
    disk_used_bytes: int
    console: str


class Machine:
    """One virtual machine, identified by its name within a state directory.

    Methods raise LabError with a next step. ``spec`` None means: as it was made, or the default for a new one.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        spec: MachineSpec | None = None,
        root: Path | None = None,
        report: Reporter | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise LabError(
                f"{name!r} cannot be the name of a lab machine",
                "use small letters, digits and dashes, starting with a letter, for example rt1",
            )
        self.name = name
        self.root = root or lab_directory()
        self.directory = self.root / name
        self.key_path = self.directory / "id_ed25519"
        self.known_hosts_path = self.directory / "known_hosts"
        self.ssh_config_path = self.directory / "ssh_config"
        self.console_path = self.directory / "console.log"
        self.disk_path = self.directory / "disk.qcow2"
        self._record_path = self.directory / "machine.json"
        self._host_key_path = self.directory / "host_key"
        self._wanted = spec
        self._report = report or Reporter()

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def spec(self) -> MachineSpec:
        """The shape asked for, else the one the machine was made with, else the default."""
        if self._wanted is not None:
            return self._wanted
        stored = self._record().get("spec")
        return MachineSpec.from_json(stored) if stored else MachineSpec()

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 that leads to the machine's ssh. Raises LabError when it was never made."""
        return self.forwarded(_SSH_PORT)

    def forwarded(self, guest_port: int) -> int:
        """The port of 127.0.0.1 that leads to ``guest_port``; kept for the life of the machine."""
        ports = self._ports()
        if guest_port not in ports:
            raise LabError(
                f"no port of this host leads to port {guest_port} of {self.name}",
                f"make the machine with that port in its forwards, then start it: `rtinfra lab up {self.name}`",
            )
        return ports[guest_port]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups it is in, in the lab's inventory."""
        return tuple(self._record().get("groups", DEFAULT_GROUPS))

    def join(self, *groups: str) -> None:
        """Put the machine into these groups of the lab's inventory, and into no others."""
        with self._locked():
            self._write_record(groups=groups)
            self._write_inventory()

    @property
    def lan_addresses(self) -> tuple[str, ...]:
        """Its addresses on the network that the lab's machines share; none when it is not connected."""
        start = (int(self._record().get("lan_block", 0)) + 1) * LAN_BLOCK
        return tuple(f"{_LAN_NETWORK}.{start + number}" for number in range(self.spec.lan_addresses))

    def is_running(self) -> bool:
        """Whether the machine has power (it may still be booting)."""
        return qemu.running_pid(self._wiring) is not None

    def status(self) -> MachineStatus:
        """What is known about the machine; changes nothing."""
        pid = qemu.running_pid(self._wiring)
        ports = self._ports()
        state = "off" if self.disk_path.exists() else "absent"
        if pid is not None:
            state = "up" if self._greets(timeout=5) else "booting"
        spec = self.spec
        return MachineStatus(
            name=self.name,
            state=state,
            pid=pid,
            port=ports.get(_SSH_PORT),
            forwards={guest: host for guest, host in ports.items() if guest != _SSH_PORT},
            accelerator=str(self._record().get("accelerator", "")),
            cpus=spec.cpus,
            nodes=spec.nodes,
            memory_mb=spec.memory_mb,
            disk_used_bytes=self.disk_path.stat().st_blocks * 512 if self.disk_path.exists() else 0,
            console=str(self.console_path),
        )

    def console_tail(self, lines: int = 40) -> str:
        """The last lines of the serial console, without control characters."""
        try:
            text = self.console_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        cleaned = (_ESCAPE.sub("", line.rstrip("\r\n")) for line in text.splitlines())
        return "\n".join([line for line in cleaned if line.strip()][-lines:])

    # ---- power --------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Make the machine if needed, start it, and wait until ssh answers.

        Interrupted (Ctrl-C), it leaves no half-started machine behind.
        """
        with self._locked():
            self._up()

    def boot(self, timeout: float | None = None) -> None:
        """Switch on a machine that is off and wait, at most ``timeout`` seconds, until ssh answers."""
        with self._locked():
            if self.is_running():
                raise LabError(f"{self.name} is running already", f"see `rtinfra lab status {self.name}`")
            self._start_and_wait(timeout)

    def down(self, timeout: float = 120) -> None:
        """Shut the machine down as its power button would; after ``timeout`` seconds take its power away."""
        with self._locked():
            pid = qemu.running_pid(self._wiring)
            if pid is not None:
                with self._report.step(f"Shutting down {self.name}", usual=1.5 * accel.choose().slowness):
                    self._drop_connections()
                    with contextlib.suppress(QmpError), Qmp(self._wiring.qmp) as qmp:
                        qmp.execute("system_powerdown")
                    if not qemu.wait_gone(pid, timeout):
                        self._report.note(f"{self.name} does not shut down within {timeout:.0f} s: switching it off")
                    qemu.end(self._wiring)
            self._write_inventory()

    def reset(self) -> None:
        """Throw away everything on the machine's disk and start it as a bare, fresh host; keys are kept."""
        with self._locked():
            self._drop_connections()
            qemu.end(self._wiring)
            self.disk_path.unlink(missing_ok=True)
            self.console_path.unlink(missing_ok=True)
            ports = {guest: host for guest, host in self._ports().items() if qemu.port_is_free(host)}
            self._write_record(ports=ports)
            self._write_inventory()
            self._up()

    def power_cut(self) -> None:
        """Take the power away, in the middle of whatever the guest is doing; what is lost: `qemu.cut_off`."""
        with self._locked():
            self._require_running()
            self._drop_connections()
            qemu.cut_off(self._wiring)
            self._write_inventory()

    def as_cut_off(self, root: Path) -> Machine:
        """Make a machine of the same name and keys in state directory ``root``, as this one would be cut off now.

        This one stands still for a second or two and goes on. Raises LabError when there is one already.
        """
        twin = Machine(self.name, root=root, report=self._report)
        if twin.disk_path.exists():
            raise LabError(f"there is a machine {self.name} in {root}", "choose another directory, or delete this one")
        twin.directory.mkdir(parents=True, exist_ok=True)
        image.require_space(twin.directory, _MACHINE_SPACE, f"for a copy of {self.name}")
        with self._locked():
            self._require_running()
            with qemu.standing_still(self._wiring):
                fresh = twin.disk_path.with_suffix(".new")
                programs.execute(["cp", "--reflink=auto", "--sparse=always", self.disk_path, fresh], timeout=120)
            for key in (self.key_path, self._host_key_path):
                for file in (key, key.with_name(f"{key.name}.pub")):
                    shutil.copy2(file, twin.directory)
            twin._write_record(spec=asdict(self.spec), groups=self.groups)
        fresh.rename(twin.disk_path)
        return twin

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the processors meanwhile, as a hang that no watchdog ends: connections stay open, nobody answers."""
        self._require_running()
        with Qmp(self._wiring.qmp) as qmp:
            qmp.execute("stop")
        try:
            yield
        finally:
            with Qmp(self._wiring.qmp) as qmp:
                qmp.execute("cont")

    def capture(self, path: Path) -> None:
        """Write every packet of the card that leads outside to a pcap file, until the machine's power goes.

        Only the first bytes of each: addresses and ports (QEMU's filter-dump). What is captured already goes on.
        """
        name = f"capture-{path.stem}"
        with self._locked(), Qmp(self._wiring.qmp) as qmp:
            if any(entry["name"] == name for entry in qmp.execute("qom-list", path="/objects")):
                return
            path.unlink(missing_ok=True)
            dump: dict[str, Any] = {"qom-type": "filter-dump", "id": name, "file": str(path)}
            qmp.execute("object-add", **dump, netdev="network", maxlen=_CAPTURED_BYTES)

    @property
    def mac_address(self) -> str:
        """Hardware address of the card that leads outside."""
        return qemu.mac_address(self.name)

    def boot_id(self) -> str:
        """The kernel's name for this boot (proc_sys_kernel(5)); another one after every boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def wait_for_new_boot(self, before: str, timeout: float | None = None) -> None:
        """Wait until ssh answers on another boot than ``before``, at most ``timeout`` seconds."""
        seconds = self._boot_timeout() if timeout is None else timeout
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._drop_connections()
            self._wait_ssh(deadline - time.monotonic())
            with contextlib.suppress(LabError):  # it may go down this very moment
                if self.boot_id() != before:
                    return
            time.sleep(1)
        raise LabError(
            f"{self.name} did not reboot within {seconds:.0f} s",
            f"look at its console: `rtinfra lab log {self.name}`",
            self.console_tail(),
        )

    def has_crashed(self) -> bool:
        """Whether the kernel's last words are on the console, and nothing came after them."""
        with contextlib.suppress(FileNotFoundError), self.console_path.open("rb") as console:
            console.seek(max(0, console.seek(0, os.SEEK_END) - _LAST_BYTES))
            return _STOPPED in console.read().rstrip().rpartition(b"\n")[2]
        return False

    # ---- talking to it ------------------------------------------------------------------------------------

    def run(
        self, command: str, *, input: bytes | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root on the machine, over one kept ssh connection.

        Raises LabError when the machine is not up or ``timeout`` seconds pass, CommandFailed (with ``check``)
        for an exit code other than 0.
        """
        self._require_running()
        words = ["ssh", "-F", str(self.ssh_config_path), self.name, "--", command]
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        try:
            result = subprocess.run(words, capture_output=True, timeout=timeout, check=False, **stdin)
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"on {self.name}, this command did not finish within {timeout:.0f} s: {command}",
                f"see what the machine is doing with `rtinfra lab ssh {self.name}`",
                (error.stdout or b"").decode(errors="replace")[-2000:],
            ) from error
        stdout, stderr = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
        if check and result.returncode != 0:
            raise CommandFailed(self.name, command, result.returncode, stdout, stderr)
        return subprocess.CompletedProcess(command, result.returncode, stdout, stderr)

    def ssh_command(self, *words: str) -> list[str]:
        """The command line of an interactive session (or of ``words``). Raises LabError when not up."""
        self._require_running()
        return ["ssh", "-F", str(self.ssh_config_path), self.name, *words]

    # ---- inside -------------------------------------------------------------------------------------------

    @cached_property
    def _runtime(self) -> Path:
        """A short prefix for this machine's sockets, different for every state directory."""
        digest = hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
        return sshkeys.runtime_directory() / digest

    @property
    def _control_path(self) -> Path:
        return self._runtime.with_suffix(".ssh")

    @property
    def _wiring(self) -> qemu.Wiring:
        return qemu.Wiring(
            name=self.name,
            disk=self.disk_path,
            console=self.console_path,
            log=self.directory / "qemu.log",
            pidfile=self.directory / "qemu.pid",
            qmp=self._runtime.with_suffix(".qmp"),
            ports=tuple((host, guest) for guest, host in self._ports().items()),
            credentials=(
                ("ssh.authorized_keys.root", self.key_path.with_name("id_ed25519.pub")),
                ("lab.host_key", self._host_key_path),
                ("lab.hostname", self.directory / "hostname"),
                # Read by systemd-network-generator(8), in front of the image's own file for every card.
                *((("network.network.05-lan", self.directory / "lan.network"),) if self.spec.lan_addresses else ()),
            ),
            # One port for each state directory, so that two labs on one host do not hear each other.
            lan=(_LAN_GROUP, _FIRST_PORT + int(hashlib.sha256(str(self.root).encode()).hexdigest(), 16) % _PORTS),
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.directory / "lock", f"changing the machine {self.name}", timeout=900):
            yield

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._record_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return record

    def _write_record(self, **changes: Any) -> None:
        write_atomically(self._record_path, json.dumps({**self._record(), **changes}, indent=2) + "\n")

    def _ports(self) -> dict[int, int]:
        return {int(guest): host for guest, host in self._record().get("ports", {}).items()}

    def _up(self) -> None:
        tools.ensure_tools(self._report)
        spec = self.spec
        if self.is_running():
            stored = self._record().get("spec")
            if stored and MachineSpec.from_json(stored) != spec:
                raise LabError(
                    f"{self.name} is running with another shape than the one asked for",
                    f"`rtinfra lab down {self.name}` first, or leave the options away to use it as it is",
                )
            if not self._greets(timeout=5):
                with self._report.step(f"Waiting for {self.name}, which is booting", usual=self._boot_usual()):
                    self._wait_ssh()
            self._write_inventory()
        else:
            qemu.require_memory(spec, accel.choose())  # before anything is made
            self._make(spec)
            self._start_and_wait()

    def _make(self, spec: MachineSpec) -> None:
        """Bring files of a machine that is off in line with ``spec``; the disk only when there is none."""
        if not self.disk_path.exists():
            image.require_space(self.directory, _MACHINE_SPACE, f"for the machine {self.name}")
            if (warning := accel.weakness()) is not None:
                self._report.note(warning)
            base = image.ensure_image(spec, archive.discover(), self._report)
            fresh = self.disk_path.with_suffix(".new")
            programs.execute(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", fresh], timeout=60)
            fresh.rename(self.disk_path)
        else:
            stored = MachineSpec.from_json(self._record()["spec"])
            if (stored.suite, stored.disk_gb) != (spec.suite, spec.disk_gb):
                raise LabError(
                    f"the disk of {self.name} is made for Debian {stored.suite} with {stored.disk_gb} GiB,"
                    f" not {spec.suite} with {spec.disk_gb} GiB",
                    f"`rtinfra lab reset {self.name} --disk {spec.disk_gb}` makes a fresh one (what is on it is lost)",
                )
        self._write_record(spec=asdict(spec), ports=self._choose_ports(spec), lan_block=self._choose_lan_block())
        card = qemu.mac_address(self.name, card=1)
        addresses = "".join(f"Address={address}/24\n" for address in self.lan_addresses)
        write_atomically(self.directory / "lan.network", f"[Match]\nMACAddress={card}\n\n[Network]\n{addresses}")
        sshkeys.ensure_key(self.key_path, f"rtinfra lab {self.name}")
        host_key = sshkeys.ensure_key(self._host_key_path, self.name)
        write_atomically(self.directory / "hostname", self.name)
        write_atomically(self.known_hosts_path, sshkeys.known_hosts_line(self.port, host_key))
        config = sshkeys.client_config(self.name, self.port, self.key_path, self.known_hosts_path, self._control_path)
        write_atomically(self.ssh_config_path, config)

    def _choose_ports(self, spec: MachineSpec) -> dict[int, int]:
        """The ports chosen before, and free ones for what is new."""
        known = self._ports()
        taken = {port for machine in machines(self.root) for port in machine._ports().values()}
        # Starting at a different place in every state directory, so that two labs on one host rarely meet.
        offset = int(hashlib.sha256(str(self.root).encode()).hexdigest(), 16) % _PORTS
        candidates = (_FIRST_PORT + (offset + step) % _PORTS for step in range(_PORTS))
        chosen = {}
        for guest in (_SSH_PORT, *spec.forwards):
            chosen[guest] = known.get(guest) or next(
                port for port in candidates if port not in taken and qemu.port_is_free(port)
            )
        return chosen

    def _choose_lan_block(self) -> int:
        """The block of addresses it had before, else the first that no other machine has."""
        known = self._record().get("lan_block")
        if known is not None:
            return int(known)
        taken = {machine._record().get("lan_block") for machine in machines(self.root)}
        return next(block for block in range(24) if block not in taken)

    def _start_and_wait(self, timeout: float | None = None) -> None:
        self._require_disk()
        qemu.require_memory(self.spec, accel.choose())
        for port in self._ports().values():
            qemu.require_port(self.name, port)
        try:
            with self._report.step(f"Booting {self.name}", usual=self._boot_usual()):
                self._start()
                try:
                    self._wait_ssh(timeout)
                except KernelCrashed:
                    # The processor that QEMU emulates is not quite a real one. It is rare, and seldom comes twice.
                    self._report.note(f"The kernel of {self.name} crashed at its start: starting it once more")
                    qemu.end(self._wiring)
                    self._start()
                    self._wait_ssh(timeout)
        except KeyboardInterrupt:
            self._report.note(f"Interrupted: switching {self.name} off again")
            qemu.end(self._wiring)
            raise
        self._write_inventory()

    def _start(self) -> None:
        acceleration = accel.choose()
        with self.console_path.open("a", encoding="utf-8") as console:
            console.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')}: {self.name} boots ===\n")
        qemu.start(qemu.command_line(self.spec, self._wiring, acceleration))
        self._write_record(accelerator=acceleration.name)

    def _require_disk(self) -> None:
        if not self.disk_path.exists():
            raise LabError(f"there is no machine called {self.name}", f"make it: `rtinfra lab up {self.name}`")
        result = programs.execute(["qemu-img", "info", "-U", "--output=json", self.disk_path], timeout=60)
        base = Path(json.loads(result.stdout)["full-backing-filename"])
        if not base.exists():
            raise LabError(
                f"the base image under the disk of {self.name} is gone: {base}",
                f"`rtinfra lab reset {self.name}` makes a fresh machine (what was on it is lost)",
            )

    def _require_running(self) -> None:
        if not self.is_running():
            raise LabError(f"{self.name} is not up", f"start it: `rtinfra lab up {self.name}`")

    def _drop_connections(self) -> None:
        """End the kept ssh connection, which does not survive what comes next."""
        if self._control_path.exists():
            subprocess.run(
                ["ssh", "-F", str(self.ssh_config_path), "-O", "exit", self.name],
                capture_output=True,
                timeout=30,
                check=False,
            )
            self._control_path.unlink(missing_ok=True)

    def _boot_usual(self) -> float:
        return _BOOT_SECONDS * accel.choose().slowness

    def _boot_timeout(self) -> float:
        # Seen on two cores that were busy with something else: more than twice the usual time.
        return 60 + 5 * self._boot_usual()

    def _wait_ssh(self, timeout: float | None = None) -> None:
        """Wait until a login works.

        Raises LabError with the end of the console when it does not in time; KernelCrashed as soon as the kernel has
        stopped for good.
        """
        seconds = self._boot_timeout() if timeout is None else timeout
        deadline = time.monotonic() + seconds
        reason = "ssh did not answer"
        while time.monotonic() < deadline:
            if not self.is_running():
                reason = "its QEMU process ended"
                break
            if self.has_crashed():
                raise KernelCrashed(
                    f"the kernel of {self.name} crashed",
                    f"see why above; `rtinfra lab log {self.name}` shows more",
                    self.console_tail(),
                )
            if self._greets(timeout=5):
                try:
                    result = self.run("true", timeout=30, check=False)
                except LabError as error:
                    # A connection kept from before a reboot is dead and does not know it yet.
                    self._drop_connections()
                    reason = error.message
                else:
                    if result.returncode == 0:
                        return
                    reason = f"ssh answered but refused the login ({result.stderr.strip()})"
            time.sleep(0.3)
        raise LabError(
            f"{self.name} did not come up within {seconds:.0f} s: {reason}",
            f"the end of its console is above; `rtinfra lab log {self.name}` shows more,"
            f" `rtinfra lab reset {self.name}` starts it afresh",
            self.console_tail(),
        )

    def _greets(self, timeout: float) -> bool:
        """Whether an ssh server says hello. QEMU accepts connections even when nobody listens inside."""
        try:
            with socket.create_connection((qemu.LOOPBACK, self.port), timeout=timeout) as connection:
                connection.settimeout(timeout)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _write_inventory(self) -> None:
        """List the machines that run in ``<root>/inventory.yaml``; no file when there is none."""
        path = self.root / "inventory.yaml"
        running = [machine for machine in machines(self.root) if machine.is_running()]
        if running:
            write_atomically(path, inventory_yaml(running))
        else:
            path.unlink(missing_ok=True)


def machines(root: Path | None = None) -> list[Machine]:
    """All machines that were ever made in a state directory, by name."""
    directory = root or lab_directory()
    return [Machine(path.parent.name, root=directory) for path in sorted(directory.glob("*/machine.json"))]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, readable by this user only; readers see the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o600)
    temporary.rename(path)
