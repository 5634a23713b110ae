"""New rules are taken back unless a new login comes through them: the operation, and what is known before it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pyinfra.api.command import StringCommand

from roles.packet_filter.role import ROLE
from rtinfra.facts import packet_filter as fact
from rtinfra.facts.packet_filter import PacketFilterState
from rtinfra.operations import packet_filter
from rtinfra.operations.packet_filter import PacketFilter
from tests.unit.telemetry_site import shipped, view

# ---- what is seen, and what is done about it


def _desired() -> PacketFilter:
    (found,) = ROLE.state(shipped("packet_filter"), view()).packet_filters
    return found


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
