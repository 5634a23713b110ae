"""A lab machine from the outside: make it, start it, talk to it, take its power away."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from rtinfra.lab import accel, console, disk, image, network, qemu, seed, ssh, sshkeys, tools
from rtinfra.lab.disk import Storage
from rtinfra.lab.errors import KernelCrashed, LabError
from rtinfra.lab.inventory import inventory_yaml
from rtinfra.lab.qmp import Qmp, QmpError
from rtinfra.lab.record import Record, write_atomically
from rtinfra.lab.spec import MachineSpec
from rtinfra.lab.status import MachineStatus
from rtinfra.local import archive
from rtinfra.local.file_lock import locked
from rtinfra.local.progress import Reporter
from rtinfra.paths import lab_directory

DEFAULT_NAME = "rt1"
_SSH_PORT = 22
#: The groups of a machine that nobody gave any.
DEFAULT_GROUPS = ("rt_hosts", "lab")
_CAPTURED_BYTES = 96
_BOOT_SECONDS = 10.0


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
        self._storage = Storage.of(self.directory)
        self.disk_path = self._storage.disk
        self._record = Record(self.directory / "machine.json")
        self._host_key_path = self.directory / "host_key"
        self._required = spec
        self._report = report or Reporter()

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def spec(self) -> MachineSpec:
        """The shape asked for, else the one the machine was made with, else the default."""
        if self._required is not None:
            return self._required
        stored = self._record.read().get("spec")
        return MachineSpec.from_json(stored) if stored else MachineSpec()

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 that leads to the machine's ssh. Raises LabError when it was never made."""
        return self.forwarded(_SSH_PORT)

    def forwarded(self, guest_port: int) -> int:
        """The port of 127.0.0.1 that leads to ``guest_port``; kept for the life of the machine."""
        ports = self._record.ports
        if guest_port not in ports:
            raise LabError(
                f"no port of this host leads to port {guest_port} of {self.name}",
                f"make the machine with that port in its forwards, then start it: `rtinfra lab up {self.name}`",
            )
        return ports[guest_port]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups it is in, in the lab's inventory."""
        return tuple(self._record.read().get("groups", DEFAULT_GROUPS))

    def join(self, *groups: str) -> None:
        """Put the machine into these groups of the lab's inventory, and into no others."""
        with self._locked():
            self._record.write(groups=groups)
            self._write_inventory()

    @property
    def lan_addresses(self) -> tuple[str, ...]:
        """Its addresses on the network that the lab's machines share; none when it is not connected."""
        return network.lan_addresses(int(self._record.read().get("lan_block", 0)), self.spec.lan_addresses)

    @property
    def user(self) -> str:
        """Who logs in to it; somebody else than root becomes root by sudo."""
        return self.spec.user

    def is_running(self) -> bool:
        """Whether the machine has power (it may still be booting)."""
        return qemu.running_pid(self._wiring) is not None

    def status(self) -> MachineStatus:
        """What is known about the machine; changes nothing."""
        pid = qemu.running_pid(self._wiring)
        ports = self._record.ports
        state = "off" if self.disk_path.exists() else "absent"
        if pid is not None:
            state = "up" if ssh.greets(self.port, timeout=5) else "booting"
        spec = self.spec
        return MachineStatus(
            name=self.name,
            state=state,
            pid=pid,
            port=ports.get(_SSH_PORT),
            forwards={guest: host for guest, host in ports.items() if guest != _SSH_PORT},
            firmware=spec.firmware,
            accelerator=str(self._record.read().get("accelerator", "")),
            cpus=spec.cpus,
            nodes=spec.nodes,
            memory_mb=spec.memory_mb,
            disk_used_bytes=self.disk_path.stat().st_blocks * 512 if self.disk_path.exists() else 0,
            console=str(self.console_path),
        )

    def console_tail(self, lines: int = 40) -> str:
        """The last lines of the serial console, without control characters."""
        return console.tail(self.console_path, lines)

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
                    self._connection.drop()
                    with contextlib.suppress(QmpError), Qmp(self._wiring.qmp) as qmp:
                        qmp.execute("system_powerdown")
                    if not qemu.wait_gone(pid, timeout):
                        self._report.note(f"{self.name} does not shut down within {timeout:.0f} s: switching it off")
                    qemu.end(self._wiring)
            self._write_inventory()

    def reset(self) -> None:
        """Throw away everything on the machine's disk and start it as a bare, fresh host; keys are kept."""
        with self._locked():
            self._connection.drop()
            qemu.end(self._wiring)
            self._storage.remove()
            self.console_path.unlink(missing_ok=True)
            ports = {guest: host for guest, host in self._record.ports.items() if qemu.port_is_free(host)}
            self._record.write(ports=ports)
            self._write_inventory()
            self._up()

    def power_cut(self) -> None:
        """Take the power away, in the middle of whatever the guest is doing; what is lost: `qemu.cut_off`."""
        with self._locked():
            self._require_running()
            self._connection.drop()
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
        image.require_space(twin.directory, disk.SPACE, f"for a copy of {self.name}")
        with self._locked():
            self._require_running()
            for key in (self.key_path, self._host_key_path):
                for file in (key, key.with_name(f"{key.name}.pub")):
                    shutil.copy2(file, twin.directory)
            twin._record.write(spec=asdict(self.spec), groups=self.groups)
            with qemu.standing_still(self._wiring):
                self._storage.copy_to(twin._storage)
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
            self._connection.drop()
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
        return console.has_crashed(self.console_path)

    # ---- talking to it ------------------------------------------------------------------------------------

    def run(
        self, command: str, *, input: bytes | None = None, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root on the machine, over one kept ssh connection.

        Raises LabError when the machine is not up or ``timeout`` seconds pass, CommandFailed (with ``check``)
        for an exit code other than 0.
        """
        self._require_running()
        return self._connection.run(command, input=input, timeout=timeout, check=check)

    def ssh_command(self, *words: str) -> list[str]:
        """The command line of an interactive session (or of ``words``). Raises LabError when not up."""
        self._require_running()
        return self._connection.command(*words)

    # ---- inside -------------------------------------------------------------------------------------------

    @cached_property
    def _runtime(self) -> Path:
        """A short prefix for this machine's sockets, different for every state directory."""
        digest = hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
        return sshkeys.runtime_directory() / digest

    @property
    def _connection(self) -> ssh.Connection:
        return ssh.Connection(self.name, self.ssh_config_path, self._runtime.with_suffix(".ssh"), self.user)

    @property
    def _wiring(self) -> qemu.Wiring:
        return qemu.Wiring(
            name=self.name,
            disk=self.disk_path,
            variables=self._storage.variables,
            seed=self._storage.seed,
            console=self.console_path,
            log=self.directory / "qemu.log",
            pidfile=self.directory / "qemu.pid",
            qmp=self._runtime.with_suffix(".qmp"),
            ports=tuple((host, guest) for guest, host in self._record.ports.items()),
            credentials=() if self.spec.image else self._credentials,
            lan=network.lan_cable(self.root),
        )

    @property
    def _credentials(self) -> tuple[tuple[str, Path], ...]:
        return (
            ("ssh.authorized_keys.root", self.key_path.with_name("id_ed25519.pub")),
            ("lab.host_key", self._host_key_path),
            ("lab.hostname", self.directory / "hostname"),
            # Read by systemd-network-generator(8), in front of the image's own file for every card.
            *((("network.network.05-lan", self.directory / "lan.network"),) if self.spec.lan_addresses else ()),
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.directory / "lock", f"changing the machine {self.name}", timeout=900):
            yield

    def _up(self) -> None:
        tools.ensure_tools(self._report)
        spec = self.spec
        if self.is_running():
            stored = self._record.read().get("spec")
            if stored and MachineSpec.from_json(stored) != spec:
                raise LabError(
                    f"{self.name} is running with another shape than the one asked for",
                    f"`rtinfra lab down {self.name}` first, or leave the options away to use it as it is",
                )
            if not ssh.greets(self.port, timeout=5):
                with self._report.step(f"Waiting for {self.name}, which is booting", usual=self._boot_usual()):
                    self._wait_ssh()
            self._write_inventory()
        else:
            qemu.require_memory(spec, accel.choose())  # before anything is made
            self._make(spec)
            self._start_and_wait()

    def _make(self, spec: MachineSpec) -> None:
        """Bring files of a machine that is off in line with ``spec``; the disk only when there is none."""
        if self._storage.exists():
            disk.require_same_kind(self.name, MachineSpec.from_json(self._record.read()["spec"]), spec)
        self._storage.make(self.name, spec, self._report)
        self._record.write(spec=asdict(spec), ports=self._choose_ports(spec), lan_block=self._choose_lan_block())
        card = qemu.mac_address(self.name, card=1)
        write_atomically(self.directory / "lan.network", network.lan_file(card, self.lan_addresses))
        authorized_key = sshkeys.ensure_key(self.key_path, f"rtinfra lab {self.name}")
        host_key = sshkeys.ensure_key(self._host_key_path, self.name)
        write_atomically(self.directory / "hostname", self.name)
        write_atomically(self.known_hosts_path, sshkeys.known_hosts_line(self.port, host_key))
        if spec.image:
            self._write_seed(authorized_key, host_key, card)
        control = self._connection.control
        config = sshkeys.client_config(self.name, spec.user, self.port, self.key_path, self.known_hosts_path, control)
        write_atomically(self.ssh_config_path, config)

    def _write_seed(self, authorized_key: str, host_key: str, lan_card: str) -> None:
        identity = seed.Identity(
            name=self.name,
            authorized_key=authorized_key,
            host_key=self._host_key_path.read_text(encoding="ascii"),
            host_public_key=host_key,
            outside=self.mac_address,
            lan=lan_card,
            lan_addresses=self.lan_addresses,
            apt_options=archive.guest_options(archive.discover()),
        )
        seed.write(self._storage.seed, seed.files(identity))

    def _choose_ports(self, spec: MachineSpec) -> dict[int, int]:
        """The ports chosen before, and free ones for what is new."""
        known = self._record.ports
        taken = {port for machine in machines(self.root) for port in machine._record.ports.values()}
        return network.choose_ports(self.root, (_SSH_PORT, *spec.forwards), known, taken)

    def _choose_lan_block(self) -> int:
        """The block of addresses it had before, else the first that no other machine has."""
        known = self._record.read().get("lan_block")
        if known is not None:
            return int(known)
        taken = {machine._record.read().get("lan_block") for machine in machines(self.root)}
        return network.choose_lan_block(taken)

    def _start_and_wait(self, timeout: float | None = None) -> None:
        self._storage.require(self.name)
        qemu.require_memory(self.spec, accel.choose())
        for port in self._record.ports.values():
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
        with self.console_path.open("a", encoding="utf-8") as output:
            output.write(f"\n=== {time.strftime('%Y-%m-%d %H:%M:%S')}: {self.name} boots ===\n")
        qemu.start(qemu.command_line(self.spec, self._wiring, acceleration))
        self._record.write(accelerator=acceleration.name)

    def _require_running(self) -> None:
        if not self.is_running():
            raise LabError(f"{self.name} is not up", f"start it: `rtinfra lab up {self.name}`")

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
            if ssh.greets(self.port, timeout=5):
                try:
                    result = self.run("true", timeout=30, check=False)
                except LabError as error:
                    # A connection kept from before a reboot is dead and does not know it yet.
                    self._connection.drop()
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
