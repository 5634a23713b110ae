"""New rules are taken back by the host unless somebody was heard of again: the script with the real nft, the operation.

systemd's timer is a shell in the background here; the scenario on a lab machine has the real one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pyinfra.api.command import StringCommand

from roles.packet_filter.role import ROLE, rules
from rtinfra.facts import output_sections
from rtinfra.facts import packet_filter as fact
from rtinfra.facts.packet_filter import PacketFilterState
from rtinfra.operations import packet_filter
from rtinfra.operations.packet_filter import PacketFilter
from rtinfra.operations.resources import File
from tests.unit.filter_site import Computer, computers
from tests.unit.telemetry_site import here, shipped, view

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces")

_RUN = """#!/bin/sh
for word; do case "$word" in --on-active=*) seconds=${word#*=} ;; esac; done
while [ "${1#-}" != "$1" ]; do shift; done
( sleep "$seconds"; exec "$@" ) >/dev/null 2>&1 &
echo $! >/run/timer
"""
_CTL = """#!/bin/sh
echo "$*" >>/run/systemctl
case "$*" in 'stop rtinfra-packet-filter-trial.timer') [ ! -e /run/timer ] || kill "$(cat /run/timer)" ;; esac
"""
OLD = b"table inet rtinfra\ndelete table inet rtinfra\ntable inet rtinfra {\n\tchain old {\n\t}\n}\n"
NEW = OLD.replace(b"chain old", b"chain new")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Computer]:
    """A computer with systemd's commands as far as the script needs them."""
    for name, text in (("systemd-run", _RUN), ("systemctl", _CTL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with computers(host=()) as (found,):
        yield found


def call(host: Computer, tools: Path, verb: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    text = f"PATH={tools}:$PATH\nset -- {verb}\n{packet_filter._SCRIPT}"
    return host.run("sh", "-c", text, stdin=stdin.decode(), check=False)


def table(host: Computer) -> str:
    return host.run("nft", "list", "ruleset").stdout


def eventually(host: Computer, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in table(host):
        assert time.monotonic() < deadline, table(host)
        time.sleep(0.1)


pytestmark = [pytest.mark.slow, needs_root]


def test_who_is_not_heard_of_again_has_the_old_rules(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    assert call(host, tmp_path, "try 1", NEW).returncode == 0
    assert "chain new" in table(host)
    eventually(host, "chain old")
    assert "chain new" not in table(host)
    late = call(host, tmp_path, "keep 0")
    assert late.returncode == 1
    assert "the host has taken the new rules back" in late.stderr
    assert "chain old" in table(host)


def test_who_is_heard_of_keeps_the_new_ones(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    assert call(host, tmp_path, "try 1", NEW).returncode == 0
    assert call(host, tmp_path, "keep abc").returncode == 0
    time.sleep(1.5)
    assert "chain new" in table(host)
    words = host.run("cat", fact.LOADED).stdout.split()
    assert words == ["abc", host.run("sh", "-c", fact.HASH_TABLE).stdout.strip()]


def test_back_is_at_once_and_once(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    call(host, tmp_path, "try 30", NEW)
    assert call(host, tmp_path, "back").returncode == 0
    assert "chain old" in table(host)
    assert call(host, tmp_path, "back").returncode != 0, "there is nothing to take back"


def test_without_rules_before_there_are_none_again(host: Computer, tmp_path: Path) -> None:
    assert call(host, tmp_path, "try 30", NEW).returncode == 0
    call(host, tmp_path, "back")
    assert "rtinfra" not in table(host)


def test_rules_that_nft_refuses_change_nothing(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    done = call(host, tmp_path, "try 30", b"table inet rtinfra {\n chain x { tcp dport nonsense accept; }\n}\n")
    assert done.returncode == 1
    assert "rtinfra: nft refuses the rules, nothing was changed" in done.stderr
    assert "chain old" in table(host)
    assert host.run("test", "-e", "/run/timer", check=False).returncode == 1, "nothing was armed"


def test_what_a_run_that_died_has_tried_is_nothing_to_go_back_to(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    call(host, tmp_path, "try 30", NEW)
    assert call(host, tmp_path, "try 30", NEW.replace(b"new", b"newer")).returncode == 0
    call(host, tmp_path, "back")
    assert "chain old" in table(host)


def test_off_takes_ours_away_and_nothing_else(host: Computer, tmp_path: Path) -> None:
    host.load(OLD)
    host.run("nft", "add", "table", "inet", "others")
    assert call(host, tmp_path, "off").returncode == 0
    assert table(host) == "table inet others {\n}\n"
    assert "disable --now --quiet rtinfra-packet-filter.service" in host.run("cat", "/run/systemctl").stdout


def test_the_loader_loads_the_file_and_takes_ours_away(host: Computer, tmp_path: Path) -> None:
    desired = _desired()
    (text,) = (path.content for path in desired.paths if isinstance(path, File) and path.path == fact.LOADER)
    program, content = tmp_path / "loader", tmp_path / "rules"
    program.write_bytes(text.replace(fact.RULES.encode(), str(content).encode()))
    content.write_bytes(desired.rules or b"")
    host.run("sh", str(program), "load")
    assert look(host).has_loaded(desired.sha256)
    host.run("sh", str(program), "unload")
    assert table(host) == ""


# ---- what is seen, and what is done about it


def _desired() -> PacketFilter:
    (found,) = ROLE.state(shipped("packet_filter"), view()).packet_filters
    return found


def look(host: Computer) -> PacketFilterState:
    text = host.run("sh", "-c", output_sections.script(fact.COMMANDS), check=False).stdout
    return fact.parse(output_sections.parse(text.splitlines()))


@pytest.mark.parametrize(
    "change",
    [
        "delete table inet rtinfra",
        "add rule inet rtinfra input accept",
        "flush chain inet rtinfra input",
        "flush set inet rtinfra ours",
        "add element inet rtinfra open4 { tcp . 9100 . 10.0.0.0/8 }",
    ],
)
def test_what_somebody_does_to_the_table_by_hand_is_seen(host: Computer, tmp_path: Path, change: str) -> None:
    content = rules(shipped("packet_filter"), view(agents=here()))
    sha256 = hashlib.sha256(content).hexdigest()
    assert not look(host).has_loaded(sha256)
    call(host, tmp_path, "try 30", content)
    call(host, tmp_path, f"keep {sha256}")
    assert look(host).has_loaded(sha256)
    assert not look(host).has_loaded("another")
    host.run("nft", *change.split())
    assert not look(host).has_loaded(sha256)
    call(host, tmp_path, "try 30", content)
    call(host, tmp_path, f"keep {sha256}")
    assert look(host).has_loaded(sha256)


def test_a_host_without_anything_is_seen_as_such(tmp_path: Path) -> None:
    assert fact.parse({}) == PacketFilterState()
    assert fact.parse({"filter_table": [fact.EMPTY]}) == PacketFilterState()


class Door:
    """A connector whose logins succeed or fail as told."""

    outcomes: ClassVar[list[bool]] = []

    def __init__(self, state: object, host: object) -> None:
        self.closed = False

    def connect(self) -> None:
        if not Door.outcomes.pop(0):
            raise OSError("Connection refused")

    def run_shell_command(self, command: StringCommand, **_: Any) -> tuple[bool, object]:
        return True, SimpleNamespace()

    def disconnect(self) -> None:
        self.closed = True


def _confirmed(outcomes: list[bool], caplog: pytest.LogCaptureFixture) -> tuple[bool, list[str], str]:
    Door.outcomes = outcomes
    said: list[str] = []
    host = SimpleNamespace(
        connector=Door(None, None), print_prefix="[rt1] ", run_shell_command=lambda command: said.append(str(command))
    )
    with caplog.at_level(logging.ERROR, "pyinfra"):
        found = packet_filter._confirm(SimpleNamespace(), host)  # type: ignore[arg-type]
    return found, said, caplog.text


def test_a_login_that_works_confirms(caplog: pytest.LogCaptureFixture) -> None:
    assert _confirmed([True], caplog) == (True, [], "")


def test_a_login_that_fails_takes_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    found, said, text = _confirmed([False, True], caplog)
    assert not found
    assert [command.splitlines()[0] for command in said] == ["set -- back"]
    assert "no new login comes through the new packet filter: Connection refused" in text
    assert "its former rules are back, logging in works" in text
    assert "see that packet_filter.ssh_from has the network of this computer" in text


def _commands(desired: PacketFilter, found: PacketFilterState, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the operation would send, without the files' own script."""
    monkeypatch.setattr(packet_filter, "changes", lambda paths, files: iter(()))
    monkeypatch.setattr(packet_filter, "record", lambda *_: None)
    monkeypatch.setattr(packet_filter, "pyinfra_state", SimpleNamespace(is_executing=True))
    steps = packet_filter.applied._inner(desired=desired, found=found)  # type: ignore[attr-defined]
    return [str(step).splitlines()[0] if isinstance(step, StringCommand) else "login" for step in steps]


def test_an_unchanged_host_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = _desired()
    there = PacketFilterState(True, "table", desired.sha256, "table", True, True, {})
    assert _commands(desired, there, monkeypatch) == []


def test_new_rules_are_tried_then_kept_then_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = _desired()
    assert _commands(desired, PacketFilterState(has_program=True), monkeypatch) == [
        f"set -- try {packet_filter.TRIAL_SECONDS}",
        "login",
        f"set -- keep {desired.sha256}",
        f"systemctl enable --quiet {fact.UNIT} && systemctl start {fact.UNIT}",
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [(PacketFilterState(), []), (PacketFilterState(True, table="x", is_enabled=True), ["set -- off"])],
)
def test_off_is_done_where_something_is_there(
    found: PacketFilterState, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (off,) = ROLE.state(shipped("packet_filter", enabled=False), view()).packet_filters
    assert _commands(off, found, monkeypatch) == expected


def test_sections_of_the_look_are_the_only_ones() -> None:
    found: Mapping[str, str] = fact.COMMANDS
    assert all(name.startswith("filter_") for name in found)
