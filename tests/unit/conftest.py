"""What tests share.

Of the verification: a small suite, a host played by a fake ssh client, a key for reports. Of the mirror: two computers
and the bundles that are carried between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from rtinfra.mirror.store import Mirror
from rtinfra.verify import sealing, verification
from rtinfra.verify.plugin import register_markers
from tests.record_looks import ANSWERING, rt_host
from tests.unit.bundle_site import Journey, carry, make_journey

SUITE = '''
"""A small area."""
import pytest
from rtinfra.verify import expect

def control(number, severity="high"):
    return pytest.mark.control(id=f"RT-10.{number}", severity=severity, title=f"Title {number}")

@control(1)
def test_pass(verification, subject_name):
    expect.equal(verification.subject(subject_name).snapshot.computer.virtualisation, "qemu", "virtualisation")

@control(2, "critical")
def test_fail(verification, subject_name):
    expect.equal("0-3", "2-3", "cores")

@control(3)
def test_not_applicable(verification, subject_name):
    expect.not_applicable("no such device")

@control(4)
def test_measured(verification, subject_name):
    expect.measured("12 us", "latency", "not a latency proof")

@control(5)
def test_broken(verification, subject_name):
    {}["missing"]

@pytest.fixture
def device():
    expect.found(None, "device", "nothing")

@control(6)
def test_broken_fixture(verification, subject_name, device):
    pass

@pytest.mark.every_host
@control(20)
def test_every_host(verification, subject_name):
    pass

@pytest.mark.on("agents")
@control(21)
def test_on_agents(verification, subject_name):
    pass

@pytest.mark.on_any("agents", "rt_hosts")
@control(22)
def test_on_either(verification, subject_name):
    pass

@pytest.mark.on("rt_hosts", "agents")
@control(23)
def test_on_both(verification, subject_name):
    pass

@pytest.mark.disruptive
@control(30)
def test_disruptive(verification, subject_name):
    pass
'''


def pytest_configure(config: pytest.Config) -> None:
    """Some tests call a control as a function."""
    register_markers(config)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yaml"
    path.write_text(
        "hosts:\n  robot: {groups: [rt_hosts, lab], ssh: {address: 192.0.2.1}}\n  logger: {ssh: {address: 192.0.2.2}}\n"
    )
    return path


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_small.py").write_text(SUITE)
    return folder


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh client that answers as the recorded host did."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    answer = tmp_path / "answer"
    answer.write_text(rt_host(), encoding="utf-8")
    program.write_text(f"#!/bin/sh\n{ANSWERING}{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the suite in this process: quicker, and seen by the measurement of coverage."""

    def run_pytest(tests: Path, arguments: Sequence[str], log: Path, tell: Callable[[str], None]) -> None:
        with log.open("w") as sink, redirect_stdout(sink), redirect_stderr(sink):
            pytest.main([*verification.pytest_arguments(tests), "-s", "-p", "no:unraisableexception", *arguments])

    monkeypatch.setattr("rtinfra.verify.verification._run_pytest", run_pytest)


@pytest.fixture(scope="session", autouse=True)
def report_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Reports of tests are signed with a key of their own."""
    path = tmp_path_factory.mktemp("key") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sealing.KEY_VARIABLE, str(path))
        yield path


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """A mirror of the connected network with its bundles."""
    return make_journey(tmp_path_factory.mktemp("journey"))


@pytest.fixture
def closed(tmp_path: Path) -> Mirror:
    """The mirror of a closed network, before anything was carried in."""
    return Mirror(tmp_path / "closed")


@pytest.fixture
def stick(journey: Journey, tmp_path: Path) -> Path:
    """The full bundle where it was carried to."""
    return carry(journey.full, tmp_path / "stick")
