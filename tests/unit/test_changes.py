"""What operations tell of changes: diffs that never show a secret, what apt says of a simulation."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.facts.packages import Installation, parse_simulation
from rtinfra.operations import change as changes
from rtinfra.operations.change import (
    ActionRun,
    Change,
    FileChange,
    ImageChange,
    Reboot,
    RuntimeValueChange,
    Step,
    UnitChange,
    Unknown,
    from_json,
    package,
)
from rtinfra.operations.changes import Predicted

SECRET = "planted-value-7f1c"


def changed(before: bytes | None, after: bytes | None, secret: bool = False) -> FileChange:
    return changes.file(name="/etc/a", text="content", before=before, after=after, secret=secret)


class TestFiles:
    def test_a_diff_is_exact(self) -> None:
        assert changed(b"a\nb\n", b"a\nc\n").diff.splitlines() == [
            *("--- /etc/a", "+++ /etc/a", "@@ -1,2 +1,2 @@", " a", "-b", "+c")
        ]

    def test_a_new_and_a_removed_file(self) -> None:
        assert changed(None, b"a\n").diff.splitlines()[:2] == ["--- /dev/null", "+++ /etc/a"]
        assert changed(b"a\n", None).diff.splitlines()[:2] == ["--- /etc/a", "+++ /dev/null"]

    @pytest.mark.parametrize("before", [None, SECRET.encode(), f"{SECRET}-older".encode()])
    def test_a_secret_is_nowhere(self, before: bytes | None) -> None:
        change = changed(before, SECRET.encode(), secret=True)
        data = change.to_json()
        assert data["content"] == "secret"
        assert SECRET not in json.dumps(data)
        assert SECRET not in repr(change)
        # Another value is another plan all the same.
        assert change.desired != changed(before, b"other", secret=True).desired

    def test_what_is_no_text_is_not_shown(self) -> None:
        assert changed(b"\x7fELF\0", b"\x7fELF\0\1").to_json()["content"] == "no text, 6 bytes"
        assert changed(b"a", b"\xff\xfe").diff == ""


# The keys of each kind as docs/plan.md has them, beside those that all have.
KINDS: dict[str, tuple[Change, set[str]]] = {
    "file": (changed(b"a\n", b"b\n"), {"content", "diff"}),
    "live": (RuntimeValueChange(name="vm.swappiness", text="60 -> 10"), set()),
    "action": (ActionRun(name="sysctl", text="sysctl -p", consequence=True), set()),
    "package": (package("chrony", None, "4.6"), {"old", "new"}),
    "unit": (UnitChange(name="a.service", text="restart", because="/etc/a changes"), {"because"}),
    "image": (ImageChange(name="otelcol", text="carried"), set()),
    "reboot": (Reboot(name="6.1", text="needed", reasons=("why",), added=("a=1",)), {"reasons", "added", "removed"}),
    "step": (Step(name="dpkg", text="is completed"), set()),
    "unknown": (Unknown(name="versions", text="are not known"), set()),
}


class TestRecords:
    def test_every_kind_is_here(self) -> None:
        union, _ = get_args(Change)
        assert {type(change) for change, _ in KINDS.values()} == set(get_args(union))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_plan_and_a_record_hold_what_was_told(self, kind: str) -> None:
        told, more = KINDS[kind]
        data = json.loads(json.dumps(told.to_json()))
        assert list(data)[:4] == ["kind", "name", "text", "consequence"]
        assert (data["kind"], data.keys() - {"kind", "name", "text", "consequence"}) == (kind, more)
        again = from_json(data)
        assert (type(again), again.to_json()) == (type(told), told.to_json())
        assert told.to_record() == {key: value for key, value in data.items() if key != "diff"}

    @pytest.mark.parametrize("data", [{}, {"kind": "other", "name": "a", "text": "b"}, {"kind": "unit", "name": "a"}])
    def test_what_is_no_change_is_refused(self, data: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="validation error"):
            from_json(data)


class TestPredicted:
    RELOAD = ActionRun(name="daemon-reload", text="systemctl daemon-reload", consequence=True)
    FILE = FileChange(name="/etc/a", text="content", restarts=("a.service",))
    REBOOT = Reboot(name="6.1", text="needed", reasons=("why",))

    def test_an_action_is_done_once(self) -> None:
        assert Predicted([self.RELOAD]).still_pending(["daemon-reload", "sysctl"]) == {"sysctl"}

    def test_a_reboot_leaves_nothing_pending(self) -> None:
        assert Predicted([self.FILE]).restarts() == {"a.service": ["/etc/a"]}
        assert Predicted([self.FILE, self.REBOOT]).restarts() == {}
        assert Predicted([self.REBOOT, self.FILE]).restarts() == {"a.service": ["/etc/a"]}
        assert Predicted([self.REBOOT]).still_pending(["sysctl"]) == set()


class TestSimulation:
    def test_what_apt_says(self) -> None:
        found = parse_simulation(
            [
                "@@install",
                "Reading package lists...",
                "Inst libc6:amd64 [2.41-11] (2.41-12 Debian:13.1/stable [amd64])",
                "Inst chrony (4.6.1-3 Debian:13.1/stable [amd64]) []",
                "Conf chrony (4.6.1-3 Debian:13.1/stable [amd64])",
                *("@@lists", "1000", "@@clock", "1500"),
            ]
        )
        assert found.changes == (Installation("libc6", "2.41-11", "2.41-12"), Installation("chrony", None, "4.6.1-3"))
        assert (found.lists_age, found.doubt) == (500, None)

    def test_doubts(self) -> None:
        unknown = ["@@install", "E: Unable to locate package tree"]
        assert "no lists" in str(parse_simulation([*unknown, "@@lists", "@@clock", "1"]).doubt)
        assert "locate package tree" in str(parse_simulation([*unknown, "@@lists", "1", "@@clock", "2"]).doubt)
        old = parse_simulation(["@@install", "@@lists", "1", "@@clock", str(5 * 86_400)])
        assert "4 days old" in str(old.doubt)

    @given(st.lists(st.text()))
    def test_nothing_that_apt_says_is_too_odd(self, lines: list[str]) -> None:
        words = [line for line in lines if not line.startswith("@@")]
        assert parse_simulation(["@@install", *words]).lists_age is None

    @given(
        st.from_regex(r"[a-z0-9][a-z0-9.+-]+", fullmatch=True), st.from_regex(r"[0-9][0-9.:~+a-z-]*", fullmatch=True)
    )
    def test_every_package_and_version(self, name: str, version: str) -> None:
        (found,) = parse_simulation(["@@install", f"Inst {name} [{version}] ({version}1 x:13/y [all])"]).changes
        assert found == Installation(name, version, f"{version}1")


def test_versions_of_packages() -> None:
    assert package("a", None, "1").text == "1"
    assert package("a", "1", "2").text == "1 -> 2"
    assert package("a", None, None).text == "version not known before"
