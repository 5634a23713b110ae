"""The archive that carries the reference workload: its bytes, its compiled form, what it needs, what it replaces."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from roles.rt_app import role
from roles.rt_app.model import NON_RT_UNIT, RT_UNIT
from roles.rt_app.workload_archive import pack
from rtinfra.operations.resources import Absent, Resource
from tests.unit.workload_site import LIBRARY, SOURCES, compile_as_deployed, install, launcher

#: A sentence that only the sources of the archive say.
HELP = b"Reference workload: stands in for MXRC's processes."


def shown_help(program: Path) -> str:
    """What a program says of itself, without a terminal's width."""
    command = [sys.executable, "-ISB", str(program), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"COLUMNS": "200"}).stdout


def changed(archive: Path, new: bytes) -> None:
    """Change a sentence of the archive to one of the same length, as a later version would; it keeps its time."""
    at = archive.stat().st_mtime_ns
    content = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(content, "w") as target:
        for name in old.namelist():
            target.writestr(name, old.read(name).replace(HELP, new))
    archive.write_bytes(content.getvalue())
    os.utime(archive, ns=(at, at))


@pytest.fixture
def host(tmp_path: Path) -> tuple[Path, Path]:
    """A directory with the archive and its compiled form, and a launcher that looks into it."""
    library = tmp_path / "lib"
    library.mkdir()
    install(library)
    compile_as_deployed(library)
    return library, launcher(tmp_path / "rt_process", library)


# --- the same bytes everywhere ---


def test_bytes_depend_on_names_and_contents_only(tmp_path: Path) -> None:
    """The digest was made with Python 3.11; every other one has to come to the same."""
    trees = [tmp_path / "one", tmp_path / "two"]
    for at, tree in enumerate(trees):
        (tree / "room").mkdir(parents=True)
        files = {
            "__main__.py": "import room.b\n",
            "room/__init__.py": "",
            "room/b.py": "B = 'é'\n",
            "room/a.py": "A = 1\n",
        }
        for name, text in sorted(files.items(), reverse=bool(at)):
            (tree / name).write_text(text, encoding="utf-8")
            (tree / name).chmod(0o600 if at else 0o755)
            os.utime(tree / name, (at, at))
    # What Python leaves behind, and what is not part of a package.
    (trees[1] / "room" / "__pycache__").mkdir()
    (trees[1] / "room" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"\0")
    (trees[1] / "launcher.py").touch()
    one, two = map(pack, trees)
    assert one == two
    assert hashlib.sha256(one).hexdigest() == "ab8f0493fbe3c603ed05463596e26ecc4797fddc6b21ebc36c7dea089e620e1e"


def test_every_module_is_in_it_uncompressed() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(SOURCES))) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        names = {f"mxrc_reference/{path.name}" for path in (SOURCES / "mxrc_reference").glob("*.py")}
        assert set(archive.namelist()) == {"__main__.py", *names}


def test_it_needs_the_standard_library_only() -> None:
    """A bare host has Python and nothing else; and no room may be named like what it imports."""
    for path in (SOURCES / "launcher.py", SOURCES / "__main__.py", *(SOURCES / "mxrc_reference").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    modules = {name.name.partition(".")[0] for name in names}
                case ast.ImportFrom(module=module, level=0):
                    modules = {str(module).partition(".")[0]}
                case ast.ImportFrom(module=module, level=level):
                    assert level == 1
                    assert (path.parent / f"{module}.py").exists(), (path, module)
                    continue
                case _:
                    continue
            assert modules <= {*sys.stdlib_module_names, "mxrc_reference"}, path


# --- the compiled form ---


def test_launcher_runs_the_compiled_form(host: tuple[Path, Path]) -> None:
    library, program = host
    changed(library / "mxrc_reference.pyz", b"A later version.".ljust(len(HELP)))
    # It says nothing of the change: the archive was not looked into.
    assert HELP.decode() in shown_help(program)


def test_user_of_the_application_may_read_the_compiled_form(host: tuple[Path, Path]) -> None:
    """The action runs under the umask of sync.sh."""
    library, _ = host
    assert (library / "mxrc_reference.compiled.pyz").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in library.iterdir()) == ["mxrc_reference.compiled.pyz", "mxrc_reference.pyz"]


def test_compiling_again_comes_to_the_same_bytes(host: tuple[Path, Path]) -> None:
    """End states of hosts are compared by content after a power cut (tests/chaos)."""
    library, _ = host
    first = (library / "mxrc_reference.compiled.pyz").read_bytes()
    assert compile_as_deployed(library).read_bytes() == first


@pytest.mark.parametrize("seconds", [-60, 60])
def test_launcher_runs_an_archive_that_was_replaced(host: tuple[Path, Path], seconds: int) -> None:
    """By a newer one that is not compiled yet, or by an older one that was put back with its own time."""
    library, program = host
    archive = library / "mxrc_reference.pyz"
    changed(archive, b"Another version.".ljust(len(HELP)))
    os.utime(archive, (archive.stat().st_atime, archive.stat().st_mtime + seconds))
    assert "Another version." in shown_help(program)
    compile_as_deployed(library)
    assert "Another version." in shown_help(program)


def test_compiled_form_of_another_python_is_not_used(host: tuple[Path, Path]) -> None:
    library, program = host
    compiled = library / "mxrc_reference.compiled.pyz"
    at = compiled.stat().st_mtime_ns
    content = io.BytesIO()
    with zipfile.ZipFile(compiled) as old, zipfile.ZipFile(content, "w") as target:
        for name in old.namelist():
            member = old.read(name)
            target.writestr(name, b"\0\0\r\n" + member[4:] if name.endswith(".pyc") else member)
    compiled.write_bytes(content.getvalue())
    os.utime(compiled, ns=(at, at))
    assert HELP.decode() in shown_help(program)


def test_without_a_compiled_form_the_archive_runs(host: tuple[Path, Path]) -> None:
    library, program = host
    (library / "mxrc_reference.compiled.pyz").unlink()
    assert HELP.decode() in shown_help(program)
    assert HELP.decode() in shown_help(library / "mxrc_reference.pyz")


# --- the host ---


def former(paths: list[Resource]) -> dict[str, tuple[str, ...]]:
    return {path.path: path.restarts for path in paths if isinstance(path, Absent)}


def test_one_module_of_former_hosts_goes_with_what_it_was_compiled_to() -> None:
    both = (RT_UNIT, NON_RT_UNIT)
    pycache = f"{LIBRARY}/__pycache__/mxrc_reference"
    assert former(role.former_workload()) == {
        # Kept for the case that the units do not start without it.
        f"{LIBRARY}/mxrc_reference.py": both,
        **{f"{pycache}.cpython-{version}.pyc": () for version in ("311", "312", "313")},
    }
