"""The environment of a host, built by the real script from real wheels, and what becomes of it when it is cut off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rtinfra.local.errors import LocalError
from rtinfra.local.progress import ConsoleReporter
from rtinfra.operations.environments import _SCRIPT
from rtinfra.paths import PROJECT
from rtinfra.wheelhouse import PYTHONS, Wheelhouse

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def house() -> Wheelhouse:
    """The project's own wheel house."""
    found = Wheelhouse()
    try:
        for python in {HERE, *PYTHONS.values()}:
            found.fetch(python, ConsoleReporter())
    except LocalError as error:
        pytest.skip(f"no wheels: {error}")
    return found


@dataclass
class Host:
    """What the script sees of a host."""

    root: Path
    house: Wheelhouse

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def environments(self) -> Path:
        return self.root / "opt"

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start the script as the operation does."""
        self.cache.mkdir(exist_ok=True)
        wheels = [*self.house.wheels(HERE), self.house.own()]
        for wheel in wheels:
            shutil.copy(wheel.path, self.cache)
        requirements = f"{self.house.requirements.read_text()}\n{self.house.own().requirement}\n"
        words = [str(self.environments), name, str(self.cache), "rtinfra.preflight", "wheels"]
        process = subprocess.Popen(
            ["sh", "-c", _SCRIPT, "environment.sh", *words, *(wheel.name for wheel in wheels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                "PATH": f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}",
                "PIP_CONFIG_FILE": "/dev/null",
            },
        )
        assert process.stdin is not None
        process.stdin.write(requirements)
        process.stdin.close()
        return process

    def build(self, name: str) -> None:
        """Run the script to its end."""
        process = self.start(name)
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(timeout=300) == 0, said

    def answers(self) -> bool:
        """Whether the environment in use works, from any directory and without this project."""
        python = self.environments / "current" / "bin" / "python"
        command = [str(python), "-I", "-c", "import rtinfra.preflight.app as app; print(app.__file__)"]
        answer = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        return answer.returncode == 0 and answer.stdout.startswith(str(self.environments))


@pytest.fixture
def host(house: Wheelhouse, tmp_path: Path) -> Iterator[Host]:
    yield Host(tmp_path, house)


def test_it_is_built_replaced_and_survives_being_cut_off(host: Host) -> None:
    host.build("first")
    assert host.answers()
    # Killed like in a power cut, in the middle of the next one: the first goes on working.
    process = host.start("second")
    deadline = time.monotonic() + 60
    while not (host.environments / "second" / "bin" / "python").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (host.environments / "current").readlink() == Path("first") and host.answers()
    (host.cache / "old-1-py3-none-any.whl").write_bytes(b"")
    host.build("second")
    assert host.answers()
    assert {path.name for path in host.environments.iterdir()} == {"second", "current"}
    # What nobody needs any more is gone, and what was carried stays for the next time.
    assert len(list(host.cache.iterdir())) == len(host.house.wheels(HERE)) + 1


def test_a_wheel_that_was_changed_is_refused(host: Host) -> None:
    host.build("first")
    process = host.start("second")
    (wheel,) = host.cache.glob("redis-*.whl")
    wheel.write_bytes(b"not what was locked")
    assert process.stdout is not None
    assert "redis" in process.stdout.read()
    assert process.wait(timeout=300) != 0
    assert (host.environments / "current").readlink() == Path("first")


@pytest.mark.parametrize("python", sorted({HERE, *PYTHONS.values()}))
def test_the_wheels_of_every_distribution_need_nothing_else(house: Wheelhouse, python: str, tmp_path: Path) -> None:
    """pip resolves the plain list against nothing but the folder, as if it ran on that Python."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check", "--no-index"),
        *("--find-links", str(house._place(python)), "--only-binary", ":all:", "--python-version", python),
        *("--platform", "manylinux_2_36_x86_64", "--platform", "manylinux_2_28_x86_64"),
        *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"),
        *("--ignore-installed", "--target", str(tmp_path)),
    ]
    lines = (PROJECT / "requirements" / "preflight.in").read_text().splitlines()
    command += [line for line in lines if line[0] not in "#-"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={"PIP_CONFIG_FILE": "/dev/null"})
    assert answer.returncode == 0, answer.stderr
