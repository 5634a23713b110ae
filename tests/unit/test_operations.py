"""What operations send to a host, for the answers a host may give; pyinfra's @fake connector, no host."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from pyinfra.api.exceptions import OperationError, PyinfraError
from pyinfra.api.operation import add_op
from pyinfra.api.state import State

from rtinfra.deb import LocalPackage
from rtinfra.facts.files import PathState
from rtinfra.operations import boot, images, packages, units
from rtinfra.operations.files import bundle, sync
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, Action, Directory, File, Resource, Unit
from tests.golden.plan import commands

FILE = File(path="/etc/a.conf", content=b"x", actions=(Action("load", "load-it"),), restarts=("a.service",))
SAME = f"@@stat\n644\troot\troot\tregular file\t/etc/a.conf\n@@sha256\n{FILE.sha256}  /etc/a.conf\n@@pending\n"


def run(operation: object, response: str, **arguments: object) -> list[str]:
    """Return the commands of one operation on a host whose facts all answer `response`."""

    def steps(state: State) -> None:
        add_op(state, operation, name="x", **arguments)

    return commands(steps, {"echo @@": response.splitlines()})


@contextmanager
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[Action], list[str]]]:
    """What a host is sent besides its files: actions, and markers."""
    actions: list[Action] = []
    markers: list[str] = []

    def pack(paths: Sequence[Resource], to_do: Sequence[Action], left: Sequence[str]) -> str:
        actions[:], markers[:] = to_do, left  # asked twice: whether there is something to do, and to do it
        return bundle(paths, to_do, left)

    monkeypatch.setattr("rtinfra.operations.files.bundle", pack)
    yield actions, markers


class TestSync:
    def test_an_unchanged_file_sends_nothing(self) -> None:
        assert run(sync, SAME, paths=[FILE]) == []

    def test_a_changed_file_is_one_command(self) -> None:
        assert len(run(sync, SAME.replace("644", "600"), paths=[FILE])) == 1
        assert len(run(sync, "@@stat\n", paths=[FILE, Directory(path="/etc/b")])) == 1

    def test_what_an_interrupted_run_left_undone_is_done(self) -> None:
        assert len(run(sync, SAME + "load\n", paths=[FILE])) == 1

    def test_a_pending_action_of_somebody_else_is_left(self) -> None:
        assert run(sync, SAME + "other\n", paths=[FILE]) == []

    @pytest.mark.parametrize(("pending", "done"), [("", ["more"]), ("load\n", ["load", "more"])])
    def test_an_action_that_another_one_covers_is_left_out(
        self, pending: str, done: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """But one that an earlier run left undone, whose marker only its own run takes away."""
        more = Action("more", "load-and-more", covers=("load",))
        path = File(path="/etc/a.conf", content=b"x", actions=(*FILE.actions, more))
        with sent(monkeypatch) as (actions, _):
            assert len(run(sync, f"@@stat\n@@pending\n{pending}", paths=[path])) == 1
        assert [action.name for action in actions] == done

    @pytest.mark.parametrize(
        ("also", "left"), [((), ["daemon-reload"]), ((Action("enable", "enable-it", covers=("daemon-reload",)),), [])]
    )
    def test_what_is_done_once_for_all_roles_is_left_to_the_units(
        self, also: tuple[Action, ...], left: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unit = File(path="/etc/systemd/system/a.service", content=b"x", actions=(DAEMON_RELOAD, *also))
        with sent(monkeypatch) as (actions, markers):
            assert len(run(sync, "@@stat\n", paths=[unit])) == 1
        assert actions == list(also)
        assert markers == left
        there = SAME.replace("/etc/a.conf", unit.path) + DAEMON_RELOAD.name
        assert run(sync, there, paths=[unit]) == []

    def test_one_path_twice_is_refused(self) -> None:
        with pytest.raises(OperationError, match="twice"):
            run(sync, SAME, paths=[FILE, FILE])

    def test_a_file_where_a_directory_should_be_is_refused(self) -> None:
        with pytest.raises(OperationError, match="move it away"):
            run(sync, "@@stat\n644\troot\troot\tregular file\t/etc/d\n", paths=[Directory(path="/etc/d")])

    def test_the_bundle_holds_files_and_manifest(self) -> None:
        payload = bundle([FILE, Absent(path="/etc/gone")], list(FILE.actions), ["restart@a.service"])
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(payload))) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert content["root/etc/a.conf"] == b"x"
        assert content["manifest"].decode().splitlines() == [
            "file\t/etc/a.conf\t0644\troot\troot",
            "absent\t/etc/gone",
            "keep\ta.service\t/etc/a.conf",
            "marker\trestart@a.service",
            "action\tload\tload-it",
        ]


class TestImages:
    PINNED = f"localhost/rtinfra/thing@sha256:{'a' * 64}"

    def test_an_image_that_is_there_is_not_carried(self) -> None:
        assert run(images.loaded, f"@@images\n{self.PINNED}\n", images={self.PINNED: Path("/none")}) == []

    def test_a_missing_one_is_carried_loaded_and_looked_for(self, tmp_path: Path) -> None:
        archive = tmp_path / "thing-1.tar"
        archive.write_bytes(b"x")
        *_, load = run(images.loaded, "@@images\n", images={self.PINNED: archive})
        assert "podman load --quiet --input /var/cache/rtinfra/thing-1.tar" in load
        assert f"podman image exists {self.PINNED}" in load


class TestDifferences:
    STATE = PathState("regular file", "0644", "root", "root", FILE.sha256)

    def test_words(self) -> None:
        assert FILE.difference(self.STATE) is None
        assert FILE.difference(None) == "new"
        changed = PathState("regular file", "0600", "mxrc", "root", "0")
        assert FILE.difference(changed) == "content, mode 0600 -> 0644, owner mxrc -> root"
        assert FILE.difference(PathState("symbolic link", "0777", "root", "root")) == "replaces a symbolic link"
        assert Absent(path="/a").difference(None) is None
        assert Absent(path="/a").difference(self.STATE) == "removed"

    @pytest.mark.parametrize("path", ["relative", "/a\nb", "/a\tb", "/a\\b"])
    def test_odd_paths_are_refused(self, path: str) -> None:
        with pytest.raises(ValueError, match="absolute path"):
            Absent(path=path)


class TestPackages:
    def test_all_there(self) -> None:
        assert run(packages.installed, "@@query\na\t1\tii \n@@audit\n", names=["a"]) == []

    def test_missing_ones_in_one_transaction(self) -> None:
        first, update, install, last = run(packages.installed, "@@query\na\t1\tii \n", names=["a", "b", "c/backports"])
        assert (first, last) == (packages.IN_ORDER, packages.AS_BEFORE)
        assert "--error-on=any" in update
        assert install.endswith("install b c/backports")

    def test_interrupted_dpkg_is_completed_first(self) -> None:
        _, finish, update, fix, _ = run(packages.installed, "@@query\na\t1\tii \n@@audit\n0001\n", names=["a"])
        assert "dpkg --configure -a" in finish
        assert "update" in update
        assert "--fix-broken" in fix
        _, *same, install, _ = run(packages.installed, "@@query\na\t1\tii \n@@audit\n0001\n", names=["a", "b"])
        assert same == [finish, update, fix] and install.endswith("install b")

    @pytest.mark.parametrize(
        ("codes", "calls", "outcome"), [("0", 1, 0), ("1", 1, 0), ("2 2 0", 3, 0), ("2 1", 2, 0), ("2 " * 60, 60, 2)]
    )
    def test_only_a_locked_dpkg_is_waited_for(self, tmp_path: Path, codes: str, calls: int, outcome: int) -> None:
        """Half unpacked packages are exit code 1: apt mends them, waiting does not."""
        (tmp_path / "codes").write_text("\n".join(codes.split()) + "\n")
        (tmp_path / "dpkg").write_text(
            '#!/bin/sh\ncd "${0%/*}"\necho >>calls\nexit "$(sed -n "$(wc -l <calls)p" codes)"\n'
        )
        (tmp_path / "sleep").write_text("#!/bin/sh\n")
        for name in ("dpkg", "sleep"):
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        result = subprocess.run(["sh", "-c", packages.FINISH], env={"PATH": path}, check=False)
        assert (len((tmp_path / "calls").read_text()), result.returncode) == (calls, outcome)

    def test_lists_of_an_update_that_was_cut_off_are_fetched_again(self, tmp_path: Path) -> None:
        """apt itself keeps an empty list for good: to it nothing has changed."""
        lists, fetched = tmp_path / "lists", tmp_path / "fetched"
        lists.mkdir()
        apt = tmp_path / "apt-get"
        apt.write_text(
            f"#!/bin/sh\n[ -e {lists}/Packages ] || {{ echo >>{fetched}; echo new >{lists}/Packages; }}\nexit $CODE\n"
        )
        apt.chmod(0o755)
        command = packages.update().replace("/var/lib/apt", str(tmp_path))

        def run_it(code: int) -> int:
            path = f"{tmp_path}:{os.environ['PATH']}"
            return subprocess.run(["sh", "-c", command], env={"PATH": path, "CODE": str(code)}, check=False).returncode

        assert run_it(0) == 0 and run_it(0) == 0
        assert fetched.read_text() == "\n", "whole lists are kept"
        assert run_it(100) == 100
        (lists / "Packages").write_text("")
        assert run_it(0) == 0
        assert (lists / "Packages").read_text() == "new\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["apt-get", "fetched", "lists"]

    def test_a_local_package_of_another_version_replaces(self, tmp_path: Path) -> None:
        deb = tmp_path / "k.deb"
        deb.write_bytes(b"")
        local = [LocalPackage(deb, "k", "2")]
        sent = run(packages.installed, "@@query\nk\t1\tii \n", names=[], local=local)
        assert any("install /var/cache/rtinfra/k.deb" in command for command in sent)
        assert run(packages.installed, "@@query\nk\t2\tii \n", names=[], local=local) == []

    def test_nothing_asked_for(self) -> None:
        assert run(packages.installed, "@@query\n", names=[]) == []


def show(active: str = "active", file: str = "enabled", reload: str = "no", pending: str = "") -> str:
    return (
        f"@@show\nId=a.service\nLoadState=loaded\nActiveState={active}\nSubState=x\nUnitFileState={file}\n"
        f"NeedDaemonReload={reload}\n@@pending\n{pending}\n"
    )


class TestUnits:
    def test_as_it_should_be(self) -> None:
        assert run(units.ensure, show(), units=[Unit("a.service")]) == []

    def test_enable_and_start(self) -> None:
        enable, start = run(units.ensure, show("inactive", "disabled"), units=[Unit("a.service")])
        assert enable == "systemctl enable --quiet a.service"
        assert start.startswith("set -- start a.service\n")

    def test_a_stopped_unit_is_started_by_a_restart_only_once(self) -> None:
        (start,) = run(units.ensure, show("failed", pending="restart@a.service"), units=[Unit("a.service")])
        assert start.startswith("set -- restart a.service\n")

    def test_a_pending_restart_of_another_unit_is_left(self) -> None:
        assert run(units.ensure, show(pending="restart@b.service"), units=[Unit("a.service")]) == []

    def test_mask(self) -> None:
        masked = Unit("a.service", startup="masked", running=False)
        assert run(units.ensure, show(), units=[masked]) == ["systemctl mask --now --quiet a.service"]
        assert run(units.ensure, show("inactive", "masked"), units=[masked]) == []

    def test_unmask_disable_stop(self) -> None:
        off = Unit("a.service", startup="disabled", running=False)
        assert run(units.ensure, show("active", "enabled"), units=[off]) == [
            "systemctl disable --quiet a.service",
            "systemctl stop a.service && rm -f /run/rtinfra/pending/restart@a.service",
        ]
        first, *_ = run(units.ensure, show("inactive", "masked"), units=[Unit("a.service")])
        assert first == "systemctl unmask --quiet a.service"

    def test_files_of_all_units_are_changed_together_before_the_first_start(self) -> None:
        """systemd reads all of its units after each of these commands: seconds on a slow host."""
        answer = show("inactive", "disabled") + show("inactive", "disabled").replace("a.service", "b.service")
        answer = answer.replace("@@pending\n\n@@show", "")
        enable, *starts = run(units.ensure, answer, units=[Unit("a.service"), Unit("b.service")])
        assert enable == "systemctl enable --quiet a.service b.service"
        assert [start.partition("\n")[0] for start in starts] == [
            "set -- start a.service",
            "set -- start b.service",
        ]

    def test_changed_units_are_read_once(self) -> None:
        forget = "rm -f /run/rtinfra/pending/daemon-reload"
        asked = show(pending="daemon-reload")
        assert run(units.ensure, asked, units=[Unit("a.service")]) == ["systemctl daemon-reload", forget]
        # Which is what systemd does after this by itself.
        new = show("inactive", "disabled", pending="daemon-reload")
        enable, forgotten, start = run(units.ensure, new, units=[Unit("a.service")])
        assert (enable, forgotten) == ("systemctl enable --quiet a.service", forget)
        assert start.startswith("set -- start a.service\n")

    def test_reload_when_systemd_asks_for_it(self) -> None:
        assert run(units.ensure, show(reload="yes"), units=[Unit("a.service")]) == ["systemctl daemon-reload"]


class TestReboot:
    ARGUMENTS: ClassVar = {
        "image_pattern": "*-rt",
        "parameters": ("nohz=on",),
        "minimum_release": "6.0",
        "timeout_seconds": 60,
    }
    BOOTED = (
        "@@boot_id\n{boot_id}\n@@release\n6.1-rt\n@@version\nPREEMPT_RT\n@@cmdline\nro {now}\n@@installed\n6.1-rt\n"
        "@@grub_cfg\n/boot/vmlinuz-6.1-rt\tro {next}\n@@default\nyes\n@@saved_entry\nsaved_entry=rtinfra-good\n"
        "@@kept\n6.1-rt\nro {now}\n"
    )

    def answer(self, now: str = "nohz=on", following: str = "nohz=on", boot_id: str = "other") -> str:
        return self.BOOTED.format(now=now, next=following, boot_id=boot_id)

    def test_not_needed(self) -> None:
        assert run(boot.reboot_when_needed, self.answer(), allowed=True, **self.ARGUMENTS) == []

    def test_a_lost_entry_is_frozen_again(self) -> None:
        lost = self.answer().replace("@@kept\n6.1-rt", "@@kept")
        commands = run(boot.reboot_when_needed, lost, allowed=True, **self.ARGUMENTS)
        assert commands == ["/usr/local/lib/rtinfra/boot keep"]

    def test_guarded(self) -> None:
        answer = self.answer(now="") + "@@guard\nyes\nacceptance test\n"
        with pytest.raises(PyinfraError, match="no-reboot on the host forbids it: acceptance test"):
            run(boot.reboot_when_needed, answer, allowed=True, **self.ARGUMENTS)

    def test_not_allowed(self) -> None:
        with pytest.raises(PyinfraError, match="is `never`"):
            run(boot.reboot_when_needed, self.answer(now=""), allowed=False, **self.ARGUMENTS)

    def test_would_not_help(self) -> None:
        with pytest.raises(PyinfraError, match="would not help"):
            run(boot.reboot_when_needed, self.answer(now="", following=""), allowed=True, **self.ARGUMENTS)

    def test_never_the_control_machine(self) -> None:
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        with pytest.raises(PyinfraError, match="control machine"):
            run(boot.reboot_when_needed, self.answer(now="", boot_id=here), allowed=True, **self.ARGUMENTS)
