"""What one observed run of pyinfra was told to manage, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from rtinfra.operations.resources import Resource, Unit


@dataclass
class Desired:
    """The very values that deploy.py handed to the operations, so that nobody has to list them again."""

    paths: list[Resource] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)


@dataclass
class Observation:
    """One run of pyinfra.

    `commands` are remote commands; `transfers` are files sent or fetched, and sessions opened for that. In
    seconds: `connect`, and the time of each fact by name.
    """

    desired: Desired = field(default_factory=Desired)
    commands: int = 0
    transfers: int = 0
    connect: float = 0.0
    facts: list[tuple[str, float]] = field(default_factory=list)

    @property
    def round_trips(self) -> int:
        """Everything that waited for the host's answer once the connection was there."""
        return self.commands + self.transfers
