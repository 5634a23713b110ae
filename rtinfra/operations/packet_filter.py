"""The packet filter of a host: new rules are on trial until a new login came through them, otherwise they are undone.

The host takes them back by itself (packet_filter.sh): a run that dies, or that locked itself out, has nothing to do for
it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Final

import gevent
from pyinfra import logger
from pyinfra import state as pyinfra_state
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from rtinfra.facts.packet_filter import HASH_TABLE, LOADED, TABLE, UNIT, PacketFilterState
from rtinfra.operations.change import ActionRun, UnitChange
from rtinfra.operations.changes import record
from rtinfra.operations.files import changes
from rtinfra.operations.resources import Resource
from rtinfra.operations.scripts import script

_NAMES: Final = {"HASH_TABLE": HASH_TABLE, "TABLE_NAME": TABLE, "LOADED_FILE": LOADED, "UNIT_NAME": UNIT}
_SCRIPT: Final = reduce(lambda text, name: text.replace(name, _NAMES[name]), _NAMES, script("packet_filter.sh"))
#: Seconds after which a host takes new rules back by itself, and how long a new login may take within them.
TRIAL_SECONDS: Final = 45
_LOGIN_SECONDS: Final = 25
# What a command over a connection that may be dead gets, and how long past its time a host may need.
_LAST_WORD_SECONDS: Final = 5
_GRACE_SECONDS: Final = 15


@dataclass(frozen=True)
class PacketFilter:
    """What the filter of a host should be: `rules` as nft reads them, None: no table. `paths` are its files."""

    rules: bytes | None = field(repr=False)
    paths: Sequence[Resource]

    @property
    def sha256(self) -> str:
        """Hash of the rules."""
        return hashlib.sha256(self.rules or b"").hexdigest()


@operation()
def applied(desired: PacketFilter, found: PacketFilterState) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Load the rules on trial where they are not loaded, then place the files that a boot loads them from.

    `found` is what an earlier look at the host saw, so that nothing is asked here. When no new login comes through the
    rules, the operation fails and the host has its former ones.
    """
    if desired.rules is None:
        if found.table or found.is_enabled:
            record(ActionRun(name="packet filter", text="is taken away: everybody reaches every port"))
            yield _command("off")
    elif not found.has_loaded(desired.sha256):
        why = "the rules become others" if found.loaded_rules != desired.sha256 else "somebody changed the table"
        record(ActionRun(name="packet filter", text=f"{why if found.table else 'the rules are loaded'}, on trial"))
        yield _command(f"try {TRIAL_SECONDS}", desired.rules.decode())
        if pyinfra_state.is_executing:
            yield FunctionCommand(_confirm, (), {})
        yield _command(f"keep {desired.sha256}")
    yield from changes(desired.paths, found.files)
    if desired.rules is not None and not (found.is_enabled and found.is_active):
        record(UnitChange(name=UNIT, text="enable and start", because="a boot has to load the rules"))
        yield StringCommand(f"systemctl enable --quiet {UNIT} && systemctl start {UNIT}")


def _command(verb: str, stdin: str | None = None) -> StringCommand:
    text = f"set -- {verb}\n{_SCRIPT}"
    return StringCommand(text) if stdin is None else StringCommand(text, _stdin=stdin)


def _confirm(state: State, host: Host) -> bool:
    """Log in anew, with the rules on trial. When that fails, wait until the host has its former ones, and say so."""
    deadline = time.monotonic() + TRIAL_SECONDS + _GRACE_SECONDS
    # Its own words about a login that fails are told below, in ours.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    reason = _login(state, host, _LOGIN_SECONDS)
    if reason is None:
        return True
    logger.error("%sno new login comes through the new packet filter: %s", host.print_prefix, reason)
    try:
        # Over the connection that is open; where the rules cut it, the host's own clock does it.
        with gevent.Timeout(_LAST_WORD_SECONDS, TimeoutError()):
            host.run_shell_command(_command("back"))
    except Exception as error:  # whatever a dead connection says
        logger.debug("not over the open connection: %s", error)
    while (reason := _login(state, host, _LOGIN_SECONDS)) is not None and time.monotonic() < deadline:
        gevent.sleep(1)
    if reason is None:
        logger.error("%sits former rules are back, logging in works", host.print_prefix)
    else:
        logger.error("%sis not reached with its former rules either: %s", host.print_prefix, reason)
    logger.error(
        "%snext: see that packet_filter.ssh_from has the network of this computer, then run the deploy again",
        host.print_prefix,
    )
    return False


def _login(state: State, host: Host, seconds: float) -> str | None:
    """Open a connection of its own and close it; returns why that failed, None when it did not."""
    connector = type(host.connector)(state, host)
    try:
        with gevent.Timeout(seconds, TimeoutError(f"no answer within {seconds:.0f} s")):
            connector.connect()
            done, _ = connector.run_shell_command(StringCommand("true"), print_output=False, print_input=False)
    except Exception as error:  # every reason for which there is no login
        return str(error) or type(error).__name__
    finally:
        connector.disconnect()
    return None if done else "the login works, and the host runs no command"
