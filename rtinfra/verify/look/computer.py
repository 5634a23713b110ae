"""Which computer this is, and in what circumstances: hardware, virtualisation, clock, uptime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rtinfra.facts import host
from rtinfra.facts.host import HostState
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Computer:
    """A host and its circumstances.

    `machine_id_sha256` tells which installation it is without telling the id itself, machine-id(5). `model` is vendor,
    product and processor, `virtualisation` the word of systemd-detect-virt(1), `uptime` in seconds.
    """

    state: HostState
    machine_id_sha256: str
    host_key: str
    boot_id: str
    model: str
    virtualisation: str
    uptime: float

    @property
    def is_virtual(self) -> bool:
        """Whether the host is a virtual machine, on which latency means nothing."""
        return self.virtualisation != "none"


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask what the deploy asks before it changes anything, and who answers."""
    return {
        **host.COMMANDS,
        "machine_id": "{ echo rtinfra; cat /etc/machine-id; } | sha256sum",
        "host_key": (
            "for key in /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_*_key.pub; do "
            "ssh-keygen -l -f \"$key\" && break; done | cut -d' ' -f2"
        ),
        "boot_id": "cat /proc/sys/kernel/random/boot_id",
        "machine": (
            "cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name; "
            "sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo"
        ),
        "virtualisation": "systemd-detect-virt",
        "uptime": "cat /proc/uptime",
    }


def read(answer: Answer) -> Computer:
    """Read what `ask` asked."""
    return Computer(
        state=host.state_of(answer.sections),
        machine_id_sha256=answer.line("machine_id").partition(" ")[0],
        host_key=answer.line("host_key"),
        boot_id=answer.line("boot_id"),
        model=" ".join(dict.fromkeys(line.strip() for line in answer.filled("machine"))),
        virtualisation=answer.line("virtualisation") or "unknown",
        uptime=float((answer.line("uptime").split() or ["0"])[0]),
    )
