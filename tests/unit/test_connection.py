"""What verify and stack run on hosts, through a client that stands in for ssh: as root, whoever logs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rtinfra import passwords
from rtinfra.config import FleetHost, SshSettings
from rtinfra.connection import Connections, Unreachable
from rtinfra.local.errors import LocalError
from rtinfra.passwords import PASSWORDS, NobodyToAsk, Passwords
from tests.unit.test_sudo import PASSWORD, SUDO

# Runs the last argument as sshd would; notes all of them.
SSH = r"""#!/bin/sh
echo "$*" >>"$STAND_IN/arguments"
for last; do :; done
[ "$last" != exit ] || exit 0
exec sh -c "$last"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("ssh", SSH), ("sudo", SUDO)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    monkeypatch.setenv("SSH_CONNECTION", "by here")
    return tmp_path


def connections(**ssh: object) -> Iterator[Connections]:
    settings = SshSettings.model_validate({"address": "192.0.2.1", **ssh})
    made = Connections([FleetHost("robot-1", (), settings, SimpleNamespace(), "")])
    yield made
    made.close()


@pytest.fixture
def pilot(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    """pilot logs in; sudo wants the password that is the secret `pilot_sudo`."""
    (place / "wants").write_text(PASSWORD)
    monkeypatch.setenv("RTINFRA_SECRET_PILOT_SUDO", PASSWORD)
    yield from connections(user="pilot", become=True, become_password="pilot_sudo")


@pytest.fixture
def root(place: Path) -> Iterator[Connections]:
    yield from connections()


def test_scripts_of_any_size_are_run_the_same_way_by_both(pilot: Connections, root: Connections, place: Path) -> None:
    script = f": {'x' * 300_000}\ncat\necho done; echo said >&2; exit 4"
    for each in (root, pilot, pilot):
        answer = each.feed("robot-1", script)
        assert (answer.status, answer.text, answer.errors) == (4, "done\n", "said\n")
    assert (root.round_trips("robot-1"), pilot.round_trips("robot-1")) == (1, 2)
    assert not (place / "attempts").exists()
    assert PASSWORD not in (place / "arguments").read_text() + (place / "log").read_text()


def test_controls_that_do_something_do_it_as_root(pilot: Connections, place: Path) -> None:
    host = pilot.host("robot-1")
    assert host.check_output("printf %s", "it's $HOME") == "it's $HOME"
    assert host.run("exit 3").rc == 3
    assert "sh -c" in (place / "log").read_text()
    # Only looks are counted.
    assert pilot.round_trips("robot-1") == 0


def test_output_is_read_while_it_comes(pilot: Connections) -> None:
    with pilot.start("robot-1", "echo one") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "one\n"
    assert process.returncode == 0


def test_a_refusal_of_sudo_is_said_like_a_host_that_is_off(pilot: Connections, place: Path) -> None:
    (place / "wants").write_text("another")
    with pytest.raises(Unreachable, match=r"does not take the password of pilot\. Next step: .*become_password"):
        pilot.feed("robot-1", "true")
    (place / "tty").touch()
    with pytest.raises(Unreachable, match="requiretty"):
        pilot.host("robot-1").run("true")


def test_a_secret_that_is_not_defined_is_named(pilot: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RTINFRA_SECRET_PILOT_SUDO")
    with pytest.raises(Unreachable, match="pilot_sudo is not defined"):
        pilot.feed("robot-1", "true")


# ---- what is typed


def asking(name: str = "robot-1") -> FleetHost[object]:
    settings = SshSettings.model_validate(
        {"address": "192.0.2.1", "user": "pilot", "become": True, "become_password": "ask"}
    )
    return FleetHost(name, (), settings, object(), "")


def test_a_password_is_asked_for_once_and_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return PASSWORD

    monkeypatch.setattr(passwords, "ask_on_terminal", ask)
    mine = Passwords()
    plain = FleetHost("store", (), SshSettings(address="192.0.2.2"), object(), "")
    mine.ask_early([plain])
    assert not questions and mine.handed_on() == ""
    mine.ask_early([plain, asking(), asking("robot-2")])
    assert questions == ["Password of pilot for sudo: "]
    secret = mine.of(asking().ssh)
    assert secret is not None and secret.get_secret_value() == PASSWORD
    assert mine.of(plain.ssh) is None
    assert len(questions) == 1
    # What is handed to another process of ours is not asked for there.
    theirs = Passwords()
    theirs.take(mine.handed_on())
    assert theirs.question([asking()]) is None
    assert PASSWORD not in repr(secret)


def test_without_a_terminal_nobody_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(*_: object) -> int:
        raise OSError(6, "No such device or address")

    monkeypatch.setattr(passwords.os, "open", no_terminal)
    with pytest.raises(NobodyToAsk, match="no terminal") as refused:
        Passwords().ask_early([asking()])
    assert isinstance(refused.value, LocalError) and "become_password" in refused.value.next_step
    assert PASSWORDS.handed_on() == ""
