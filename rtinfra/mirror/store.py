"""The folder of a mirror: the same on the connected and on the closed side.

pool/aa/<sha256>            every content by its hash
published/<release>/        what is served: hard links into the pool, and generated indexes
published/current           symbolic link to the release that is live; switching it publishes
bundles/<id>/               bundles made here (connected side)
keys/                       private keys, readable by their owner alone
state.json                  what was made, imported and published, oldest first
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from rtinfra.config.types import Settings
from rtinfra.local.file_lock import locked
from rtinfra.local.files import replace_file
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Instant, Sha256
from rtinfra.mirror.pool import Pool
from rtinfra.paths import PROJECT

#: Where the environment says the folder is.
DIRECTORY_VARIABLE = "RTINFRA_MIRROR_DIR"


class Imported(Settings):
    """A bundle whose contents are all in the pool."""

    id: str
    created: Instant
    valid_until: Instant
    lock: Sha256
    manifest: Sha256


class Published(Settings):
    """A release: one lock, served under one date."""

    name: str
    lock: Sha256
    date: Instant
    valid_until: Instant


class State(Settings):
    """What has happened to a mirror."""

    bundles: tuple[Imported, ...] = ()
    """Made here, on the connected side: what later deltas can build on."""
    imported: tuple[Imported, ...] = ()
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Mirror:
    """One mirror's folder."""

    root: Path

    @cached_property
    def pool(self) -> Pool:
        """Its contents."""
        return Pool(self.root / "pool")

    @property
    def published(self) -> Path:
        """Where releases are."""
        return self.root / "published"

    @property
    def current(self) -> Path:
        """The symbolic link to the release that is live."""
        return self.published / "current"

    @property
    def bundles(self) -> Path:
        """Where bundles are made."""
        return self.root / "bundles"

    @property
    def keys(self) -> Path:
        """Where private keys are; made readable by their owner alone."""
        path = self.root / "keys"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    @contextmanager
    def working(self, purpose: str) -> Iterator[None]:
        """Keep other rtinfra processes away from this folder while it is changed."""
        with locked(self.root / ".lock", purpose, timeout=10):
            yield

    def state(self) -> State:
        """What has happened so far.

        Raises:
            MirrorError: the record is damaged.
        """
        path = self.root / "state.json"
        try:
            return State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return State()
        except ValidationError as error:
            raise MirrorError(
                f"{path} is damaged", "restore it from a backup, or import the last bundle again"
            ) from error

    def record(self, state: State) -> None:
        """Remember, atomically and for good."""
        text = json.dumps(state.to_json(), indent=1, sort_keys=True) + "\n"
        replace_file(self.root / "state.json", text.encode())


def mirror_directory() -> Path:
    """The folder of the mirror: what the environment says, else `.mirror` of the project."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or PROJECT / ".mirror").absolute()
