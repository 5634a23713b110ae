"""When a host is rebooted, and when a reboot is refused because it would not help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rtinfra.facts.boot import BootState
from rtinfra.operations.boot import differences, refusal

WANTED = ("isolcpus=managed_irq,domain,2-3", "nohz_full=2-3", "nosoftlockup")
GOOD = BootState(
    boot_id="a",
    release="6.12-rt",
    is_realtime=True,
    parameters=("root=UUID=1", "ro", *WANTED),
    installed=("6.11-rt", "6.12-rt"),
    next_parameters=("root=UUID=1", "ro", *WANTED),
    default_is_newest=True,
    changed_since_boot=False,
)


def test_nothing_to_do() -> None:
    assert differences(GOOD, WANTED) == []
    assert refusal(GOOD, WANTED) is None


def test_order_and_other_parameters_are_no_reason() -> None:
    shuffled = replace(GOOD, parameters=("quiet", *reversed(WANTED), "root=UUID=1"))
    assert differences(shuffled, WANTED) == []


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(GOOD, release="6.12-generic"), "runs kernel 6.12-generic, wanted 6.12-rt"),
        (replace(GOOD, parameters=WANTED[:2]), "command line lacks nosoftlockup"),
        (replace(GOOD, parameters=(*WANTED, "nohz_full=1")), "command line has nohz_full=1"),
    ],
)
def test_reasons(state: BootState, reason: str) -> None:
    assert differences(state, WANTED) == [reason]


def test_a_parameter_taken_out_of_the_settings_is_noticed_by_the_changed_file_only() -> None:
    """Without the marker of a changed drop-in, what others put on the command line is theirs."""
    before = replace(GOOD, parameters=(*GOOD.parameters, "mce=ignore_ce"))
    assert differences(before, WANTED) == []
    assert differences(replace(before, changed_since_boot=True), WANTED) == ["the next boot differs in mce=ignore_ce"]
    assert differences(replace(GOOD, changed_since_boot=True), WANTED) == []


def test_an_old_kernel_is_not_booted() -> None:
    assert refusal(GOOD, WANTED, "6.6") is None
    assert "older than rt_kernel.minimum_release 6.13" in (refusal(GOOD, WANTED, "6.13") or "")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(GOOD, installed=()), "no real-time kernel is installed"),
        (replace(GOOD, next_parameters=None), "has no entry for 6.12-rt"),
        (replace(GOOD, default_is_newest=False), "GRUB_DEFAULT"),
        (replace(GOOD, next_parameters=(*WANTED, "nohz_full=1")), "nohz_full=1"),
        (replace(GOOD, next_parameters=(*WANTED, WANTED[0])), "GRUB would not set"),
        (replace(GOOD, next_parameters=WANTED[:1]), "nohz_full=2-3"),
    ],
)
def test_no_reboot_that_would_not_help(state: BootState, words: str) -> None:
    """Otherwise every run would reboot the host again."""
    assert words in (refusal(state, WANTED) or "")
