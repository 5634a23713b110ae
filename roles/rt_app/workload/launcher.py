#!/usr/bin/python3 -ISB
"""Starts the reference workload from its compiled form, in the role that this file's name says.

Python compiles a program anew at every start, but a module only once; on a slow machine that is a good part
of the time in which a killed process has to be back.
"""

import sys

sys.path.insert(0, "/usr/local/lib/rtinfra")

from mxrc_reference import run  # type: ignore[import-not-found]

run(sys.argv)
