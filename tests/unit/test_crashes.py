"""Only a crash of an emulated kernel, and only one that is new, lets a scenario be run once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes import Consoles

CRASH = "[    2.075642] Oops: int3: 0000 [#1] PREEMPT_RT SMP NOPTI\n"


@pytest.fixture
def console(tmp_path: Path) -> Path:
    """The console of a machine that crashed once, long ago."""
    path = tmp_path / "lab" / "robot" / "console.log"
    path.parent.mkdir(parents=True)
    path.write_text(f"Linux version 6.12\n{CRASH}Linux version 6.12\n")
    return path


@pytest.fixture
def consoles(console: Path, tmp_path: Path) -> Consoles:
    found = Consoles(tmp_path / "lab", tmp_path / "not there")
    found.mark()
    return found


def write(console: Path, text: str) -> None:
    with console.open("a") as file:
        file.write(text)


def test_a_crash_of_before_does_not_count(consoles: Consoles, console: Path) -> None:
    write(console, "systemd[1]: Startup finished\n")
    assert consoles.crashed() == []


def test_a_new_one_does(consoles: Consoles, console: Path) -> None:
    write(console, CRASH)
    assert [machine.name for machine in consoles.crashed()] == ["robot"]
    consoles.mark()
    assert consoles.crashed() == []


@pytest.mark.parametrize(
    "words",
    [
        "Kernel panic - not syncing: VFS: Unable to mount root fs",
        "Kernel panic - not syncing: Attempted to kill init!",
        "sysrq: Trigger a crash\nOops: 0002 [#1] PREEMPT_RT SMP",
    ],
)
def test_what_a_change_of_ours_may_cause_does_not(consoles: Consoles, console: Path, words: str) -> None:
    write(console, f"[    2.1] {words}\n")
    assert consoles.crashed() == []


def test_a_machine_made_afresh_has_a_new_console(consoles: Consoles, console: Path) -> None:
    console.write_text(CRASH)
    assert [machine.name for machine in consoles.crashed()] == ["robot"]
