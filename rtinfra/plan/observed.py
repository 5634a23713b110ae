"""From the operations that pyinfra has prepared to a plan: what they said, and what they looked at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

import pyinfra.api.host
from pyinfra.api.host import Host
from pyinfra.api.state import State

from rtinfra.facts.contents import Contents
from rtinfra.facts.packages import Simulation
from rtinfra.inventory import fleet_host_of
from rtinfra.operations.change import Change, Step, Unknown
from rtinfra.operations.changes import Recorder
from rtinfra.plan.model import HOST_ITSELF, Json

# What is another one at every look and decides nothing. What `keyed` comes to is among the changes that are wanted.
_PASSING: Final = frozenset({"boot_id", "clock", "free_mb", "keyed", "lists_age", "sub"})


def canonical(value: Any) -> Any:
    """Return a fact's value as JSON in which the same observation is the same text."""
    if is_dataclass(value):
        return {item.name: canonical(getattr(value, item.name)) for item in fields(value) if item.name not in _PASSING}
    if isinstance(value, Mapping):
        return sorted([str(key), canonical(item)] for key, item in value.items())
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return value if value is None or isinstance(value, bool | int | float) else str(value)


# Asked only because something differs, and told by what would be done about it.
_ASKED_FOR_A_PLAN: Final = (Contents, Simulation)


class Observations:
    """Every fact that was asked for while operations were prepared, by host and operation."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[Any]] = {}

    def listen(self) -> Callable[[], None]:
        """Take down all facts from now on, until the function that is returned is called."""
        original = pyinfra.api.host.get_fact

        def get_fact(state: State, host: Host, *args: Any, **kwargs: Any) -> Any:
            value = original(state, host, *args, **kwargs)
            fact = args[0] if args else kwargs["cls"]
            if not state.is_executing and fact not in _ASKED_FOR_A_PLAN:
                place = self._found.setdefault((host.name, host.current_op_hash or ""), [])
                place.append([fact.name, canonical(value)])
            return value

        def stop() -> None:
            pyinfra.api.host.get_fact = original

        pyinfra.api.host.get_fact = get_fact
        return stop

    def fingerprint(self, host: str, operation: str) -> str:
        """Return a hash of what an operation of a host observed; `operation` is empty for what none of them did."""
        return _hash(self._found.get((host, operation), []))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def name_of(state: State, operation: str) -> str:
    """Return the name of an operation by pyinfra's hash of it."""
    return ", ".join(sorted(state.get_op_meta(operation).names))


def host_plan(state: State, host: Host, recorder: Recorder, observations: Observations) -> Json:
    """Return what the prepared operations of a host would do, as rtinfra.plan.model.HostPlan reads it."""
    said = recorder.planned(host.name)
    operations, names, fingerprints = [], [], {}
    for operation in state.get_op_order():  # type: ignore[no-untyped-call]
        if operation not in state.ops[host]:
            continue
        name = name_of(state, operation)
        names.append(name)
        changes: list[Change] = said.get(operation, [])
        is_told = any(not isinstance(change, Unknown) for change in changes)
        if state.ops[host][operation].operation_meta.will_change and not is_told:
            changes = [*changes, Step(name=name, text="changes something that it does not tell before")]
        fingerprints[name] = {
            "observed": observations.fingerprint(host.name, operation),
            "wanted": _hash([[change.kind, change.name, change.desired] for change in changes]),
        }
        if changes:
            operations.append({"name": name, "changes": [change.to_json() for change in changes]})
    fingerprints[HOST_ITSELF] = {"observed": observations.fingerprint(host.name, ""), "wanted": ""}
    return {
        "operations": operations,
        "all_operations": names,
        "settings": fleet_host_of(host).config.sha256,
        "fingerprints": fingerprints,
    }
