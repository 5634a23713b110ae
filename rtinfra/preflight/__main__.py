"""The preflight on a host: `python -m rtinfra.preflight`, started by rtinfra-preflight.service."""

from __future__ import annotations

from pathlib import Path

from rtinfra.preflight.main import Defaults, load_json, start
from rtinfra.secrets import LocalSecrets

#: Where the role puts settings and secrets.
CONFIGURATION = Path("/etc/rtinfra/preflight")


if __name__ == "__main__":
    secrets = LocalSecrets(CONFIGURATION / "secrets")
    start(Defaults("rtinfra-preflight", CONFIGURATION / "settings.json", load_json, lambda: secrets))
