"""Reboot a host when what is booted is not what should run, and only then."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import gevent
from pyinfra import host as current_host
from pyinfra import logger
from pyinfra import state as pyinfra_state
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.exceptions import OperationError
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from rtinfra.facts.boot import Boot, BootState, parse_boot_state
from rtinfra.operations import reboots
from rtinfra.operations.changes import record

# Until a host that was told to reboot has closed its network, and how long one look may take on a slow host.
_SHUTDOWN_SECONDS = 5
_LOOK_SECONDS = 30


def _names(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in words}


def _version(release: str) -> tuple[int, ...]:
    """Return the leading major and minor number of a kernel release: "6.12.117+deb13-rt-amd64" is (6, 12)."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def differences(state: BootState, parameters: Sequence[str]) -> list[str]:
    """Say in words how the booted system differs from the wanted one; empty when it does not.

    Parameters are compared as a set, only those that `parameters` manages: what others put on the command
    line is theirs, and a reboot stops a robot cell.
    """
    found = []
    if state.release != state.newest:
        found.append(f"runs kernel {state.release}, wanted {state.newest}")
    booted = {word for word in state.parameters if word.partition("=")[0] in _names(parameters)}
    if missing := [word for word in parameters if word not in booted]:
        found.append(f"command line lacks {' '.join(missing)}")
    if extra := sorted(booted - set(parameters)):
        found.append(f"command line has {' '.join(extra)}")
    # A parameter that was taken out of the settings is in nobody's list any more; only the changed file tells.
    elsewhere = set(state.parameters) ^ set(state.next_parameters or state.parameters)
    if not found and state.changed_since_boot and elsewhere:
        found.append(f"the next boot differs in {' '.join(sorted(elsewhere))}")
    return found


def refusal(state: BootState, parameters: Sequence[str], minimum_release: str = "0.0") -> str | None:
    """Return why a reboot would not lead to the wanted state, None when it would.

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
    if not state.default_is_newest:
        return (
            f"GRUB would not boot {state.newest} by default; look for GRUB_DEFAULT in files of "
            "/etc/default/grub.d that sort after 60-rtinfra.cfg"
        )
    after = [word for word in state.next_parameters if word.partition("=")[0] in _names(parameters)]
    if sorted(after) != sorted(parameters):
        odd = sorted(set(after) ^ set(parameters)) or sorted(after)
        return (
            f"GRUB would not set the wanted command line ({' '.join(odd)} differs); look for a file of "
            "/etc/default/grub.d that sorts after 60-rtinfra.cfg"
        )
    return None


@operation()
def reboot_when_needed(
    image_pattern: str, parameters: Sequence[str], minimum_release: str, allowed: bool, timeout_seconds: int
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Reboot into the newest kernel matching `image_pattern` with exactly `parameters`, when not there yet.

    Raises:
        OperationError: when the reboot is not allowed, would not help, or would hit the control machine.
    """
    state: BootState = current_host.get_fact(Boot, image_pattern=image_pattern)
    reasons = differences(state, parameters)
    # While pyinfra only asks what would change, the kernel and the boot loader are still the old ones.
    reboot = reboots.foreseen_reboot(state, reasons, parameters, image_pattern, allowed)
    if reboot is None:
        current_host.noop(f"{state.release} runs with the wanted command line")
        return
    record(reboot)
    if not pyinfra_state.is_executing:
        yield StringCommand("systemctl reboot")
        return
    why = "; ".join(reasons)
    if (obstacle := refusal(state, parameters, minimum_release)) is not None:
        raise OperationError(f"a reboot is needed ({why}), but it would not help: {obstacle}")
    if not allowed:
        raise OperationError(
            f"a reboot is needed ({why}), and rt_kernel.reboot is `never`; reboot the host when the robot "
            "cell is idle, then run the deploy again"
        )
    if state.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip():
        raise OperationError("this is the control machine itself; it is never rebooted by a deploy")
    logger.info("%sreboot: %s", current_host.print_prefix, why)
    # Detached, so that the command's channel closes before the network goes away.
    yield StringCommand("systemd-run --quiet --on-active=1 systemctl reboot")
    yield FunctionCommand(_wait_for_new_boot, (state.boot_id, image_pattern, parameters, timeout_seconds), {})


def _wait_for_new_boot(
    state: State,
    host: PyinfraHost,
    old_boot_id: str,
    image_pattern: str,
    parameters: Sequence[str],
    timeout_seconds: int,
) -> bool:
    """Reconnect until the host answers from a new boot, then prove that it is the wanted one."""
    deadline = time.monotonic() + timeout_seconds
    report = _every(30, lambda passed: logger.info("%sstill waiting, %d s", host.print_prefix, passed))
    # Its own words about every failed attempt are no news while a host boots.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    gevent.sleep(_SHUTDOWN_SECONDS)
    while time.monotonic() < deadline:
        report()
        host.disconnect()
        try:
            found = _look(host, image_pattern)
        except Exception as error:  # any failure to talk to a rebooting host only means: not yet
            logger.debug("not back yet: %s", error)
        else:
            if found.boot_id and found.boot_id != old_boot_id:
                return _is_wanted(host, found, parameters)
        gevent.sleep(3)
    logger.error("%sdid not come back within %d s; look at its console", host.print_prefix, timeout_seconds)
    return False


def _look(host: PyinfraHost, image_pattern: str) -> BootState:
    """Connect anew and look at the boot state.

    Not through `get_fact`: a host that goes down in the middle of an answer never ends its connection, and a
    fact that fails counts its host as failed.

    Raises:
        TimeoutError: when the host does not answer in time.
    """
    with gevent.Timeout(_LOOK_SECONDS, TimeoutError("no answer")):
        host.connect(show_errors=False, raise_exceptions=True)
        _, output = host.run_shell_command(Boot().command(image_pattern=image_pattern))
    return parse_boot_state(output.stdout_lines)


def _is_wanted(host: PyinfraHost, found: BootState, parameters: Sequence[str]) -> bool:
    reasons = differences(found, parameters)
    if not found.is_realtime:
        reasons.append(f"{found.release} is not a PREEMPT_RT kernel")
    for reason in reasons:
        logger.error("%safter the reboot: %s", host.print_prefix, reason)
    if not reasons:
        logger.info("%sis back, running %s", host.print_prefix, found.release)
    return not reasons


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
