"""The clock, as chrony keeps it, and who else could set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

# Processes with the right to set the clock (CAP_SYS_TIME, bit 25) whose program calls a function that keeps one going:
# names of functions stand between NULs. What sets the clock once, as hwclock does, calls others.
_KEEPERS: Final = r"""grep -slE '^CapEff:.[0-9a-f]{9}[2367abef][0-9a-f]{6}$' /proc/[0-9]*/status |
while IFS=/ read -r _ _ pid _; do
    [ -e "/proc/$pid/exe" ] && grep -szqxE '(clock_|ntp_)?adjtimex?' "/proc/$pid/exe" || continue
    printf '%s %s\n' "$pid" "$(tr '\0\n' '  ' <"/proc/$pid/cmdline")"
done"""


@dataclass(frozen=True)
class Keeper:
    """A process that keeps a clock going: its number and its command line."""

    pid: int
    command: str

    @property
    def keeps_the_hosts(self) -> bool:
        """Whether it is the host's clock. ptp4l keeps the one of a network card, but with software time stamps."""
        words = self.command.split()
        return not words or not words[0].endswith("ptp4l") or "-S" in words


@dataclass(frozen=True)
class Clock:
    """Columns of `chronyc -c tracking`, empty when chrony does not answer; and all that keep a clock going."""

    tracking: tuple[str, ...]
    keepers: tuple[Keeper, ...]

    @property
    def leap_status(self) -> str:
        """`Normal` while the clock is synchronised."""
        return self.tracking[-1] if self.tracking else "chrony does not answer"

    @property
    def is_synchronised(self) -> bool:
        """Whether chrony follows a source."""
        return len(self.tracking) > 4 and self.leap_status != "Not synchronised"

    @property
    def offset_seconds(self) -> float:
        """What remains between the clock and its source."""
        return float(self.tracking[4])


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask chrony, and look at all processes."""
    return {"clock_tracking": "chronyc -c tracking", "clock_keepers": _KEEPERS}


def read(answer: Answer) -> Clock:
    """Read what `ask` asked."""
    text = answer.line("clock_tracking")
    keepers = (line.partition(" ") for line in answer.filled("clock_keepers"))
    return Clock(
        tracking=tuple(text.split(",")) if text else (),
        keepers=tuple(Keeper(int(pid), command.strip()) for pid, _, command in keepers),
    )
