"""When a host is rebooted, and when a reboot is refused because it would not help."""

from __future__ import annotations

from dataclasses import replace

import gevent
import pytest

from rtinfra.facts.boot import BootState, Kept, Trial, parse_boot_state
from rtinfra.operations.boot import _Turns, console_tail, differences, refusal

DESIRED = ("isolcpus=managed_irq,domain,2-3", "nohz_full=2-3", "nosoftlockup")
GOOD = BootState(
    boot_id="a",
    release="6.12-rt",
    is_realtime=True,
    parameters=("root=UUID=1", "ro", *DESIRED),
    installed=("6.11-rt", "6.12-rt"),
    next_parameters=("root=UUID=1", "ro", *DESIRED),
    good=Kept("6.12-rt", ("root=UUID=1", "ro", *DESIRED)),
    default_is_good=True,
)


def test_nothing_to_do() -> None:
    assert differences(GOOD, DESIRED) == []
    assert refusal(GOOD, DESIRED) is None


def test_order_and_other_parameters_are_no_reason() -> None:
    shuffled = replace(GOOD, parameters=("quiet", *reversed(DESIRED), "root=UUID=1"))
    assert differences(shuffled, DESIRED) == []


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(GOOD, release="6.12-generic"), "runs kernel 6.12-generic, wanted 6.12-rt"),
        (replace(GOOD, parameters=DESIRED[:2]), "runs a command line that lacks nosoftlockup"),
        (replace(GOOD, parameters=(*DESIRED, "nohz_full=1")), "runs a command line that has nohz_full=1"),
        (replace(GOOD, parameters=(*DESIRED, "nohz-full=1")), "runs a command line that has nohz-full=1"),
        # Started by hand from another entry: what runs is right, and the next power cut would bring back the old one.
        (replace(GOOD, good=Kept("6.11-rt", DESIRED)), "would start with kernel 6.11-rt, wanted 6.12-rt"),
        (replace(GOOD, good=Kept("6.12-rt", DESIRED[:2])), "would start with a command line that lacks nosoftlockup"),
    ],
)
def test_reasons(state: BootState, reason: str) -> None:
    assert differences(state, DESIRED) == [reason]


def test_a_parameter_taken_out_of_the_settings_is_noticed() -> None:
    """The frozen entry knows what was ours. What others put on the command line is theirs."""
    before = replace(GOOD, parameters=(*GOOD.parameters, "mce=ignore_ce"))
    assert differences(before, DESIRED) == []
    ours = replace(before, good=Kept("6.12-rt", before.parameters, (*DESIRED, "mce=ignore_ce")))
    assert differences(ours, DESIRED) == ["runs a command line that has mce=ignore_ce"]


def test_an_old_kernel_is_not_booted() -> None:
    assert refusal(GOOD, DESIRED, "6.6") is None
    assert "older than rt_kernel.minimum_release 6.13" in (refusal(GOOD, DESIRED, "6.13") or "")


def test_a_variable_of_grub_may_not_bring_what_is_ours() -> None:
    """tuned#528: the reboot would be in vain. One that brings other words is somebody's own matter, as Ubuntu's is."""
    assert refusal(replace(GOOD, next_variables=("vt_handoff=", "vt_handoff=vt.handoff=7")), DESIRED) is None
    said = refusal(replace(GOOD, next_variables=("tuned_params=skew_tick=1 nohz-full=1",)), DESIRED) or ""
    assert "variable $tuned_params may put nohz-full=1 on the command line of 6.12-rt" in said


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(GOOD, installed=()), "no real-time kernel is installed"),
        (replace(GOOD, next_parameters=None), "has no entry for 6.12-rt"),
        (replace(GOOD, default_is_good=False), "GRUB_DEFAULT"),
        (replace(GOOD, good=None), "would not come back to a last known good entry"),
        (replace(GOOD, next_parameters=(*DESIRED, "nohz_full=1")), "nohz_full=1"),
        (replace(GOOD, next_parameters=(*DESIRED, DESIRED[0])), "GRUB would not set"),
        (replace(GOOD, next_parameters=DESIRED[:1]), "nohz_full=2-3"),
        # The same name to the kernel, which takes the last of them.
        (replace(GOOD, next_parameters=(*DESIRED, "nohz-full=1-3")), "nohz-full=1-3"),
    ],
)
def test_no_reboot_that_would_not_help(state: BootState, words: str) -> None:
    """Otherwise every run would reboot the host again."""
    assert words in (refusal(state, DESIRED) or "")


ARMED = Trial(id="abc", status="armed", release="6.13-rt", at="", boot="a", reason="not booted yet")


@pytest.mark.parametrize(
    ("trial", "is_open"),
    [
        (None, False),
        # Armed by a run that was cut off before the reboot: nobody waits for it.
        (ARMED, False),
        (replace(ARMED, boot="before"), True),
        (replace(ARMED, status="running"), True),
        (replace(ARMED, status="promoted", boot="before"), False),
        (replace(ARMED, status="failed", boot="before"), False),
    ],
)
def test_whether_a_trial_is_waited_for(trial: Trial | None, is_open: bool) -> None:
    assert replace(GOOD, trial=trial).trial_is_open is is_open


ANSWER = """\
@@boot_id
b2
@@release
6.12-rt
@@version
#1 SMP PREEMPT_RT Debian
@@cmdline
BOOT_IMAGE=/boot/rtinfra/abc/vmlinuz root=UUID=1 ro nosoftlockup rtinfra.good=abc
@@installed
6.11-rt
6.12-rt
@@grub_cfg
/boot/vmlinuz-6.12-rt	root=UUID=1 ro nosoftlockup
/boot/vmlinuz-6.12-rt	root=UUID=1 ro single
@@default
yes
@@saved_entry
saved_entry=rtinfra-good
@@kept
6.12-rt
root=UUID=1 ro nosoftlockup
nosoftlockup
@@trial
id=def
status=failed
release=6.13-rt
at=2026-01-31T12:00:00Z
boot=b1
reason=isolated cores are '' instead of 2-3
@@evidence
a line = of a log
@@guard
yes
Handover of the cell
""".splitlines()


def test_what_the_host_answers() -> None:
    state = parse_boot_state(ANSWER)
    words = ("root=UUID=1", "ro", "nosoftlockup")
    # Neither GRUB's own word nor the mark of our entries is a setting.
    assert state.parameters == state.next_parameters == words
    assert state.good == Kept("6.12-rt", words, ("nosoftlockup",))
    assert state.default_is_good
    assert state.trial == Trial(
        "def", "failed", "6.13-rt", "2026-01-31T12:00:00Z", "b1", "isolated cores are '' instead of 2-3"
    )
    assert state.evidence == ("a line = of a log",)
    assert state.guard == "Handover of the cell"


def test_a_bare_host_has_nothing_to_come_back_to() -> None:
    state = parse_boot_state(ANSWER[:6])
    assert (state.good, state.default_is_good, state.trial, state.guard) == (None, False, None, None)


def test_the_default_is_good_only_when_the_environment_says_so_too() -> None:
    answer = [line.replace("saved_entry=rtinfra-good", "saved_entry=0") for line in ANSWER]
    assert not parse_boot_state(answer).default_is_good


CONSOLE = """\
[    0.0] Linux version 6.12-rt
[    0.0] Command line: root=UUID=1 rtinfra.good=abc
\x1b[0;32mgood boot\x1b[0m
[    0.0] Linux version 6.13-rt
[    0.0] Command line: root=/dev/nothing rtinfra.trial=def
[    0.1] Kernel command line: root=/dev/nothing rtinfra.trial=def
ALERT! /dev/nothing does not exist
[    0.0] Linux version 6.12-rt
[    0.0] Command line: root=UUID=1 rtinfra.good=abc
"""


def test_the_console_of_one_trial() -> None:
    assert console_tail(CONSOLE, "def") == [
        "[    0.1] Kernel command line: root=/dev/nothing rtinfra.trial=def",
        "ALERT! /dev/nothing does not exist",
    ]
    assert console_tail(CONSOLE, None)[2] == "good boot"
    # A trial that printed nothing: all there is.
    assert len(console_tail(CONSOLE, "never")) == 9


def test_hosts_take_turns_and_the_first_failure_ends_it() -> None:
    turns, seen, most = _Turns(), [], 0

    def reboot(name: str) -> None:
        nonlocal most
        with turns.take(name, 2) as free:
            seen.append((name, free))
            most = max(most, len(turns.rebooting))
            gevent.sleep(0.01)
            if name == "c":
                turns.failed = name

    gevent.joinall([gevent.spawn(reboot, name) for name in "abcdef"], raise_error=True)
    assert most == 2
    assert dict(seen) == {"a": True, "b": True, "c": True, "d": True, "e": False, "f": False}
