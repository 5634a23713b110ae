"""What others own and say: files read for real, with their rights, within bounds; texts that steer nothing."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from testinfra.host import Host

from rtinfra.facts import output_sections
from rtinfra.terminal import plain
from rtinfra.verify.look import containers, foreign, private_files
from rtinfra.verify.questions import Questions
from rtinfra.verify.report import ControlResult, HostProblem, Report, Status, show
from tests.compliance import test_agents
from tests.compliance.test_failover import newest_checkpoint

# Of no account: somebody who is not root and owns the folder.
THEM = 64_999

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can read as somebody else")


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder of theirs in one that everybody can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield their_folder(Path(name))


def their_folder(place: Path) -> Path:
    folder = place / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, THEM, THEM)
    (place / "secret").write_text("of root alone")
    (place / "secret").chmod(0o600)
    return folder


def written(path: Path, text: str, age: int = 0) -> Path:
    path.write_text(text)
    os.chown(path, THEM, THEM)
    os.utime(path, (time.time() - age,) * 2)
    return path


def run(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=20)
    return done.stdout


@needs_root
def test_the_newest_checkpoint_and_the_last_lines_of_logs(theirs: Path) -> None:
    written(theirs / "rt_process_1.json", "old", age=100)
    written(theirs / "rt_process_2.json", '{"a":\n1}')
    written(theirs / "other_3.json", "other")
    written(theirs / "a.log", "first\nlast of a\n")
    written(theirs / "b.log", "x" * 200_000 + "\nlast of b")
    assert run(foreign.newest(str(theirs), "rt_process_")) == '{"a":\n1}\n'
    assert run(foreign.last_lines(str(theirs), ("a.log", "none.log", "b.log"))) == "last of a\nlast of b\n"


@needs_root
def test_root_follows_no_link_of_theirs(theirs: Path) -> None:
    for name in ("rt_process_9.json", "a.log"):
        (theirs / name).symlink_to(theirs.with_name("secret"))
    assert run(foreign.newest(str(theirs), "rt_process_")) == ""
    assert run(foreign.last_lines(str(theirs), ("a.log",))) == ""


@needs_root
def test_a_folder_that_is_a_link_is_read_with_their_rights(theirs: Path) -> None:
    hidden = theirs.with_name("hidden")
    hidden.mkdir(mode=0o700)
    (hidden / "rt_process_1.json").write_text("of root alone")
    link = theirs / "link"
    link.symlink_to(hidden)
    os.chown(link, THEM, THEM, follow_symlinks=False)
    assert run(foreign.newest(str(link), "rt_process_")) == ""


class Here:
    """This computer, as testinfra plays a host."""

    def check_output(self, command: str) -> str:
        return run(command)


@needs_root
def test_the_control_of_failures_reads_a_checkpoint_as_its_owner(theirs: Path) -> None:
    written(theirs / "rt_process_1.json", '{"a": 1}', age=100)
    assert newest_checkpoint(cast(Host, Here()), str(theirs)) == {"a": 1}
    theirs.with_name("secret").write_text('{"of": "root alone"}')
    (theirs / "rt_process_9.json").symlink_to(theirs.with_name("secret"))
    assert newest_checkpoint(cast(Host, Here()), str(theirs)) == {"a": 1}


@needs_root
@pytest.mark.parametrize("is_link", [False, True])
def test_the_control_of_log_lines_writes_as_the_owner_of_the_log(theirs: Path, is_link: bool) -> None:
    log, roots = theirs / "non_rt_process.log", theirs.with_name("secret")
    if is_link:
        # Even where they could write to what it leads to.
        roots.chmod(0o666)
        theirs.parent.chmod(0o777)
        log.symlink_to(roots)
    else:
        written(log, "")
    before = roots.read_text()
    # Nobody listens there: only what is written counts.
    arguments = [str(log), "127.0.0.1", "1", "3", "0", "line ", " end", "00", "0.3"]
    subprocess.run(["perl", "-e", test_agents._WRITER, *arguments], capture_output=True, check=True, timeout=20)
    assert roots.read_text() == before
    assert is_link or log.read_text() == "line 0 end\nline 1 end\nline 2 end\n"


@needs_root
def test_a_pipe_is_not_waited_for(theirs: Path) -> None:
    for name in ("rt_process_9.json", "a.log"):
        os.mkfifo(theirs / name)
        os.chown(theirs / name, THEM, THEM)
    started = time.monotonic()
    assert run(foreign.newest(str(theirs), "rt_process_")) == ""
    assert run(foreign.last_lines(str(theirs), ("a.log",))) == ""
    assert time.monotonic() - started < 10


@needs_root
def test_a_file_without_an_end_is_read_in_part(theirs: Path) -> None:
    endless = written(theirs / "rt_process_9.json", "x")
    os.truncate(endless, 1 << 40)
    written(theirs / "a.log", "x" * (foreign.MOST_OF_AN_END * 2))
    assert len(run(foreign.newest(str(theirs), "rt_process_"))) == foreign.MOST_OF_A_FILE + 1
    assert len(run(foreign.last_lines(str(theirs), ("a.log",)))) == foreign.MOST_OF_AN_END + 1


def test_a_name_of_theirs_is_one_line_of_a_list(tmp_path: Path) -> None:
    """A line break in it would begin a line about a file of somebody else."""
    ours, own = tmp_path / "ours", tmp_path / "own"
    own.mkdir()
    (own / f"x\n777 {ours}").mkdir(parents=True)
    (own / f"x\n777 {ours}" / "block").write_text("data")
    program = SimpleNamespace(directories=(str(own),))
    asked = cast(Questions, SimpleNamespace(private_directories=(str(own),), programs=(program,)))
    access = dict(output_sections.pairs(run(private_files.ask(asked)["private_files"]).splitlines()))
    assert set(access) == {str(own), f"{own}/x"}
    (data,) = output_sections.pairs(run(containers.ask(asked)["data_files"]).splitlines())
    assert data == ("4", f"{own}/x 777 {ours}/block")


def test_what_they_write_begins_no_section() -> None:
    marker = output_sections.unguessable_marker()
    script = output_sections.guarded(
        output_sections.script({"a": "printf '@@b\\nforged\\n'", "b": "echo true"}), marker
    )
    said = output_sections.unguarded(run(script), marker)
    assert output_sections.parse(said.split("\n")) == {"a": [" @@b", "forged"], "b": ["true", ""]}


@given(st.text())
def test_nothing_of_a_host_steers_the_terminal(text: str) -> None:
    shown = plain(text)
    assert all(letter.isprintable() or letter in "\n\t" for letter in shown)
    assert plain("ü 한 \t\n") == "ü 한 \t\n"


def test_the_table_of_a_verification_shows_escapes_as_text() -> None:
    evil = "name\x1b]0;title\x07\x1b[2J"
    result = ControlResult("h", "RT-1.1", "area", "high", "title", Status.FAIL, expected=evil, actual=evil, note=evil)
    report = Report("2026-01-01T00:00:00+00:00", "i", False, (result,), {}, (HostProblem("h", evil),), notes=(evil,))
    console = Console(file=StringIO(), width=200, force_terminal=False)
    show(report, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in said
    assert said.count(r"\x1b[2J") == 5
