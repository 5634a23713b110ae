"""The preflight on a host: `python -m rtinfra.preflight`, started by rtinfra-preflight.service."""

from __future__ import annotations

from pathlib import Path

from rtinfra.preflight.main import Defaults, load_json, start
from rtinfra.preflight.settings import CONFIGURATION
from rtinfra.secrets import LocalSecrets

if __name__ == "__main__":
    place = Path(CONFIGURATION)
    secrets = LocalSecrets(place / "secrets")
    start(Defaults("rtinfra-preflight", place / "settings.json", load_json, lambda: secrets))
