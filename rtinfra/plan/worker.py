"""The process in which pyinfra works: `python -m rtinfra.plan.worker`, started by rtinfra.plan.worker_process.

A process of its own, because pyinfra makes the standard library of its process a cooperative one. It does what
`pyinfra inventory deploy.py` does, in the same order and with the same settings, and tells every step as one line of
JSON on standard output. Standard input is one line with what to do; the operations are carried out only after a
second one that says so.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

# First: it makes the standard library cooperative.
import pyinfra_cli  # isort: skip # noqa: F401
import click
import gevent
import pyinfra
from pyinfra.api import Config, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operations import run_ops
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state
from pyinfra_cli.exceptions import UnexpectedExternalError
from pyinfra_cli.util import exec_file, load_deploy_file

from roles.fleet import load_checked_hosts
from rtinfra.config import ConfigError
from rtinfra.hosts import HostsError, inventory_file, selected
from rtinfra.inventory import make_inventory
from rtinfra.local.errors import LocalError
from rtinfra.operations import changes
from rtinfra.operations.changes import Recorder
from rtinfra.passwords import PASSWORDS
from rtinfra.paths import PROJECT
from rtinfra.plan.observed import Observations, host_plan, name_of


class Events:
    """Lines of JSON for whoever started this process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def tell(self, event: str, **values: Any) -> None:
        """Tell one event."""
        self._stream.write(json.dumps({"event": event, **values}, ensure_ascii=False) + "\n")
        self._stream.flush()


class _Log(logging.Handler):
    """pyinfra's log and that of the operations, as events."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.INFO)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        text = click.unstyle(record.getMessage())
        if text.strip():
            self._events.tell("log", level=record.levelname.lower(), text=text)


class _Progress(BaseStateCallback):
    """Tells what becomes of each operation on each host. It has a state: pyinfra's own methods have none."""

    def __init__(self, events: Events, recorder: Recorder) -> None:
        self._events, self._recorder = events, recorder
        self._began: dict[tuple[str, str], float] = {}
        self._took: dict[tuple[str, str], float] = {}

    def operation_host_start(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str
    ) -> None:
        if op_hash in state.ops[host]:
            self._began[host.name, op_hash] = time.monotonic()
            self._events.tell("started", host=host.name, operation=name_of(state, op_hash))

    def operation_host_success(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        self._took[host.name, op_hash] = time.monotonic() - self._began[host.name, op_hash]

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        self.operation_host_success(state, host, op_hash)
        self._tell(state, host, op_hash, "failed")

    def operation_end(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        # Only now pyinfra knows whether it changed anything.
        for host in state.inventory:
            if (host.name, op_hash) in self._took:
                did_change = state.ops[host][op_hash].operation_meta.did_change()
                self._tell(state, host, op_hash, "changed" if did_change else "unchanged")

    def rest(self, state: State) -> None:
        """Tell the outcome of operations that pyinfra did not come back from on all hosts."""
        for op_hash in state.get_op_order():  # type: ignore[no-untyped-call]
            self.operation_end(state, op_hash)

    def _tell(self, state: State, host: Host, op_hash: str, status: str) -> None:
        done = self._recorder.done(host.name).get(op_hash, [])
        self._events.tell(
            "finished",
            host=host.name,
            operation=name_of(state, op_hash),
            status=status,
            seconds=round(self._took.pop((host.name, op_hash)), 3),
            changes=[] if status == "unchanged" else [change.to_json() for change in done],
        )


def _state(inventory: Inventory, hosts: list[str], recorder: Recorder) -> State:
    """Return the state of a run of these hosts, set up the way pyinfra's own command does it."""
    pyinfra.is_cli = True
    state = State(check_for_changes=True)
    state.cwd = str(PROJECT)
    ctx_state.set(state)  # type: ignore[no-untyped-call]
    config = Config()  # type: ignore[no-untyped-call]
    ctx_config.set(config)  # type: ignore[no-untyped-call]
    exec_file(str(PROJECT / "config.py"))
    config.lock_current_state()
    ctx_inventory.set(inventory)  # type: ignore[no-untyped-call]
    limit = [host for host in inventory if host.name in hosts] if hosts else None
    state.init(inventory, config, initial_limit=limit)
    changes.attach(state, recorder)
    return state


def _prepare(state: State, observations: Observations) -> None:
    """Connect to the hosts and prepare deploy.py for them.

    Raises:
        PyinfraError: a host is refused, or none is left.
    """
    state.set_stage(StateStage.Connect)
    connect_all(state)
    state.set_stage(StateStage.Prepare)
    stop = observations.listen()
    try:
        load_deploy_file(state, "deploy.py")
    finally:
        stop()


def _line() -> str:
    # In a thread: connections are kept alive meanwhile.
    found: str = gevent.get_hub().threadpool.apply(sys.stdin.readline)
    return found


def work(request: Mapping[str, Any], events: Events) -> None:
    """Plan, and carry the plan out when a second line says so.

    Raises:
        HostsError, ConfigError: there is nothing to work on.
        PyinfraError: a host was refused.
    """
    place = inventory_file(Path(request["inventory"]))
    fleet = load_checked_hosts(PROJECT, place)
    chosen = selected(fleet, request["hosts"])
    hosts = list(chosen)
    question = PASSWORDS.question(chosen.values())
    events.tell("ready", question=question)
    if question is not None:
        PASSWORDS.take(json.loads(_line()))
    recorder, observations = Recorder(contents=True), Observations()
    state = _state(make_inventory(fleet), hosts, recorder)
    try:
        _prepare(state, observations)
    except PyinfraError:
        # When none is left, why has been told of each.
        if state.active_hosts or not state.failed_hosts:
            raise
    active = state.inventory.get_active_hosts()
    events.tell(
        "planned",
        hosts={host.name: host_plan(state, host, recorder, observations) for host in active},
        failed=sorted(set(hosts) - {host.name for host in active}),
    )
    if request["apply"] and _line().strip() == "go":
        progress = _Progress(events, recorder)
        state.add_callback_handler(progress)  # type: ignore[no-untyped-call]
        state.set_stage(StateStage.Execute)
        try:
            run_ops(state)
        except PyinfraError as error:
            # Which hosts failed and why has been told.
            logging.getLogger(__name__).debug("%s", error)
        finally:
            progress.rest(state)
        events.tell("done", failed=sorted(host.name for host in state.failed_hosts))
    state.set_stage(StateStage.Disconnect)
    disconnect_all(state)


def main() -> int:
    """Do what standard input says."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # Nothing but events gets there.
    sys.stdout = sys.stderr
    events = Events(stream)
    pyinfra.logger.setLevel(logging.INFO)
    pyinfra.logger.addHandler(_Log(events))
    # Warnings of libraries are none of the operator's business, as in pyinfra's own command.
    logging.captureWarnings(True)

    def leave(number: int, frame: FrameType | None) -> None:
        # At once: what was left undone is done by the next run.
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        work(json.loads(sys.stdin.readline()), events)
    except (HostsError, ConfigError) as error:
        events.tell("wrong", text=str(error))
    except UnexpectedExternalError as error:
        inner = error.exception
        # What we tell ourselves needs no traceback.
        detail = "" if isinstance(inner, LocalError) else "".join(traceback.format_exception(inner))
        events.tell("refused", text=str(inner), detail=detail)
    except PyinfraError as error:
        events.tell("refused", text=str(error), detail="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
