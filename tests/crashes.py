"""A scenario whose emulated kernel crashed is run once more: the emulator did that, not the project.

QEMU before 8.1 without KVM may keep the translation of code that another processor changed in that moment
(`rtinfra.lab.accel.weakness`). A processor then runs into a breakpoint that the kernel had put into its own code for a
moment, and that is gone: `Oops: int3`, and that kernel is dead. With QEMU 7.2 on two busy cores that were 3 of 36
starts of a real-time kernel. Whatever else fails is not tried twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rtinfra.lab import Machine

# What a kernel says whose own code went wrong. No deploy brings it to that; a scenario may, by sysrq.
_SIGN = b"Oops: "
_ON_PURPOSE = b"sysrq: Trigger a crash"


class Consoles:
    """The consoles of all lab machines below the given folders."""

    def __init__(self, *labs: Path) -> None:
        self._labs = labs
        self._seen: dict[Path, int] = {}

    def mark(self) -> None:
        """From now on is what counts."""
        self._seen = {console: console.stat().st_size for console in self._all()}

    def crashed(self) -> list[Machine]:
        """The machines whose kernel crashed since the mark, without being told to."""
        return [
            Machine(console.parent.name, root=console.parent.parent)
            for console in self._all()
            if _SIGN in (said := self._since(console)) and _ON_PURPOSE not in said
        ]

    def _all(self) -> list[Path]:
        return sorted(console for lab in self._labs for console in lab.rglob("console.log"))

    def _since(self, console: Path) -> bytes:
        content = console.read_bytes()
        seen = self._seen.get(console, 0)
        # A machine that was made afresh has a console of its own.
        return content[seen:] if seen <= len(content) else content


class SecondChance:
    """The plugin for pytest that runs such a scenario once more, on machines that run again."""

    def __init__(self, consoles: Consoles) -> None:
        self._consoles = consoles
        self._crashed: list[Machine] = []

    def give(self, item: pytest.Item) -> None:
        """Let this scenario have it."""
        item.add_marker(pytest.mark.flaky(reruns=1, condition=self._is_due))

    def _is_due(self) -> bool:
        self._crashed = self._consoles.crashed()
        return bool(self._crashed)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        for machine in self._crashed:
            # One that restarted by itself is left alone.
            if machine.is_running() and machine.has_crashed():
                machine.power_cut()
                machine.boot()
        self._crashed = []
        self._consoles.mark()
