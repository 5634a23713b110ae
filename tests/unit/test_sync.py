"""sync.sh, run for real by sh against a temporary directory."""

from __future__ import annotations

import base64
import getpass
import grp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rtinfra.operations.files import bundle
from rtinfra.operations.resources import Absent, Action, Directory, File, Resource
from rtinfra.operations.scripts import script

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture
def run(tmp_path: Path):
    """Run the script with its state below tmp_path; paths of the payload are absolute already."""
    text = script("sync.sh").replace("state=/var/lib/rtinfra", f"state={tmp_path}/state")
    text = text.replace("pending=/run/rtinfra/pending", f"pending={tmp_path}/pending")
    text = text.replace("previous=/run/rtinfra/previous", f"previous={tmp_path}/previous")
    assert f"{tmp_path}/state" in text
    assert f"{tmp_path}/pending" in text

    def call(payload: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", text], input=payload, capture_output=True, text=True, check=False)

    return call


def pending(tmp_path: Path) -> set[str]:
    """Names of markers: of restarts, and of actions, which a power cut does not take away."""
    return {path.name for place in ("pending", "state/pending") for path in (tmp_path / place).iterdir()}


def test_places_content_mode_and_missing_parents(run, tmp_path: Path) -> None:
    target = tmp_path / "etc" / "deep" / "a.conf"
    content = bytes(range(256))
    done = run(bundle([File(path=str(target), content=content, mode="0640", **ME)], [], []))
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o7777 == 0o640
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["pending"], "the staging directory is gone"


def test_secret_is_never_readable_by_others(run, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    with pytest.raises(ValueError, match="lets others read"):
        File(path=str(target), content=b"x", secret=True)
    file = File(path=str(target), content=b"hunter2", mode="0600", secret=True, **ME)
    assert "hunter2" not in repr(file)
    assert run(bundle([file], [], [])).returncode == 0
    assert target.stat().st_mode & 0o077 == 0


def test_refused_file_leaves_every_old_file(run, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")
    paths = [
        File(path=str(first), content=b"new", **ME),
        File(
            path=str(second),
            content=b"bad",
            validate="grep -q good {path} || { echo not good; false; }",
            **ME,
        ),
    ]
    done = run(bundle(paths, [Action("a", "true")], ["restart@b.service"]))
    assert done.returncode != 0
    assert "second" in done.stderr
    assert "not good" in done.stderr
    assert first.read_text() == "old"
    assert not second.exists()
    assert pending(tmp_path) == set()


def test_validator_sees_the_new_content(run, tmp_path: Path) -> None:
    target = tmp_path / "checked"
    file = File(path=str(target), content=b"good", validate="grep -q good {path}", **ME)
    assert run(bundle([file], [], [])).returncode == 0
    assert target.read_bytes() == b"good"


def test_failed_action_stays_pending_and_says_so(run, tmp_path: Path) -> None:
    target = tmp_path / "file"
    done = run(bundle([File(path=str(target), content=b"x", **ME)], [Action("grub", "exit 7")], []))
    assert done.returncode != 0
    assert "'grub' failed" in done.stderr
    assert target.exists()
    assert pending(tmp_path) == {"grub"}


def test_actions_run_once_after_all_files_and_restarts_stay_for_the_units(run, tmp_path: Path) -> None:
    one, two, log = tmp_path / "one", tmp_path / "two", tmp_path / "log"
    action = Action("note", f"cat {one} {two} >>{log}")
    paths = [
        File(path=str(one), content=b"1", actions=(action,), **ME),
        File(path=str(two), content=b"2", actions=(action,), **ME),
    ]
    assert run(bundle(paths, [action], ["restart@x.service"])).returncode == 0
    assert log.read_text() == "12"
    assert pending(tmp_path) == {"restart@x.service"}


def test_replaces_a_symbolic_link_instead_of_writing_through_it(run, tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "target"
    elsewhere.write_text("untouched")
    target.symlink_to(elsewhere)
    assert run(bundle([File(path=str(target), content=b"new", **ME)], [], [])).returncode == 0
    assert elsewhere.read_text() == "untouched"
    assert not target.is_symlink()


def test_directory_and_absent(run, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.write_text("x")
    made = tmp_path / "made"
    assert run(bundle([Directory(path=str(made), mode="0750", **ME), Absent(path=str(gone))], [], [])).returncode == 0
    assert made.stat().st_mode & 0o7777 == 0o750
    assert not gone.exists()


def test_truncated_transfer_changes_nothing(run, tmp_path: Path) -> None:
    target = tmp_path / "file"
    payload = bundle([File(path=str(target), content=b"x" * 50_000, **ME)], [], [])
    raw = base64.b64decode(payload)
    done = run(base64.encodebytes(raw[: len(raw) // 2]).decode())
    assert done.returncode != 0
    assert not target.exists()


# A module of perl that tells what is flushed and renamed, in order; a folder or a file is told by its path.
_SPY = """
package Spy;
use IO::Handle;
sub tell_all { open my $log, ">>", $ENV{SPY_LOG}; print $log "@_\\n" }
BEGIN {
    *CORE::GLOBAL::rename = sub {
        my $folder = readlink "/proc/self/cwd";
        tell_all("rename", map { "$folder/$_" } @_);
        CORE::rename($_[0], $_[1]);
    };
}
my $sync = \\&IO::Handle::sync;
{ no warnings; *IO::Handle::sync = sub { tell_all("flush", readlink "/proc/self/fd/" . fileno $_[0]); $sync->(@_) } }
1;
"""


def test_a_file_is_on_the_disk_before_it_takes_its_name(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are, before the first rename; in the end their folders are too, each once."""
    log = tmp_path / "log"
    (tmp_path / "Spy.pm").write_text(_SPY)
    monkeypatch.setenv("PERL5LIB", str(tmp_path))
    monkeypatch.setenv("PERL5OPT", "-MSpy")
    monkeypatch.setenv("SPY_LOG", str(log))
    one, two, gone = tmp_path / "one" / "a", tmp_path / "two" / "b", tmp_path / "one" / "c"
    gone.parent.mkdir()
    gone.write_text("old")
    files = [File(path=str(path), content=b"new", **ME) for path in (one, two)]
    done = run(bundle([*files, Absent(path=str(gone))], [], []))
    assert done.returncode == 0, done.stderr
    beside = [path.with_name(f".rtinfra-new.{path.name}") for path in (one, two)]
    assert log.read_text().splitlines() == [
        *(f"flush {path}" for path in beside),
        *(f"rename {new} {path}" for new, path in zip(beside, (one, two), strict=True)),
        *(f"flush {folder}" for folder in (one.parent, two.parent)),
    ]
    assert not gone.exists()


def test_nothing_follows_a_link_that_is_in_the_way(run, tmp_path: Path) -> None:
    """Somebody who may write to a folder could lay one where the new file is written first, or at its place."""
    victim, target = tmp_path / "victim", tmp_path / "folder" / "file"
    victim.write_text("theirs")
    target.parent.mkdir()
    for link in (target, target.with_name(".rtinfra-new.file")):
        link.symlink_to(victim)
    assert run(bundle([File(path=str(target), content=b"ours", mode="0600", **ME)], [], [])).returncode == 0
    assert victim.read_text() == "theirs"
    assert not target.is_symlink()
    assert target.read_bytes() == b"ours"


def test_a_file_that_cannot_be_made_leaves_nothing_beside_the_others(run, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    files = [
        File(path=str(one), content=b"new", **ME),
        File(path=str(two), content=b"new", owner="nobody-has-this-name", group=str(os.getgid())),
    ]
    done = run(bundle(files, [], []))
    assert done.returncode != 0
    assert "there is no user or group nobody-has-this-name here" in done.stderr
    assert list(tmp_path.rglob(".rtinfra-new*")) == []
    assert not one.exists()


def test_what_is_to_follow_is_on_the_disk_before_the_first_change(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut behind the first file must not forget the boot menu."""
    programs = tmp_path / "programs"
    programs.mkdir()
    target, seen = tmp_path / "file", tmp_path / "seen"
    # The first sync of all is that of the markers: at that moment they are there and no file is.
    (programs / "sync").write_text(
        f'#!/bin/sh\n[ -e {seen} ] || {{ echo "$*"; ls {tmp_path}/state/pending; ls {target} 2>&1; }} >{seen}\nexit 0\n'
    )
    (programs / "sync").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    action = Action("boot-menu", "true")
    assert run(bundle([File(path=str(target), content=b"x", **ME)], [action], [])).returncode == 0
    synced, marker, missing = seen.read_text().splitlines()
    assert (synced, marker) == (f"-f -- {tmp_path}/state/pending", "boot-menu")
    assert "No such file" in missing


def test_odd_names_survive(run, tmp_path: Path) -> None:
    target = tmp_path / "a b'c\"d$e.conf"
    file = File(path=str(target), content=b"x", validate="test -s {path}", **ME)
    done = run(bundle([file], [], []))
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == b"x"


def test_sh_is_not_bash() -> None:
    """The script is run by the host's sh, dash on Debian: prove these tests did not pass thanks to bash."""
    assert "bash" not in Path(shutil.which("sh") or "").resolve().name


def test_only_actions_outlast_a_power_cut(run, tmp_path: Path) -> None:
    """A boot starts every unit with its new files, but nobody else would make the boot menu again."""
    actions = [Action("boot-menu", "false")]
    assert (
        run(bundle([File(path=str(tmp_path / "a"), content=b"", **ME)], actions, ["restart@a.service"])).returncode != 0
    )
    assert [path.name for path in (tmp_path / "state" / "pending").iterdir()] == ["boot-menu"]
    assert [path.name for path in (tmp_path / "pending").iterdir()] == ["restart@a.service"]
    assert run(bundle([], [Action("boot-menu", "true")], [])).returncode == 0
    assert pending(tmp_path) == {"restart@a.service"}


# ---- folders that another account can write ---------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder in which another account can make any name, with a place of root's outside."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("root's own")
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def resources_below(folder: Path) -> dict[str, list[Resource]]:
    return {
        "file": [File(path=str(folder / "link" / "file"), content=b"ours", **ME)],
        "new": [File(path=str(folder / "link" / "new"), content=b"ours", **ME)],
        "deep": [File(path=str(folder / "link" / "a" / "b"), content=b"ours", **ME)],
        "directory": [Directory(path=str(folder / "link"), mode="0777", **ME)],
        "inner": [Directory(path=str(folder / "link" / "inner"), **ME)],
        "absent": [Absent(path=str(folder / "link" / "file"))],
        "kept": [File(path=str(folder / "link" / "file"), content=b"ours", restarts=("a.service",), **ME)],
    }


@pytest.mark.parametrize("kind", resources_below(Path("/")))
def test_no_link_of_another_account_leads_out_of_its_folder(run, theirs: Path, kind: str) -> None:
    outside = theirs.with_name("outside")
    (theirs / "link").symlink_to(outside)
    mode = outside.stat().st_mode
    done = run(bundle(resources_below(theirs)[kind], [], []))
    assert done.returncode != 0
    assert f"{theirs}/link is a symbolic link in a folder that others than root can write" in done.stderr
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "root's own"
    assert outside.stat().st_mode == mode


def test_a_link_deeper_inside_their_folder_is_not_followed_either(run, theirs: Path) -> None:
    """A folder of root's in theirs can be another one by now: it can be renamed."""
    (theirs / "roots").mkdir(mode=0o755)
    (theirs / "roots" / "link").symlink_to(theirs.with_name("outside"))
    done = run(bundle([File(path=str(theirs / "roots" / "link" / "new"), content=b"ours", **ME)], [], []))
    assert "is a symbolic link" in done.stderr
    assert not (theirs.with_name("outside") / "new").exists()


@pytest.mark.parametrize("target", ["outside", "../{parent}/outside", "{root}/outside"])
def test_a_link_that_only_root_can_have_laid_is_followed(run, theirs: Path, target: str) -> None:
    """As /lib is on a merged system, or a data disk of the operator's."""
    link = theirs.with_name("link")
    link.symlink_to(target.format(parent=theirs.parent.name, root=theirs.parent))
    done = run(bundle([File(path=str(link / "deep" / "new"), content=b"ours", **ME)], [], []))
    assert done.returncode == 0, done.stderr
    assert (theirs.with_name("outside") / "deep" / "new").read_bytes() == b"ours"


def test_links_in_a_circle_end(run, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    done = run(bundle([File(path=str(tmp_path / "a" / "file"), content=b"", **ME)], [], []))
    assert "too many symbolic links" in done.stderr


def test_a_folder_that_is_exchanged_all_the_time_never_leads_out(run, theirs: Path) -> None:
    """The check of a path and its use are two moments for whoever uses names."""
    outside, folder, other = theirs.with_name("outside"), theirs / "folder", theirs / "other"
    folder.mkdir()
    other.symlink_to(outside)
    exchange = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\n"
        # renameat2(AT_FDCWD, ..., RENAME_EXCHANGE)
        f"while True: libc.renameat2(-100, {os.fsencode(folder)!r}, -100, {os.fsencode(other)!r}, 2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", exchange]) as attacker:
        try:
            for _ in range(30):
                run(bundle([File(path=str(folder / "planted"), content=b"ours", **ME)], [], []))
                run(bundle([Directory(path=str(folder), mode="0700", **ME)], [], []))
        finally:
            attacker.kill()
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_pipe_in_the_place_of_a_file_is_no_reason_to_wait(run, theirs: Path) -> None:
    pipe = theirs / "pipe"
    os.mkfifo(pipe)
    done = run(bundle([File(path=str(pipe), content=b"ours", restarts=("a.service",), **ME)], [], []))
    assert done.returncode == 0, done.stderr
    assert pipe.read_bytes() == b"ours"
