"""What the stages on lab machines have in common."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-machine", action="store_true", help="take lab machines as they are, and leave them up; for single files"
    )
