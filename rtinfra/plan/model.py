"""A plan as values: what each operation on each host would change, and by what it was found out.

The JSON of a plan is documented in docs/plan.md and stays compatible within one `format`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError

from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.operations.change import Change, Reboot, from_json

FORMAT: Final = 1
#: Name under which the fingerprint of what was observed outside of any operation is kept.
HOST_ITSELF: Final = "the host itself"

Json = dict[str, Any]


class PlanError(LocalError):
    """A plan that cannot be made, read, or applied any more."""


@dataclass(frozen=True)
class PlannedOperation:
    """An operation that would do something."""

    name: str
    changes: tuple[Change, ...]

    @property
    def is_consequence(self) -> bool:
        """Whether all it does follows from what others change."""
        return not any(change.is_counted for change in self.changes)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlannedOperation:
        """Build one from a plan's JSON."""
        return cls(str(data["name"]), tuple(map(from_json, data["changes"])))

    def to_json(self) -> Json:
        """Return it as a plan has it."""
        changes = [change.to_json() for change in self.changes]
        return {"name": self.name, "consequence": self.is_consequence, "changes": changes}


@dataclass(frozen=True)
class HostPlan:
    """What would happen to one host. `settings` and `fingerprints` say by what that was found out.

    `all_operations` are the names of all operations in order; `fingerprints` are hashes by operation, of what it
    observed and of what it desires (in the JSON: `wanted`). They are no secret, but are kept in saved plans only: with
    all else known, a short secret could be tried out.
    """

    operations: tuple[PlannedOperation, ...]
    all_operations: tuple[str, ...] = ()
    settings: str = field(default="", repr=False)
    fingerprints: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    @property
    def changes(self) -> int:
        """How many things change."""
        return sum(change.is_counted for operation in self.operations for change in operation.changes)

    @property
    def consequences(self) -> int:
        """How many things follow from that."""
        return sum(change.consequence for operation in self.operations for change in operation.changes)

    @property
    def reboot(self) -> Reboot | None:
        """The reboot, None when none is needed."""
        changes = (change for operation in self.operations for change in operation.changes)
        return next((change for change in changes if isinstance(change, Reboot)), None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HostPlan:
        """Build one from a saved plan, or from what the worker told."""
        return cls(
            tuple(map(PlannedOperation.from_json, data["operations"])),
            tuple(data["all_operations"]),
            str(data["settings"]),
            data["fingerprints"],
        )

    def to_json(self) -> Json:
        """Return it as a plan shows it."""
        reboot = self.reboot
        return {
            "changes": self.changes,
            "consequences": self.consequences,
            "reboot": {
                "needed": reboot is not None,
                **{key: list(getattr(reboot, key, ())) for key in ("reasons", "added", "removed")},
            },
            "operations": [operation.to_json() for operation in self.operations],
        }

    def to_saved(self) -> Json:
        """Return it as a saved plan keeps it."""
        return {
            **self.to_json(),
            "all_operations": list(self.all_operations),
            "settings": self.settings,
            "fingerprints": {name: dict(hashes) for name, hashes in self.fingerprints.items()},
        }

    def differences(self, now: HostPlan) -> Iterator[str]:
        """Say in words in what a plan that was made again differs from this one; nothing when it is the same."""
        if self.settings != now.settings:
            yield "its settings are not those that the plan was made with"
        if self.all_operations != now.all_operations:
            names = sorted(set(self.all_operations) ^ set(now.all_operations)) or ["the order"]
            yield f"other operations: {', '.join(names)}"
        for name in self.fingerprints.keys() & now.fingerprints.keys():
            old, new = self.fingerprints[name], now.fingerprints[name]
            if old["observed"] != new["observed"]:
                yield f"{name}: what is on the host has changed since"
            elif old["wanted"] != new["wanted"]:
                yield f"{name}: it would do something else now"


@dataclass(frozen=True)
class Plan:
    """What would happen to all hosts; `made` is when it was found out, UTC."""

    made: str
    inventory: str
    hosts: Mapping[str, HostPlan]

    @property
    def has_changes(self) -> bool:
        """Whether anything would be done to any host."""
        return any(host.operations for host in self.hosts.values())

    def to_json(self) -> Json:
        """Return the plan as `rtinfra plan --json` prints it."""
        return self._json({name: host.to_json() for name, host in self.hosts.items()})

    def _json(self, hosts: Json) -> Json:
        own = {"format": FORMAT, "made": self.made, "inventory": self.inventory, "has_changes": self.has_changes}
        return {**own, "hosts": hosts}

    def save(self, path: Path) -> None:
        """Write the plan to a file that only its owner can read.

        Raises:
            PlanError: it cannot be written.
        """
        data = self._json({name: host.to_saved() for name, host in self.hosts.items()})
        try:
            replace_file(path, json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n", 0o600)
        except OSError as error:
            raise PlanError(f"{path} cannot be written: {error.strerror}", "give --output another place") from error

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a saved plan.

        Raises:
            PlanError: there is none, or none that this version can read.
        """
        again = "make a plan with `rtinfra plan --output FILE`"
        try:
            data = json.loads(path.read_bytes())
        except OSError as error:
            raise PlanError(f"there is no plan {path}: {error.strerror}", again) from error
        except ValueError as error:
            raise PlanError(f"{path} is no saved plan: it is not JSON", again) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PlanError(f"{path} is no saved plan of format {FORMAT}", again)
        try:
            hosts = {name: HostPlan.from_json(host) for name, host in cast(Json, data["hosts"]).items()}
            return cls(str(data["made"]), str(data["inventory"]), hosts)
        except ValidationError as error:
            # Its text would show what is in the file.
            keys = ", ".join(sorted({".".join(map(str, found["loc"])) for found in error.errors()}))
            raise PlanError(f"{path} is no saved plan: a change has no {keys}, or another kind", again) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"{path} is no saved plan: {error} is missing or of another kind", again) from error

    def require_same(self, now: Plan) -> None:
        """Refuse to go on when hosts or settings are not as they were when this plan was made.

        Raises:
            PlanError: naming every operation that differs.
        """
        found = [f"  {name}: no such host any more" for name in self.hosts.keys() - now.hosts.keys()]
        for name in sorted(self.hosts.keys() & now.hosts.keys()):
            found += [f"  {name}: {text}" for text in sorted(self.hosts[name].differences(now.hosts[name]))]
        if found:
            listed = "\n".join(found)
            raise PlanError(
                f"the plan of {self.made} does not hold any more, nothing was changed:\n{listed}",
                "make a new plan and look at it",
            )
