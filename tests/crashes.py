"""A scenario whose emulated kernel crashed is run once more: the emulator did that, not the project.

QEMU without KVM translates the guest's code on several threads at once. Now and then one of them keeps a translation
of the byte that the kernel writes where it changes its own code (a breakpoint), although it is gone. The processor
then runs into a breakpoint that nobody knows, and the kernel says `Oops: int3` and stops: at one start of twelve of a
real-time kernel on two busy cores. Nothing else is tried twice.
"""

from __future__ import annotations

from pathlib import Path

from rtinfra.lab import Machine

# What the kernel says then, and never for anything that a deploy could do to it.
_SIGN = b"Oops: int3"


class Consoles:
    """The consoles of all lab machines below the given folders."""

    def __init__(self, *labs: Path) -> None:
        self._labs = labs
        self._seen: dict[Path, int] = {}

    def mark(self) -> None:
        """From now on is what counts."""
        self._seen = {console: console.stat().st_size for console in self._all()}

    def crashed(self) -> list[Machine]:
        """The machines whose kernel crashed in this way since the mark."""
        return [
            Machine(console.parent.name, root=console.parent.parent)
            for console in self._all()
            if _SIGN in self._since(console)
        ]

    def _all(self) -> list[Path]:
        return sorted(console for lab in self._labs for console in lab.rglob("console.log"))

    def _since(self, console: Path) -> bytes:
        content = console.read_bytes()
        seen = self._seen.get(console, 0)
        # A machine that was made afresh has a console of its own.
        return content[seen:] if seen <= len(content) else content


def start_again(machine: Machine) -> None:
    """Start a machine that stands still after its crash; one that restarted by itself is left alone."""
    if machine.is_running() and machine.has_crashed():
        machine.power_cut()
        machine.start()
