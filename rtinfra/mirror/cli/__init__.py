"""``rtinfra mirror``: everything that hosts install, for networks that reach nothing outside."""

# In the order of the journey, which is the order in which --help lists the commands.
# isort: off
from rtinfra.mirror.cli import connected, closed, upkeep, keys

# isort: on
from rtinfra.mirror.cli.common import app

__all__ = ["app", "closed", "connected", "keys", "upkeep"]
