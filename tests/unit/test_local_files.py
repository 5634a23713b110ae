"""Files that are whole at any moment, whoever writes them and whenever that is cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtinfra.local.files import replace_file

WRITER = """
import sys
from pathlib import Path
from rtinfra.local.files import replace_file
for _ in range(100):
    replace_file(Path(sys.argv[1]), sys.argv[2].encode() * int(sys.argv[3]))
"""


def test_it_has_the_content_and_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "key"
    replace_file(path, b"first and longer", 0o600)
    replace_file(path, b"second", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"second", 0o640)
    assert [one.name for one in path.parent.iterdir()] == ["key"], "nothing else is left"


def test_what_an_interrupted_call_left_is_overwritten(tmp_path: Path) -> None:
    left = tmp_path / ".state.new"
    left.write_bytes(b"half of something much longer")
    left.chmod(0o644)
    replace_file(tmp_path / "state", b"whole", 0o600)
    assert (tmp_path / "state").read_bytes() == b"whole"
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600
    assert not left.exists()


def test_processes_at_the_same_time_never_mix_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = {b"a" * 70_000, b"b" * 7}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, content[:1], str(len(content))]) for content in contents
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen | {path.read_bytes()} <= contents
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    replace_file(path, b"old")

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
