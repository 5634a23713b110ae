"""What operations tell of changes: diffs that never show a secret, what apt says of a simulation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.facts.packages import Installation, parse_simulation
from rtinfra.operations.changes import ActionRun, FileChange, Foreseen, Reboot, package

SECRET = "planted-value-7f1c"


def changed(before: bytes | None, after: bytes | None, secret: bool = False) -> FileChange:
    return FileChange(name="/etc/a", text="content", before=before, after=after, secret=secret)


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
        assert change.wanted != changed(before, b"other", secret=True).wanted

    def test_what_is_no_text_is_not_shown(self) -> None:
        assert changed(b"\x7fELF\0", b"\x7fELF\0\1").to_json()["content"] == "no text, 6 bytes"
        assert changed(b"a", b"\xff\xfe").diff == ""


class TestForeseen:
    RELOAD = ActionRun(name="daemon-reload", text="systemctl daemon-reload", consequence=True)
    FILE = FileChange(name="/etc/a", text="content", restarts=("a.service",))
    REBOOT = Reboot(name="6.1", text="needed", reasons=("why",))

    def test_an_action_is_done_once(self) -> None:
        assert Foreseen([self.RELOAD]).still_pending(["daemon-reload", "sysctl"]) == {"sysctl"}

    def test_a_reboot_leaves_nothing_pending(self) -> None:
        assert Foreseen([self.FILE]).restarts() == {"a.service": ["/etc/a"]}
        assert Foreseen([self.FILE, self.REBOOT]).restarts() == {}
        assert Foreseen([self.REBOOT, self.FILE]).restarts() == {"a.service": ["/etc/a"]}
        assert Foreseen([self.REBOOT]).still_pending(["sysctl"]) == set()


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
