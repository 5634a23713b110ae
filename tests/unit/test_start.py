"""start.sh, run for real by sh with a systemctl that does as it is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rtinfra.operations.files import bundle
from rtinfra.operations.resources import File
from rtinfra.operations.scripts import script
from tests.unit.test_sync import ME

# Starts only while the configuration says `good`.
_SYSTEMCTL = """#!/bin/sh
echo "$@" >>{calls}
case "$1" in start | restart) grep -q good {config} ;; esac
"""


class Unit:
    """A unit with one file, on a host that is a directory."""

    def __init__(self, path: Path) -> None:
        self.config = path / "etc" / "a.conf"
        self.calls = path / "calls"
        self._path = path
        programs = path / "bin"
        programs.mkdir()
        for name, text in {
            "systemctl": _SYSTEMCTL.format(calls=self.calls, config=self.config),
            "journalctl": "#!/bin/sh\necho the last words\n",
        }.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def place(self, content: bytes) -> None:
        file = File(path=str(self.config), content=content, restarts=("a.service",), **ME)
        done = self._sh(script("sync.sh"), bundle([file], [], ["a.service"]))
        assert done.returncode == 0, done.stderr

    def restart(self) -> subprocess.CompletedProcess[str]:
        return self._sh("set -- restart a.service\n" + script("start.sh"), "")

    def left(self) -> list[str]:
        return [str(path) for path in (self._path / "run" / "previous").rglob("*")]

    def _sh(self, text: str, stdin: str) -> subprocess.CompletedProcess[str]:
        text = text.replace("/run/rtinfra", f"{self._path}/run").replace("/var/lib/rtinfra", f"{self._path}/state")
        environment = {"PATH": f"{self._path}/bin:/usr/bin:/bin"}
        return subprocess.run(
            ["sh", "-c", text], input=stdin, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path)


def test_a_start_that_works_leaves_nothing_behind(unit: Unit) -> None:
    unit.place(b"good")
    assert unit.restart().returncode == 0
    assert unit.left() == []


def test_a_failed_start_brings_the_old_file_back_and_runs_with_it(unit: Unit) -> None:
    unit.place(b"good old")
    assert unit.restart().returncode == 0
    unit.place(b"bad")
    done = unit.restart()
    assert done.returncode == 1
    assert "the last words" in done.stderr
    assert "the previous ones are back, and it runs with them" in done.stderr
    assert unit.config.read_bytes() == b"good old"
    assert unit.left() == []


def test_after_two_bad_files_the_last_good_one_comes_back(unit: Unit) -> None:
    """The first run was cut off before its restart."""
    unit.place(b"good old")
    assert unit.restart().returncode == 0
    unit.place(b"bad")
    unit.place(b"worse")
    assert unit.restart().returncode == 1
    assert unit.config.read_bytes() == b"good old"


def test_the_files_of_a_first_start_stay_for_a_look_at_them(unit: Unit) -> None:
    unit.place(b"bad")
    done = unit.restart()
    assert done.returncode == 1
    assert "the last words" in done.stderr
    assert unit.config.read_bytes() == b"bad"


def test_a_mode_comes_back_too(unit: Unit) -> None:
    unit.place(b"good old")
    assert unit.restart().returncode == 0
    unit.config.chmod(0o600)
    unit.place(b"bad")
    assert unit.restart().returncode == 1
    assert unit.config.stat().st_mode & 0o777 == 0o600


def test_the_way_back_follows_no_link_of_another_account(unit: Unit, tmp_path: Path) -> None:
    """What is put back goes where root put it, not where somebody's link leads meanwhile."""
    folder, outside = unit.config.parent, tmp_path / "outside"
    unit.place(b"good old")
    assert unit.restart().returncode == 0
    unit.place(b"bad")
    folder.rename(outside)
    tmp_path.chmod(0o777)
    folder.symlink_to(outside)
    done = unit.restart()
    assert done.returncode == 1
    assert "is a symbolic link in a folder that others than root can write" in done.stderr
    assert (outside / "a.conf").read_bytes() == b"bad"
