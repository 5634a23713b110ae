"""Option to store new golden texts after an intended change."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="store the plans as they are now")
