"""Boot a host on trial when what is booted is not what should run, and only then.

The host itself proves the trial and goes back when it fails (templates/rt_kernel/boot.sh). What is here starts it, one
host after the other, and tells what became of it. docs/trial-boot.md has the whole story.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import gevent
from pyinfra import host as current_host
from pyinfra import logger
from pyinfra import state as pyinfra_state
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.exceptions import OperationError
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.connectors.util import CommandOutput

from rtinfra.facts.boot import (
    BOOT_PROGRAM,
    BUSY_HOOKS,
    DEFAULT_ENTRY_FILE,
    NO_REBOOT_FILE,
    Boot,
    BootState,
    parameter_name,
)
from rtinfra.operations import reboots
from rtinfra.operations.change import ActionRun
from rtinfra.operations.changes import record
from rtinfra.terminal import plain

# Until a host that was told to reboot has closed its network, and how long one look may take on a slow host.
_SHUTDOWN_SECONDS = 5
_LOOK_SECONDS = 30
_CONSOLE_LINES = 40
# How the program on the host begins its lines.
_SAYS = "rtinfra: "


def _names(words: Sequence[str]) -> set[str]:
    return {parameter_name(word) for word in words}


def _version(release: str) -> tuple[int, ...]:
    """Return the leading major and minor number of a kernel release: "6.12.117+deb13-rt-amd64" is (6, 12)."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _deviations(release: str, words: Sequence[str], state: BootState, parameters: Sequence[str]) -> Iterator[str]:
    if release != state.newest:
        yield f"kernel {release}, wanted {state.newest}"
    present = {word for word in words if parameter_name(word) in _names(parameters)}
    if missing := [word for word in parameters if word not in present]:
        yield f"a command line that lacks {' '.join(missing)}"
    # One that was taken out of the settings is in nobody's list any more; the frozen entry knows that it was ours.
    before = set(state.good.ours) & set(words) if state.good is not None else set()
    if extra := sorted((present | before) - set(parameters)):
        yield f"a command line that has {' '.join(extra)}"


def differences(state: BootState, parameters: Sequence[str]) -> list[str]:
    """Say in words how the booted system differs from the desired one; empty when it does not.

    Parameters are compared as a set, only those that `parameters` manages: what others put on the command
    line is theirs, and a reboot stops a robot cell. A system that runs as desired and would start as something else is
    not proven either.
    """
    found = [f"runs {text}" for text in _deviations(state.release, state.parameters, state, parameters)]
    if not found and state.good is not None:
        kept = _deviations(state.good.release, state.good.parameters, state, parameters)
        found += [f"would start with {text}" for text in kept]
    return found


def refusal(state: BootState, parameters: Sequence[str], minimum_release: str = "0.0") -> str | None:
    """Return why a reboot would not lead to the desired state, or not back from it; None when it would.

    Without this check a parameter that somebody sets in another file would mean a reboot in every run.
    """
    if state.newest is None:
        return "no real-time kernel is installed in /boot; look at the messages of its installation"
    if _version(state.newest) < _version(minimum_release):
        return f"the newest real-time kernel is {state.newest}, older than rt_kernel.minimum_release {minimum_release}"
    if state.next_parameters is None:
        return (
            f"/boot/grub/grub.cfg has no entry for {state.newest}; run update-grub on the host and look at its messages"
        )
    if state.good is None or not state.default_is_good:
        return (
            "GRUB would not come back to a last known good entry by itself; look for GRUB_DEFAULT in files of "
            f"/etc/default/grub.d that sort after {Path(DEFAULT_ENTRY_FILE).name}, run update-grub and "
            f"`{BOOT_PROGRAM} keep` on the host"
        )
    for name, value in (variable.split("=", 1) for variable in state.next_variables):
        ours = [word for word in value.split() if parameter_name(word) in _names(parameters)]
        if ours:
            return (
                f"GRUB's variable ${name} may put {' '.join(ours)} on the command line of {state.newest} as well; take"
                f" it out of what sets it (`grep -rn {name} /etc/grub.d /boot/grub/grub.cfg` on the host), then run"
                " update-grub"
            )
    after = [word for word in state.next_parameters if parameter_name(word) in _names(parameters)]
    if sorted(after) != sorted(parameters):
        odd = sorted(set(after) ^ set(parameters)) or sorted(after)
        return (
            f"GRUB would not set the wanted command line ({' '.join(odd)} differs); look for a file of "
            "/etc/default/grub.d that sorts after 60-rtinfra.cfg"
        )
    return None


def obstacle(state: BootState, allowed: bool) -> str | None:
    """Return who is against a reboot, and why; None when nobody is against it."""
    if not allowed:
        return "rt_kernel.reboot is `never`"
    if state.guard is not None:
        return f"{NO_REBOOT_FILE} on the host forbids it: {state.guard}"
    return None


@dataclass
class _Turns:
    """Turns to reboot: the hosts that have one, and the first that failed; after it nobody gets one."""

    rebooting: set[str] = field(default_factory=set)
    failed: str | None = None

    @contextmanager
    def take(self, name: str, at_once: int) -> Iterator[bool]:
        """Wait for a free place; yields False when no host may reboot any more."""
        while self.failed is None and len(self.rebooting) >= at_once:
            gevent.sleep(0.2)
        if self.failed is not None:
            yield False
            return
        self.rebooting.add(name)
        try:
            yield True
        finally:
            self.rebooting.discard(name)


# One for a run of pyinfra, whose hosts are worked on at the same time.
_turns: WeakKeyDictionary[State, _Turns] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Desired:
    """Desired kernel (shell pattern of its image) and command line, and how long hosts may take, how many at once."""

    image_pattern: str
    parameters: Sequence[str]
    timeout_seconds: int
    at_once: int


@operation()
def reboot_when_needed(
    image_pattern: str,
    parameters: Sequence[str],
    minimum_release: str,
    allowed: bool,
    timeout_seconds: int,
    at_once: int = 1,
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Boot the newest kernel matching `image_pattern` with exactly `parameters` on trial, when not there yet.

    `at_once` hosts of a run may be rebooting at a time.

    Raises:
        OperationError: when the reboot is not allowed, would not help, or would hit the control machine.
    """
    state: BootState = current_host.get_fact(Boot, image_pattern=image_pattern)
    desired = _Desired(image_pattern, parameters, timeout_seconds, at_once)
    reasons = differences(state, parameters)
    if state.trial is not None and state.trial_is_open and pyinfra_state.is_executing:
        # The run that started it was cut off; the host goes on without it.
        logger.info("%sa trial of %s is under way", current_host.print_prefix, state.trial.release)
        yield FunctionCommand(_await_outcome, (state.trial.id, desired), {})
        return
    # While pyinfra only asks what would change, the kernel and the boot loader are still the old ones.
    reboot = reboots.predicted_reboot(state, reasons, parameters, image_pattern, obstacle(state, allowed))
    if reboot is None:
        if state.good is None or not state.default_is_good:
            record(ActionRun(name="last known good", text="what runs is frozen as the entry that boots by itself"))
            yield StringCommand(f"{BOOT_PROGRAM} keep")
            return
        current_host.noop(f"{state.release} runs with the wanted command line")
        return
    record(reboot)
    if not pyinfra_state.is_executing:
        yield StringCommand("systemctl reboot")
        return
    why = "; ".join(reasons)
    if (useless := refusal(state, parameters, minimum_release)) is not None:
        raise OperationError(f"a reboot is needed ({why}), but it would not help: {useless}")
    if (forbidden := obstacle(state, allowed)) is not None:
        raise OperationError(
            f"a reboot is needed ({why}), but {forbidden}. Take that away when the robot cell is idle, then run the "
            "deploy again"
        )
    if state.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip():
        raise OperationError("this is the control machine itself; it is never rebooted by a deploy")
    yield FunctionCommand(_try, (why, state.boot_id, desired), {})


def _try(state: State, host: PyinfraHost, why: str, boot_id: str, desired: _Desired) -> bool:
    """Start the trial when it is this host's turn, and wait for its outcome."""
    turns = _turns.setdefault(state, _Turns())
    with turns.take(host.name, desired.at_once) as free:
        if not free:
            logger.error("%sis not rebooted, since %s did not come back as it should", host.print_prefix, turns.failed)
            return False
        logger.info("%sreboot: %s", host.print_prefix, why)
        if not _may_reboot(host):
            return False
        trial, found = _boot_once(host, boot_id, desired)
        if found is not None and found.trial is not None and (found.trial.id, found.trial.status) == (trial, "ended"):
            # Nothing says that it was the kernel: a power failure ends a trial in the same way.
            logger.warning("%sthe trial boot has no verdict: %s", host.print_prefix, found.trial.reason)
            logger.info("%sreboot: a second attempt tells", host.print_prefix)
            if not _may_reboot(host):
                return False
            trial, found = _boot_once(host, found.boot_id, desired)
        came_back = found is not None and _is_desired(host, found, trial, desired.parameters)
        if not came_back:
            turns.failed = host.name
        return came_back


def _may_reboot(host: PyinfraHost) -> bool:
    """Ask the host whether somebody or something is against a reboot right now. No failure: others may still reboot."""
    done, output = host.run_shell_command(StringCommand(f"{BOOT_PROGRAM} hold"))
    if not done:
        logger.error("%sa reboot is needed, but %s", host.print_prefix, _said(output))
        logger.error("%snext: run the deploy again when that is over (%s)", host.print_prefix, BUSY_HOOKS)
    return done


def _boot_once(host: PyinfraHost, boot_id: str, desired: _Desired) -> tuple[str, BootState | None]:
    """Prepare the trial and reboot.

    Returns the trial's id and what the host says when it knows the outcome: None when it never does.
    """
    done, output = host.run_shell_command(StringCommand(f"{BOOT_PROGRAM} try"))
    if not done:
        said = _said(output)
        logger.error("%sthe trial boot was not started: %s", host.print_prefix, said)
        if said.startswith("tried before"):
            next_step = f"change what made it fail. To try the same once more: `{BOOT_PROGRAM} forget` on the host"
            logger.error("%snext: %s, then the deploy", host.print_prefix, next_step)
        return "", None
    # Its last line is the trial's id. Detached, so that the command's channel closes before the network goes away.
    done, _ = host.run_shell_command(StringCommand("systemd-run --quiet --on-active=1 systemctl reboot"))
    trial = "".join(output.stdout_lines[-1:]).removeprefix(_SAYS)
    return trial, _outcome(host, boot_id, desired) if done else None


def _said(output: CommandOutput) -> str:
    """Return why the program on the host did nothing."""
    # A hook of somebody else may be among those who speak.
    return " ".join(plain(line).removeprefix(_SAYS) for line in output.stderr_lines or output.stdout_lines)


def _await_outcome(state: State, host: PyinfraHost, trial: str, desired: _Desired) -> bool:
    """Wait for the outcome of a trial that another run started."""
    found = _outcome(host, "", desired)
    return found is not None and _is_desired(host, found, trial, desired.parameters)


def _outcome(host: PyinfraHost, old_boot_id: str, desired: _Desired) -> BootState | None:
    """Reconnect until the host, on another boot than `old_boot_id`, knows what became of its trial."""
    deadline = time.monotonic() + desired.timeout_seconds
    report = _every(30, lambda passed: logger.info("%sstill waiting, %d s", host.print_prefix, passed))
    # Its own words about every failed attempt are no news while a host boots.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    gevent.sleep(_SHUTDOWN_SECONDS)
    while time.monotonic() < deadline:
        report()
        host.disconnect()
        try:
            found = _look(host, desired.image_pattern)
        except Exception as error:  # any failure to talk to a rebooting host only means: not yet
            logger.debug("not back yet: %s", error)
        else:
            if found.boot_id not in ("", old_boot_id) and not found.trial_is_open:
                return found
        gevent.sleep(3)
    logger.error("%sis not back after %d s", host.print_prefix, desired.timeout_seconds)
    _show_console(host)
    logger.error(
        "%snext: look at its console. Switched off and on, it starts its last known good kernel", host.print_prefix
    )
    return None


def _look(host: PyinfraHost, image_pattern: str) -> BootState:
    """Connect anew and look at the boot state.

    Not through `get_fact`: a host that goes down in the middle of an answer never ends its connection, and a
    fact that fails counts its host as failed.

    Raises:
        TimeoutError: when the host does not answer in time.
    """
    with gevent.Timeout(_LOOK_SECONDS, TimeoutError("no answer")):
        host.connect(show_errors=False, raise_exceptions=True)
        fact = Boot()
        _, output = host.run_shell_command(fact.command(image_pattern=image_pattern))
    return fact.process(output.stdout_lines)


def _is_desired(host: PyinfraHost, found: BootState, tried: str, parameters: Sequence[str]) -> bool:
    """Tell what runs now, and why it is not what was `tried` (the trial's id)."""
    reasons = differences(found, parameters)
    has_failed = found.trial is not None and found.trial.id == tried and found.trial.status in ("failed", "ended")
    if not reasons and found.is_realtime and not has_failed:
        logger.info("%sis back, running %s, from now on its last known good", host.print_prefix, found.release)
        return True
    trial = found.trial
    if trial is not None and has_failed:
        logger.error("%sthe trial boot of %s failed: %s", host.print_prefix, trial.release, trial.reason)
        for line in found.evidence:
            logger.error("%s| %s", host.print_prefix, line)
        if not found.evidence:
            _show_console(host, trial.id)
        logger.error(
            "%sis back on its last known good: %s with its command line of before", host.print_prefix, found.release
        )
        return False
    if not found.is_realtime:
        reasons.append(f"{found.release} is not a PREEMPT_RT kernel")
    for reason in reasons:
        logger.error("%safter the reboot: %s", host.print_prefix, reason)
    return False


def _show_console(host: PyinfraHost, trial: str | None = None) -> None:
    """Show the end of the host's console, or of a trial on it, where the inventory names a file that receives it."""
    console = host.data.get("console_log")
    if not console:
        return
    try:
        text = Path(console).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        logger.error("%sits console cannot be read: %s", host.print_prefix, error)
        return
    logger.error("%sthe end of its console (%s):", host.print_prefix, console)
    for line in console_tail(text, trial)[-_CONSOLE_LINES:]:
        logger.error("%s| %s", host.print_prefix, line)


def console_tail(text: str, trial: str | None) -> list[str]:
    """Return the printable lines of a console log; only those of one boot when a trial's id is given.

    A boot begins where the kernel prints its command line, and ends where the next one says its version.
    """
    lines = [
        line for raw in text.splitlines() if (line := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e]", "", raw).strip())
    ]
    if trial is None:
        return lines
    starts = [number for number, line in enumerate(lines) if f"rtinfra.trial={trial}" in line]
    if not starts:
        return lines
    # The command line is printed more than once; the next boot loader and kernel only after all of that.
    following = range(starts[-1], len(lines))
    ends = (number for number in following if "GNU GRUB" in lines[number] or "Linux version " in lines[number])
    return lines[starts[-1] : next(ends, len(lines))]


def _every(seconds: float, call: Callable[[float], None]) -> Callable[[], None]:
    """Return a function that forwards to `call` at most every `seconds`, with the time since the start."""
    start = last = time.monotonic()

    def maybe() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            call(now - start)

    return maybe
