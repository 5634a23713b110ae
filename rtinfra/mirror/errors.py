"""What the mirror refuses."""

from __future__ import annotations

from rtinfra.local.errors import LocalError


class MirrorError(LocalError):
    """Something is wrong with a lock, a bundle, the pool or a published mirror; nothing was changed by it."""
