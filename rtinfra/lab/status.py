"""How a lab machine is."""

from __future__ import annotations

from dataclasses import dataclass


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
    firmware: str
    accelerator: str
    cpus: int
    nodes: int
    memory_mb: int
    disk_used_bytes: int
    console: str
