"""The door: from a command line to a running process and its exit status."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Final, NoReturn

from .cli import parse_options
from .settings import ConfigError, load_settings

EXIT_BAD_CONFIG: Final = 2

#: Stack of every thread but main, in bytes. The default of 8 MB would be locked in memory for each.
THREAD_STACK_BYTES: Final = 512 * 1024


def main(argv: Sequence[str]) -> int:
    """Run the program; return its exit status (0 clean stop, 1 cannot run, 2 bad configuration)."""
    options, role = parse_options(argv)
    try:
        settings = load_settings(options, role)
    except ConfigError as error:
        print(f"{role.name}: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    threading.stack_size(THREAD_STACK_BYTES)

    # http.client would load OpenSSL (5 MB, locked) for https, which nothing here uses; it copes without. So the rooms
    # that import it come only now.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    from .application import Application

    return Application(options, role, settings).run()


def run(argv: Sequence[str]) -> NoReturn:
    """Run the program and end the process."""
    status = main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    # Helper threads are still waiting for work; a normal exit would tear the interpreter down under them.
    os._exit(status)
