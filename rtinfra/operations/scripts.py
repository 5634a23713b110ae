"""Scripts that hosts run as root, with the perl program that puts their files in place."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
# Stands in the scripts, which are all that a host gets.
_PLACE: Final = "place=PLACE_PL\n"


def script(name: str) -> str:
    """Return a script of this folder, complete: with place.pl, where it uses it."""
    text = (_HERE / name).read_text(encoding="utf-8")
    place = (_HERE / "place.pl").read_text(encoding="utf-8")
    return text.replace(_PLACE, f"place={shlex.quote(place)}\n")
