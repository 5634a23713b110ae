#!/usr/bin/python3 -ISB
"""Starts the reference workload in the role that this file's name says, from its compiled form where there is one.

Python compiles the modules of an archive anew at every start; on a slow machine that is a good part of the time in
which a killed process has to be back. See the archive's __main__.py for how the compiled form is made.
"""

import sys
from pathlib import Path

ARCHIVE = "/usr/local/lib/rtinfra/mxrc_reference.pyz"
COMPILED = "/usr/local/lib/rtinfra/mxrc_reference.compiled.pyz"


def is_compiled() -> bool:
    """Whether the compiled form was made from the archive that is there now."""
    try:
        return Path(COMPILED).stat().st_mtime_ns == Path(ARCHIVE).stat().st_mtime_ns
    except OSError:
        return False


sys.path.insert(0, COMPILED if is_compiled() else ARCHIVE)

from mxrc_reference.main import run  # type: ignore[import-not-found]  # noqa: E402

run(sys.argv)
