"""What Python does with the archive mxrc_reference.pyz: runs the workload, or `--compile`s it for launcher.py.

Python compiles the modules of an archive anew at every start. `--compile`, alone, writes a second archive beside the
first, with compiled modules and their sources. It is about the first one for as long as both have the same time of
change: so an older archive that was put back is never run in the compiled form of a newer one.
"""

import sys
from pathlib import Path


def compile_archive(archive: Path) -> None:
    """Write the compiled form of the archive beside it."""
    import importlib.util
    import marshal
    import os
    import zipfile

    compiled = archive.with_suffix(".compiled.pyz")
    new = compiled.with_suffix(".new")
    changed_ns = archive.stat().st_mtime_ns
    # PEP 552: with a hash that is never compared. A Python of another magic number takes the source instead.
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    with zipfile.ZipFile(archive) as sources, zipfile.ZipFile(new, "w") as target:
        for name in sources.namelist():
            source = sources.read(name)
            target.writestr(zipfile.ZipInfo(name), source)
            code = compile(source, f"{archive}/{name}", "exec", dont_inherit=True)
            target.writestr(zipfile.ZipInfo(f"{name}c"), header + marshal.dumps(code))
    # For the application's user, whatever the umask is.
    new.chmod(0o644)
    os.utime(new, ns=(changed_ns, changed_ns))
    with new.open("rb") as written:
        os.fsync(written.fileno())
    new.replace(compiled)


if __name__ == "__main__":
    if sys.argv[1:] == ["--compile"]:
        compile_archive(Path(sys.argv[0]))
    else:
        from mxrc_reference.main import run  # type: ignore[import-not-found]

        run(sys.argv)
