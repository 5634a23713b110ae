"""What notifications refuse."""

from __future__ import annotations

from rtinfra.local.errors import LocalError


class NotifyError(LocalError):
    """A channel is configured and cannot be used: people would hear nothing. Nothing was sent."""


class DeliveryError(Exception):
    """A channel did not take a message. `final`: trying again would not help. No secret is in the text."""

    def __init__(self, reason: str, *, final: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.final = final
        self.retry_after = retry_after
