"""A skip that nobody named fails the run, with several workers too; one that is meant does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtinfra.paths import PROJECT
from tests.skips import MEANT, unnamed

CONFTEST = """
from tests.conftest import pytest_configure
"""
TESTS = """
import pytest

def test_that_passes():
    pass

@pytest.mark.skipif({condition}, reason="Go is missing")
def test_that_may_be_skipped():
    pass
"""


@pytest.mark.parametrize(
    "workers",
    [pytest.param([], id="one process"), pytest.param(["-n", "2"], id="workers", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(("condition", "code"), [("True", 1), ("False", 0)], ids=["skipped", "run"])
def test_an_unnamed_skip_fails_the_run(tmp_path: Path, condition: str, code: int, workers: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS.format(condition=condition))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", *workers, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("test_that_may_be_skipped: Go is missing" in done.stdout) == bool(code)


def test_a_meant_skip_is_known_by_place_and_words() -> None:
    place, words = MEANT[0].tests, MEANT[0].words
    assert not unnamed(f"{place}test_4_fleet.py::test_x", words)
    assert unnamed("tests/unit/test_cpu.py::test_x", words)
    assert unnamed(f"{place}test_4_fleet.py::test_x", f"{words}, or not")


def test_the_verdict_of_a_control_is_no_such_skip() -> None:
    assert not unnamed("tests/compliance/test_agents.py::test_x", "no agent on this host")


def test_what_is_named_is_there() -> None:
    """A name that no test has any more would let a new skip through."""
    for skip in MEANT:
        files = sorted((PROJECT / skip.tests).glob("*.py")) if skip.tests.endswith("/") else [PROJECT / skip.tests]
        words = skip.words.replace("\\", "")
        assert any(words in file.read_text(encoding="utf-8") for file in files), skip
